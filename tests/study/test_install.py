"""Installations of ntksim: from a wheel, outside any checkout, with only the packages of the engine, and editable."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

import ntksim
from ntksim import cli
from ntksim.study.config.study import load_study
from ntksim.study.errors import EXTRA, ConfigError
from ntksim.study.files.provenance import provenance
from ntksim.study.run import project, runner
from studies import ROOT

SHIPPED = ["Snakefile", "config.yaml", "constraints.txt", "workflow"]


def build(tree, kind, folder):
    """Build a distribution of a source tree without network access, and return its path."""
    code = f"import sys; from setuptools import build_meta; print(build_meta.build_{kind}(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], cwd=tree, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]


def environment(folder):
    """Make a virtual environment with all packages of this one except ntksim, and return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=300)
    site(folder).joinpath("packages.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return folder / "bin" / "python"


def site(folder):
    return next((folder / "lib").glob("python*/site-packages"))


def call(*command, cwd, status=0, **variables):
    """Run a command, check its exit status, and return its standard output followed by its standard error."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=variables, capture_output=True, text=True, timeout=600)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the checkout, without git, in a folder named ntksim like a clone."""
    tree = tmp_path_factory.mktemp("above") / "ntksim"
    tree.mkdir()
    for name in (*SHIPPED, "ntksim", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        path = ROOT / name
        shutil.copytree(path, tree / name) if path.is_dir() else shutil.copy(path, tree)
    return tree


@pytest.fixture(scope="module")
def installed(clone, tmp_path_factory):
    """An environment with the wheel. It is built from the source distribution, in a tree with a module of an earlier build."""
    folder = tmp_path_factory.mktemp("installed")
    with tarfile.open(build(clone, "sdist", folder)) as archive:
        archive.extractall(folder, filter="data")
    tree = next(folder.glob("ntksim-*/"))
    stale = tree / "build" / "lib" / "ntksim" / "engine" / "stale.py"
    stale.parent.mkdir(parents=True)
    stale.write_text("")
    python = environment(folder / "environment")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check"]
    call(*pip, "--no-deps", "--no-index", build(tree, "wheel", folder), cwd=folder)
    return python


@pytest.fixture(scope="module")
def computing(installed):
    """The environment ``installed``, but with the engine of the checkout, so that compiled code in its cache is used.

    Both engines have the same files; Numba finds compiled code by the path of its source.
    """
    init = site(installed.parents[1]) / "ntksim" / "engine" / "__init__.py"
    init.write_text(f"__path__ = [{str(ROOT / 'ntksim' / 'engine')!r}]\n")
    return installed


def test_an_installed_package_contains_the_workflow(installed):
    package = site(installed.parents[1]) / "ntksim"
    files = [path for name in SHIPPED for path in [ROOT / name, *(ROOT / name).rglob("*")] if path.is_file()]
    found = {path.relative_to(package / "project"): path.read_bytes() for path in package.rglob("project/**/*") if path.is_file()}
    assert found == {path.relative_to(ROOT): path.read_bytes() for path in files}
    engine = {str(path.relative_to(package)): path.read_bytes() for path in (package / "engine").rglob("*.py")}
    ours = ROOT / "ntksim"
    assert engine == {str(path.relative_to(ours)): path.read_bytes() for path in (ours / "engine").rglob("*.py")}


def test_the_api_works_outside_the_checkout(computing, tmp_path):
    code = "import ntksim; print(ntksim.__file__, ntksim.empirical_ntk(ntksim.Network(1, 4), [[1.0, 2.0]], seeds=[0])[0, 0, 0])"
    file, kernel = call(computing, "-c", code, cwd=tmp_path).split()
    assert Path(file).is_relative_to(computing.parents[1])
    assert float(kernel) == ntksim.empirical_ntk(ntksim.Network(1, 4), [[1.0, 2.0]], seeds=[0])[0, 0, 0]
    command = computing.parent / "ntksim"
    assert call(command, "--version", cwd=tmp_path) == f"ntksim {ntksim.__version__}\n"
    assert "FOLDER" in call(command, "init", cwd=tmp_path, status=2)
    schema = call(command, "schema", cwd=tmp_path)
    assert schema == (ROOT / "workflow" / "schemas" / "config.schema.json").read_text()


def test_a_study_runs_outside_the_checkout(computing, tmp_path):
    """`ntksim init`, then a small study of the user's data. Its files contain no folder of this machine."""
    command = computing.parent / "ntksim"
    assert "cd my-study && ntksim study config.yaml" in call(command, "init", "my-study", cwd=tmp_path)
    folder = tmp_path / "my-study"
    assert load_study(folder / "config.yaml") == load_study(ROOT / "config.yaml")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "own.npz", x=rng.normal(size=(9, 3)), y=rng.normal(size=9))
    content = {
        "dataset": {"file": str(tmp_path / "own.npz"), "train": 6, "test": 3},
        "networks": {"tanh": {"activation": "tanh", "depth": 1}},
        "initial": {"widths": [8, 16], "seeds": 4},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    (folder / "Snakefile").write_text("raise SystemExit('of another workflow')")
    text = call(command, "study", "config.yaml", "--cores", "2", cwd=folder)
    assert "results/report.html" in text
    assert "Data: own.npz, real targets" in text
    frame = ntksim.read_table(folder / "results", "initial")
    assert frame.attrs["provenance"]["git_commit"] is None
    assert frame.attrs["config"]["dataset"]["file"] == "own.npz"
    assert (folder / "results" / "record" / "constraints.txt").read_bytes() == (ROOT / "constraints.txt").read_bytes()
    made = [*(folder / "results" / "tables").iterdir(), *(folder / "results" / "figures").iterdir()]
    for path in [*made, *(folder / "results").glob("*.html")]:
        for local in (tmp_path, computing.parents[1], ROOT):
            assert str(local).encode() not in path.read_bytes(), path
    assert "Nothing to do" in call(command, "study", "config.yaml", "--cores", "2", cwd=folder)


def test_the_commit_comes_from_git_or_pip_or_is_unknown(installed, tmp_path, monkeypatch):
    code = "from ntksim.study.files.provenance import provenance; print(provenance()['git_commit'])"
    assert call(installed, "-c", code, cwd=tmp_path) == "None\n"
    record = next(site(installed.parents[1]).glob("ntksim-*/direct_url.json"))
    kept = record.read_text()
    try:
        record.write_text('{"url": "x", "vcs_info": {"vcs": "git", "commit_id": "0123abc"}}')
        assert call(installed, "-c", code, cwd=tmp_path) == "0123abc\n"
    finally:
        record.write_text(kept)
    monkeypatch.setenv("PATH", "")
    assert provenance()["git_commit"] is None


def test_a_new_study_overwrites_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(".gitignore").write_text("mine")
    assert project.new_study(".", profile="slurm") == Path("config.yaml")
    assert Path(".gitignore").read_text() == "mine"
    Path("config.yaml").unlink()
    with pytest.raises(ConfigError, match="^slurm exists already and is not overwritten"):
        project.new_study(".", profile="slurm")
    assert not Path("config.yaml").exists()
    project.new_study("other")
    assert Path("other", ".gitignore").read_text() == "results/\n.snakemake/\n"
    with pytest.raises(ConfigError, match=r"^other/config\.yaml exists already"):
        project.new_study("other")


def test_profiles_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert project.profiles() == ["default", "gpu", "slurm"]
    shipped = ROOT / "workflow" / "profiles" / "slurm"
    assert project.profile_folder("slurm") == project.profile_folder(shipped) == shipped
    project.new_study("study", profile="slurm")
    monkeypatch.chdir("study")
    assert project.profile_folder("slurm") == Path("slurm")  # the user's copy is tried first
    with pytest.raises(ConfigError, match="ships with ntksim: default, gpu, slurm"):
        project.profile_folder("pbs")


def test_the_list_of_modules_matches_the_extra():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["study"]
    modules = {"scikit-learn": "sklearn", "pyyaml": "yaml"}
    names = [requirement.partition(">")[0] for requirement in declared]
    assert sorted(modules.get(name, name) for name in names) == sorted(EXTRA)


NETWORK = '--network {"depth":1,"activation":"relu"} --width 4 --dataset d --output o'
COMMANDS = [
    "study config.yaml", "plan config.yaml", "show results", "verify results", "schema",
    'dataset --dataset {"name":"iris","train":4,"test":2} --output o', f"limit {NETWORK}",
    f"initial {NETWORK} --limit l --seeds 0:1",
    f'training {NETWORK} --limit l --seeds 0:1 --schedule {{"relative_time":1.0}}', "tables config.yaml --output o",
    "figures t loss --output o",
]  # fmt: skip


def test_every_command_of_the_study_names_the_missing_extra():
    code = (
        "import json, sys; sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))\n"
        "from ntksim import cli\n"
        "for words in json.loads(sys.argv[2]): print(cli.main(words), file=sys.stderr)"
    )
    words = json.dumps([command.split() for command in COMMANDS])
    lines = call(sys.executable, "-c", code, json.dumps(EXTRA), words, cwd=ROOT).splitlines()
    assert lines[1::2] == ["2"] * len(COMMANDS)
    for command, line in zip(COMMANDS, lines[::2], strict=True):
        assert line.startswith(f"ntksim: error: `ntksim {command.split()[0]}` needs the module ")
        assert line.endswith(', which is not installed: pip install "ntksim[study]"')


def test_a_study_checks_its_modules_first(monkeypatch, capsys):
    """Figures come last, so a missing module would otherwise be found out only after hours of computing."""
    for module in EXTRA:
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            assert cli.main(["study", str(ROOT / "config.yaml")]) == 2
        assert f"`ntksim study` needs the module {module}, which is not installed: pip install" in capsys.readouterr().err


def test_functions_of_the_study_name_the_missing_extra():
    code = "import sys; sys.modules['pandas'] = None; import ntksim; ntksim.read_table"
    text = call(sys.executable, "-c", code, cwd=ROOT, status=1)
    assert 'ntksim.read_table needs the module pandas, which is not installed: pip install "ntksim[study]"' in text


def test_a_clone_does_not_hide_the_package(clone, tmp_path):
    """Python started in the folder above a clone named ntksim imports the package, not the clone as a namespace."""
    python = environment(tmp_path / "environment")
    with zipfile.ZipFile(build(clone, "editable", tmp_path)) as archive:
        archive.extractall(site(tmp_path / "environment"))
    code = "import ntksim; print(ntksim.__file__); ntksim.Network"
    assert call(python, "-c", code, cwd=clone.parent).strip() == str(clone / "ntksim" / "__init__.py")


def test_a_report_contains_no_absolute_paths():
    """Only Snakemake's data in the page is changed, since its libraries may contain the same text."""
    data = '{"/data/f.svg": {"params": "results=/data, x=/data/own \\u00e9.csv"}, "uri": "base64,ab/data/x", "o": "/data2/y"}'
    parts = "".join(f'<script id="{name}">{data}</script>' for name in ("results", "categories", "rules"))
    page = f'<script>"/data/library"</script>{parts}<script>"/data"</script>'
    expected = data.replace("/data/own", "own").replace('"/data/f', '"data/f').replace("=/data,", "=data,")
    assert runner.without_folders(page, ["/data/own é.csv", "/data", "own.csv"]) == page.replace(data, expected)
