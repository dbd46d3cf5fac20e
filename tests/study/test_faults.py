"""Running the same command again repairs a study with files that are damaged, swapped or of another version, or after a kill."""

import json
import shutil
import signal
import subprocess

import pytest

import studies
from ntksim import cli
from ntksim.study.files import storage
from ntksim.study.files.provenance import code_identity, provenance
from ntksim.study.files.tables import read_table
from ntksim.study.run.record import recorded_study


@pytest.fixture(scope="module")
def folder(undisturbed, tmp_path_factory):
    """A new folder with a copy of the undisturbed study's results, for tests to damage."""
    copy = tmp_path_factory.mktemp("spoilt")
    shutil.copytree(undisturbed, copy / "results")
    return copy


def test_damaged_and_foreign_files_are_named_and_computed_again(undisturbed, folder):
    """A flipped bit, a truncated file, a shard of another width, and a damaged table, limit and data set are each repaired."""
    results = folder / "results"
    flipped, cut, exchanged, whole = (
        results / "initial" / f"tanh.width-{width}.seeds-{seeds}.parquet"
        for width, seeds in ((8, "0-1"), (8, "2-3"), (16, "0-1"), (16, "2-3"))
    )
    for path in (flipped, results / "limit" / "tanh.npz", results / "dataset.npz", results / "tables" / "initial.parquet"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 16
        path.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[:1000])
    exchanged.write_bytes((results / "initial" / "tanh.width-16.seeds-2-3.parquet").read_bytes())
    before = whole.stat().st_mtime_ns
    status, text = studies.run(folder, studies.TINY)
    assert status == 0, text
    for path in (flipped, cut, results / "limit" / "tanh.npz", results / "dataset.npz", results / "tables" / "initial.parquet"):
        assert f"{path}: damaged; will be computed again" in text
    assert f"{exchanged}: computed for another configuration; will be computed again (seeds)" in text
    assert studies.numbers(results) == studies.numbers(undisturbed)
    assert whole.stat().st_mtime_ns == before  # restoring a limit or data set does not recompute intact shards


def test_changed_figures_and_pages_are_drawn_again(undisturbed, folder):
    """A figure and a page that were changed are drawn again. `sha256sum` can read the list of checksums."""
    results = folder / "results"
    drawn = [results / "figures" / "spectrum.svg", results / "report.html"]
    for path in drawn:
        path.write_bytes(path.read_bytes()[:-20])
    check = subprocess.run(["sha256sum", "--check", "record/drawn.sha256"], cwd=results, capture_output=True, text=True)
    assert {line.split(":")[0] for line in check.stdout.splitlines() if "FAILED" in line} == {
        "figures/spectrum.svg",
        "report.html",
    }
    status, text = studies.run(folder, studies.TINY)
    assert status == 0, text
    for path in drawn:
        assert f"{path}: damaged; will be computed again" in text
        assert path.read_bytes()[-20:] == (undisturbed / path.relative_to(results)).read_bytes()[-20:]
    assert subprocess.run(["sha256sum", "--check", "--status", "record/drawn.sha256"], cwd=results).returncode == 0


def test_a_full_disk_loses_nothing(undisturbed, tmp_path):
    """A study on a small disk fails; when the disk has been enlarged, the same command continues it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o size=48k tmpfs {disk} && "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*mounting, "true"], capture_output=True).returncode:
        pytest.skip("no file system of a few pages can be mounted here (needs root and mount namespaces)")
    study = studies.command(tmp_path, studies.TINY)
    config = tmp_path / "config.yaml"
    config.write_text(config.read_text().replace(str(tmp_path / "results"), str(disk / "results")))
    twice = f'"$@"; echo "status $?"; mount -o remount,size=100m {disk}; "$@"; echo "status $?"; cp -r {disk}/results {tmp_path}'
    done = subprocess.run(
        [*mounting, "sh", "-c", twice, "sh", *study], cwd=studies.ROOT, env=studies.environment(), capture_output=True,
        text=True, timeout=600,
    )  # fmt: skip
    assert [line for line in done.stdout.splitlines() if line.startswith("status")] == ["status 1", "status 0"], done.stderr
    assert "the disk is full" in done.stderr or "No space left on device" in done.stderr
    assert studies.numbers(tmp_path / "results") == studies.numbers(undisturbed)


def test_an_interrupted_installation_is_repeated(tmp_path):
    """`make` runs a fake Python that only records its arguments. At its first installation it kills itself and make."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(studies.ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\n"
        'if [ "$2" = venv ]; then mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; fi\n'
        'if [ "$2" = pip ]; then echo "$@" >> installed; [ -e killed ] || { touch killed; kill -9 0; }; fi\n'
    )
    python.chmod(0o755)
    command = ["make", f"PYTHON={python}", ".venv/.complete"]
    killed = subprocess.run(command, cwd=tmp_path, start_new_session=True, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / ".venv" / ".complete").exists()
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / ".venv" / ".complete").exists()
    assert (tmp_path / "installed").read_text().count("constraints.txt") == 2
    before = (tmp_path / "installed").read_text()
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "installed").read_text() == before


def test_a_study_records_everything_needed_to_repeat_it(undisturbed):
    record = undisturbed / "record"
    assert (record / "config.yaml").read_text() == (undisturbed.parent / "config.yaml").read_text()
    assert "numba==" in (record / "requirements.txt").read_text()
    assert "numba==" in (record / "constraints.txt").read_text()
    (run,) = [json.loads(line) for line in (record / "runs.jsonl").read_text().splitlines()]
    assert run["git_commit"] == provenance()["git_commit"]
    assert run["source"] == code_identity()["source"]
    assert run["machine"]["cores"] >= 1
    assert recorded_study(undisturbed).science_hash() == read_table(undisturbed, "initial").attrs["config_hash"]


def test_a_sample_of_shards_is_verified(undisturbed, tmp_path, capsys):
    """The results are moved to another folder, computed again in this process, and compared bit by bit."""
    results = tmp_path / "elsewhere"
    shutil.copytree(undisturbed, results)
    assert cli.main(["verify", str(results), "--shards", "2"]) == 0
    said = capsys.readouterr().out
    assert "2 of 4 shards and 1 limits computed again: 3 files equal in bits, 0 within tolerance, 0 different" in said
    path = results / "initial" / "tanh.width-8.seeds-0-1.parquet"
    table, metadata = storage.read_arrow(path)
    assert _verdict(results, path, table, metadata, capsys) == (0, "equal bits")
    trace = table.column("trace").to_numpy() * (1 + 1e-12)
    table = table.set_column(table.column_names.index("trace"), "trace", [trace])
    status, verdict = _verdict(results, path, table, metadata, capsys)
    assert status == 1
    assert verdict.startswith("DIFFERENT (trace differs by 1.0e-12, although machine and versions are the same")
    elsewhere = metadata["provenance"] | {"device": "cpu (another)"}
    status, verdict = _verdict(results, path, table, metadata | {"provenance": elsewhere}, capsys)
    assert status == 0
    assert verdict.startswith("equal within tolerance (trace differs by 1.0e-12, tolerance 1e-09; stored: cpu (another), here: ")
    storage.write_table(path, table, metadata)
    path.write_bytes(path.read_bytes()[:-1])
    assert cli.main(["verify", str(results), "--fraction", "1"]) == 1
    assert "damaged" in capsys.readouterr().out


def _verdict(results, path, table, metadata, capsys):
    """Write a table into a file, verify all files, and return the exit status and the verdict on this file."""
    storage.write_table(path, table, metadata)
    capsys.readouterr()
    status = cli.main(["verify", str(results), "--fraction", "1"])
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(f"initial/{path.name}: "))
    return status, line.split(": ", 1)[1]


def test_files_of_another_version_are_refused_until_allowed(undisturbed, folder):
    results = folder / "results"
    path = results / "initial" / "tanh.width-8.seeds-0-1.parquet"
    table, metadata = storage.read_arrow(path)
    storage.write_table(path, table, metadata | {"identity": metadata["identity"] | {"source": "0123"}})
    content = path.read_bytes()
    status, text = studies.run(folder, studies.TINY)
    assert status == 1
    assert f"{results}: 1 files were computed by another version of ntksim than this one" in text
    assert f"for example {path}" in text
    assert "--recompute" in text
    assert path.read_bytes() == content
    status, text = studies.run(folder, studies.TINY, "--recompute")
    assert status == 0, text
    assert f"{path}: computed by another version of ntksim; will be computed again" in text
    assert storage.read_metadata(path)["identity"]["source"] == code_identity("initial")["source"]
