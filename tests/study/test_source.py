"""The digest of code: which results a change of a module makes out of date. Comments and layout change no digest."""

import ast
import re
import shutil
import subprocess
import sys

import pytest

import studies
from ntksim.engine.network import Network
from ntksim.study.files import source
from ntksim.study.plan import identity

SHARDS = {"limit", "initial", "first_step", "training"}
OF_TABLES = ("scaling_laws", "seeds", "drift_parts", "laziness", "ensemble", "columns", "tables")


@pytest.fixture
def copy(tmp_path):
    """A copy of the package and its workflow, for tests to edit."""
    for name in ("ntksim", "workflow"):
        shutil.copytree(studies.ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(studies.ROOT / "Snakefile", tmp_path)
    return tmp_path


def digests(copy):
    """Digests of every kind of result, as the workflow and the stages of the copy compute them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "_PACKAGE", copy / "ntksim")
        for function in (source.digest, source._read):
            function.cache_clear()
        found = {kind: source.digest_of(kind) for kind in source.MODULES}
    for function in (source.digest, source._read):
        function.cache_clear()
    return found


def aged(copy, edited):
    """The kinds of results that are out of date after some modules have been edited."""
    before = digests(copy)
    for name in edited:
        edit(copy, name)
    after = digests(copy)
    return {kind for kind in before if before[kind] != after[kind]}


def planned(copy, undisturbed):
    """Numbers of jobs by rule that a run of the finished study would start with the copy's code."""
    config = undisturbed.parent / "config.yaml"
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--nolock", "--cores", "1", "--snakefile", copy / "Snakefile"]
    command += ["--configfile", config, "--workflow-profile", "workflow/profiles/default"]
    environment = studies.environment(PYTHONPATH=str(copy), PYTHONSAFEPATH="1")
    # in the checkout's folder, where Snakemake keeps its records
    done = subprocess.run(command, cwd=studies.ROOT, env=environment, capture_output=True, text=True, check=True)
    said = done.stdout + done.stderr
    if "Nothing to be done" in said:
        return {}
    table = said.split("Job stats:")[1].split("total")[0]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE) if rule != "all"}


def test_what_is_kept_of_files_changes_no_digest(copy, tmp_path, monkeypatch):
    """Kept or not, damaged or not: an edit is seen, and what was kept before it is used again after it is undone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source._kept.cache_clear()
    before, kept = digests(copy), tmp_path / "cache" / "ntksim" / "sources.json"
    content = kept.read_text()
    path = copy / "ntksim" / "study" / "stages" / "training.py"
    text = path.read_text()
    for damage in (content, content[:-9], "[]", '{"a": 3}', "\x00"):
        kept.write_text(damage)
        source._kept.cache_clear()
        assert digests(copy) == before
        edit(copy, "study/stages/training")
        assert {kind for kind, digest in digests(copy).items() if digest != before[kind]} == {"training", "package"}
        path.write_text(text)
    source._kept.cache_clear()
    monkeypatch.setattr(source.ast, "parse", None)
    assert digests(copy) == before


def edit(copy, name, text="\n_EDITED = True\n"):
    path = copy / "ntksim" / f"{name}.py"
    path.write_text(path.read_text() + text)


def test_a_change_of_code_makes_tables_again(copy, undisturbed):
    """A change of statistics makes tables, figures and pages again, but no shard. Comments and docstrings change nothing."""
    for path in (copy / "ntksim").rglob("*.py"):
        text = path.read_text().replace("\ndef ", "\n\n\n# a comment\ndef ")
        path.write_text(re.sub(r'^( *def \w+\([^\n]*\)[^\n]*:\n)( +)"""', r'\1\2"""Another word. ', text, flags=re.MULTILINE))
    assert (copy / "ntksim" / "study" / "statistics" / "tables.py").read_text().count("Another word") > 5
    assert planned(copy, undisturbed) == {}
    edit(copy, "study/report/findings")
    assert planned(copy, undisturbed) == {"page": 1}
    edit(copy, "study/statistics/scaling_laws")
    found = planned(copy, undisturbed)
    assert found == {"tables": 1, "figures": 1, "page": 1}


@pytest.mark.parametrize("module", OF_TABLES)
def test_every_module_of_tables_is_in_their_digest(copy, module):
    kinds = aged(copy, [f"study/statistics/{module}"])
    assert "tables" in kinds
    assert not kinds & SHARDS


def test_a_change_of_code_makes_figures_or_pages_again(copy):
    assert aged(copy, ["study/report/panels"]) == {"figures", "package"}
    assert aged(copy, ["study/report/findings"]) == {"page", "package"}


def test_shards_depend_on_the_engine_and_their_stage_only(copy):
    """No other change makes shards out of date, since they may have cost weeks."""
    others = ["study/plan/jobs", "study/plan/cost", "study/data/dataset", "study/config/dataset", "cli", "__init__"]
    assert not aged(copy, others) & SHARDS
    assert aged(copy, ["study/stages/training"]) & SHARDS == {"training"}
    assert aged(copy, ["study/files/storage"]) >= SHARDS
    for module in ("engine/cpu/passes", "engine/cuda/kernels"):  # the second is imported inside a function
        assert aged(copy, [module]) & SHARDS == SHARDS - {"limit"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x = 1.0", "x = 2.0"),
        ("x = 1", "x = 1.0"),
        ("a + b", "a - b"),
        ("f(a)", "f(a, b)"),
        ("'''d'''\n'''e'''", "'''d'''\n'''f'''"),
    ],
)
def test_any_change_of_code_changes_the_digest(before, after):
    assert words(before) != words(after)
    assert words(before) == words(f"'''A docstring.'''\n\n{before}  # and a comment\n" if not before.startswith("'") else before)


def words(text):
    found = []
    source._write(ast.parse(text), found, [])
    return found


def test_a_change_of_training_leaves_limits_and_kernels_up_to_date(copy):
    """Shards at initialisation depend on it only where they take a step of descent."""
    assert aged(copy, ["engine/training/flow"]) == {"training", "first_step", "package"}
    assert {"limit", "initial"} < aged(copy, ["engine/infinite/kernel"])


def test_shards_with_a_first_step_name_the_code_of_training():
    network = Network(2, 8)
    plain, of_step = (
        identity.shard_identity("initial", network, range(2), "data", **identity.initial_identity("weights", step))
        for step in (None, 0.5)
    )
    assert (plain["source"], of_step["source"]) == (source.digest_of("initial"), source.digest_of("first_step"))
    assert plain["source"] != of_step["source"]


def test_the_digest_covers_every_module_that_a_stage_loads():
    """The modules are taken from the running program, not from its text."""
    code = """
import sys, numpy as np
import ntksim.study.{module}
from ntksim.engine.finite.empirical import empirical_ntk
from ntksim.engine.network import Network
empirical_ntk(Network(1, 4), np.ones((2, 2)), seeds=[0])
print(*(name for name in sys.modules if name.startswith("ntksim.")))
"""
    for module in ("stages.kernels", "stages.initial", "stages.training"):
        done = subprocess.run(
            [sys.executable, "-c", code.format(module=module)],
            env=studies.environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        loaded = set(done.stdout.split())
        assert "ntksim.engine.cpu.passes" in loaded
        assert loaded <= source.reached(f"ntksim.study.{module}")
