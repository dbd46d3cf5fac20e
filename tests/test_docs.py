"""The documentation: its links lead somewhere, its examples run and print what they say, its defaults are the schema's."""

import json
import re
from pathlib import Path

import pytest

from ntksim.study.config.study import json_schema

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for target in (t for t in targets if "://" not in t):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(there), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_that_pages_name_exist(page):
    for path in re.findall(r"`((?:ntksim|workflow|studies|tests|benchmarks)/[\w./-]+)", page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_every_page_is_listed_in_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES[1:] if f"(docs/{page.name})" not in readme] == []


@pytest.mark.parametrize("name", [str(p.relative_to(ROOT)) for p in PAGES if "```python" in p.read_text(encoding="utf-8")])
def test_examples_print_what_they_say(name, capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    code = "\n".join(blocks)
    expected = re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)
    assert len(expected) == code.count("print(") > 0
    exec(compile(code, name, "exec"), {"__name__": "example"})
    assert capsys.readouterr().out.splitlines() == expected


# Of sections that stand in the schema's definitions; that of the study is its top.
SECTIONS = {"dataset": "Dataset", "networks": "NetworkOptions", "initial": "Initial", "training": "Training"}
SECTIONS |= {"training.measures": "Measures", "initial.dispersion": "Dispersion"}


def words(key):
    """The words that a key may be one of; none of other keys."""
    return [word for kind in (key, *key.get("anyOf", ())) for word in kind.get("enum", ())]


def test_keys_and_defaults_are_those_of_the_schema():
    schema = json_schema()
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    documented = set()
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title = part.splitlines()[0].strip("`")
        section = schema["$defs"][SECTIONS[title]] if title in SECTIONS else schema
        rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|(.*)$", part, re.MULTILINE)
        if rows:
            keys = [key for key, *_ in rows]
            assert sorted(keys) == sorted(section["properties"]), title
            documented.add(title)
        for key, default, meaning in rows:
            assert key in section["properties"], f"{title}: {key}"
            assert [word for word in words(section["properties"][key]) if f"`{word}`" not in meaning] == [], f"{title}: {key}"
            assert (default == "required") == (key in section.get("required", ())), f"{title}: {key}"
            if default != "required":
                value = section["properties"][key]["default"]
                written = (
                    "none" if value is None else value if isinstance(value, str) else f"{json.dumps(value).removesuffix('.0')}"
                )
                assert default.strip("`") == written, f"{title}: {key}"
    assert documented == {"The study", *SECTIONS}
    (exponents,) = re.findall(r"^\| `abc` .*$", text, re.MULTILINE)
    assert set(re.findall(r"`([ab]_\w+|c)`", exponents)) == set(schema["$defs"]["Exponents"]["properties"])


def test_pages_that_the_package_names_exist():
    named = {
        (path.relative_to(ROOT), *found)
        for path in (ROOT / "ntksim").rglob("*.py")
        for found in re.findall(r"docs/([\w-]+\.md)(?:#([\w-]+))?", path.read_text(encoding="utf-8"))
    }
    assert len(named) >= 2
    for path, page, anchor in named:
        there = ROOT / "docs" / page
        assert there.exists(), f"{path}: {page}"
        assert not anchor or anchor in anchors(there), f"{path}: {page}#{anchor}"
