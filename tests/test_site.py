"""The documentation's site: it is made without a warning, its pages run, and its references name all there is."""

import re
import subprocess
import sys
from html import unescape
from importlib.util import find_spec
from pathlib import Path

import pytest

import ntksim
from ntksim.study.config.study import json_schema
from ntksim.study.statistics.columns import COLUMNS
from ntksim.study.statistics.measure_columns import MEASURE_COLUMNS

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [page for page in sorted(DOCS.glob("*.md")) if page.name != "index.md"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of a freshly made site."""
    if any(find_spec(name) is None for name in ("sphinx", "myst_nb", "furo")):
        pytest.skip("Sphinx is not installed: make docs")
    folder = tmp_path_factory.mktemp("site")
    call = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", str(DOCS), str(folder)]
    run = subprocess.run(call, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


def text(page):
    """What a page of the site says."""
    return unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_are_questions_that_the_first_page_lists(page):
    title = re.search(r"^# (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE).group(1)
    assert title.endswith("?")
    assert page.stem in (DOCS / "index.md").read_text(encoding="utf-8").splitlines()


def test_the_site_is_made_without_a_warning_and_runs_its_code(site):
    start = text(site / "start.html")
    assert "(8, 16, 16)" in start
    assert "Trajectory: 4 seeds (4 finished)" in start


def test_references_name_all_keys_columns_and_functions(site):
    sections = [json_schema(), *json_schema()["$defs"].values()]
    keys = {key for section in sections for key in section.get("properties", ())}
    columns, functions = COLUMNS | MEASURE_COLUMNS, set(ntksim.__all__) - {"measures", "modes"}
    for page, names in (("configuration", keys), ("columns", columns), ("python", functions)):
        shown = text(site / "reference" / f"{page}.html")
        assert [name for name in names if not re.search(rf"\b{name}\b", shown)] == [], page


def test_formulas_are_formulas(site):
    """They are MathML, which browsers draw by themselves: a page that is read offline has no other server's scripts."""
    assert "$`" not in text(site / "theory.html")
    for page in site.rglob("*.html"):
        written = page.read_text(encoding="utf-8")
        assert r"\(" not in text(page)
        assert not re.search(r"<mfrac>\s*<mn>\d\d", written), f"{page}: write \\frac{{1}}{{2}}, not \\frac12"
        assert not re.search(r"""<script[^>]*src=["'](https?:)?//""", written), page
    assert (site / "theory.html").read_text(encoding="utf-8").count("<math") > 300
