"""Files: checksums, atomic writes, identities, and the lock of a results folder."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import studies
from ntksim.study.config.study import parse_study
from ntksim.study.errors import DamagedFile, ForeignFile, StageError
from ntksim.study.files import storage
from ntksim.study.plan import identity, jobs
from ntksim.study.run import integrity, lock
from ntksim.study.run.lock import only_writer

METADATA = {"identity": {"stage": "limit", "width": 3}}


@pytest.fixture(params=["a.npz", "a.parquet"])
def file(request, tmp_path):
    path = tmp_path / request.param
    write(path)
    return path


def write(path):
    if path.suffix == ".npz":
        storage.write_arrays(path, METADATA, a=np.arange(3.0), b=np.ones((2, 2)))
    else:
        storage.write_table(path, pa.table({"a": [1.0, 2.0], "b": ["x", "y"]}), METADATA)


def read(path):
    return storage.read_arrays(path) if path.suffix == ".npz" else storage.read_arrow(path)


READING = """
import os, sys
from pathlib import Path
from ntksim.study.config.study import parse_study
from ntksim.study.data import reading
from ntksim.study.files import storage
folder = Path(sys.argv[1])
dataset = {"file": str(folder / "data.parquet"), "target": "x0", "train": 3, "test": 2}
networks, initial = {"relu": {"activation": "relu", "depth": 1}}, {"widths": [8, 16], "seeds": 4}
options = parse_study({"dataset": dataset, "networks": networks, "initial": initial}).dataset
before = len(os.listdir("/proc/self/task"))
storage.read_frame(folder / "a.parquet")
reading.sources(options)
assert len(os.listdir("/proc/self/task")) == before
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted where Linux lists them")
def test_tables_are_read_without_threads(tmp_path):
    """A thread of Arrow's that is at work while Python ends aborts a process whose work is done."""
    write(tmp_path / "a.parquet")
    pq.write_table(pa.table({f"x{i}": np.random.default_rng(i).normal(size=5) for i in range(30)}), tmp_path / "data.parquet")
    done = subprocess.run([sys.executable, "-c", READING, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_equal_content_gives_equal_bytes_and_keeps_its_metadata(file):
    before = file.read_bytes()
    write(file)
    assert file.read_bytes() == before
    assert storage.read_metadata(file) == METADATA
    if file.suffix == ".npz":
        arrays, metadata = storage.read_npz(file)
        assert arrays["a"].tolist() == storage.read_arrays(file)["a"].tolist() == [0, 1, 2]
        assert metadata == METADATA
        assert np.load(file)["b"].sum() == 4  # still an ordinary file
    else:
        assert storage.read_arrow(file)[0].to_pydict() == {"a": [1.0, 2.0], "b": ["x", "y"]}


def test_any_flipped_bit_is_found(file):
    """One bit of every byte is flipped. The bit depends on the byte's position, so that all eight are tried."""
    content = file.read_bytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        file.write_bytes(changed)
        with pytest.raises((DamagedFile, ForeignFile)):  # ForeignFile if the bit is in the mark before the checksum
            storage.read_metadata(file)
    with pytest.raises(StageError):
        read(file)


def test_intact_files_without_a_checksum_count_as_another_version(tmp_path):
    """Such files may have cost weeks, so they are refused, and not computed again without asking."""
    study = other(results=str(tmp_path))
    path = tmp_path / SHARD.file
    path.parent.mkdir()
    pq.write_table(pa.table({"seed": [0]}), path)
    np.savez(tmp_path / "dataset.npz", x_train=np.ones(3))
    kinds = {fault.path: fault.kind for fault in integrity.inspect(study, {"": "data"})}
    assert (kinds[path], kinds[tmp_path / "dataset.npz"]) == ("version", "version")


def test_any_truncation_is_found(file):
    content = file.read_bytes()
    for length in range(len(content)):
        file.write_bytes(content[:length])
        with pytest.raises(DamagedFile) as found:
            read(file)
        assert str(file) in str(found.value)
        assert "\n" not in str(found.value)
    file.unlink()
    with pytest.raises(StageError, match="no such file"):
        read(file)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EROFS, "make it writable"),
        (errno.EDQUOT, "free some space"),
        (errno.EIO, "check the file system"),
    ],
)
@pytest.mark.parametrize("step", ["fsync", "replace", "open"])
def test_a_failed_write_leaves_the_old_file(file, monkeypatch, number, remedy, step):
    before = file.read_bytes()

    def fail(*_args, **_options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(StageError, match=remedy) as found:
        write(file)
    monkeypatch.undo()
    assert str(file) in str(found.value)
    assert "\n" not in str(found.value)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_a_full_disk_is_a_one_line_error(tmp_path):
    """A limit of 1 kB on the size of files makes writing fail. Python ignores the signal that the limit sends."""
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); from ntksim.cli import main; "
        """sys.exit(main(['dataset', '--dataset', '{"name":"circle","train":50,"test":50}', '--output', sys.argv[1]]))"""
    )
    target = tmp_path / "dataset.npz"
    done = subprocess.run([sys.executable, "-c", script, target], env=studies.environment(), capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"ntksim: error: {target}: cannot be written (File too large); free some space")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_write_syncs_file_and_folder(file, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append(os.readlink(f"/proc/self/fd/{handle}")), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("replace"), replace(*paths)))
    write(file)
    assert ".partial" in order[0]
    assert order[1:] == ["replace", str(file.parent)]


STUDY = parse_study(studies.TINY)
SHARD = jobs.shards(STUDY)[0]


def other(**changes):
    content = studies.TINY | changes
    return parse_study(content)


@pytest.mark.parametrize(
    ("study", "dataset", "differing"),
    [
        (STUDY, "data", []),
        (STUDY, "others", ["dataset"]),
        (other(precision="float32"), "data", ["dtype"]),
        (other(networks={SHARD.network: {"activation": "tanh", "depth": 1, "sigma_w": 1.5}}), "data",
         ["network.sigma_w"]),
    ],
)  # fmt: skip
def test_an_identity_names_what_differs(study, dataset, differing):
    found = identity.of_shard(study, SHARD, dataset)
    wanted = identity.of_shard(STUDY, SHARD, "data")
    assert identity.differences(found, wanted) == differing
    assert identity.differences(wanted | {"source": "another"}, wanted) == ["source"]
    if differing:
        with pytest.raises(ForeignFile, match=f"with another {differing[0]} than is asked for"):
            identity.require("x", found, wanted)
    with pytest.raises(ForeignFile, match="by another version of ntksim"):
        identity.require("x", wanted | {"version": "0.0.1"}, wanted)


def test_faults_are_classified(tmp_path, capsys):
    """One shard is intact; others are missing, truncated, of another width, and of another version."""
    study = other(results=str(tmp_path), initial={"widths": [8, 16, 32], "seeds": 4})
    every = jobs.shards(study)
    for shard in every:
        found = identity.of_shard(study, shard, "data")
        storage.write_table(tmp_path / shard.file, pa.table({"seed": [0]}), {"identity": found})
    paths = [tmp_path / shard.file for shard in every]
    paths[1].unlink()
    paths[2].write_bytes(paths[2].read_bytes()[:-1])
    narrow = identity.of_shard(study, every[3], "data") | {"width": 7}
    storage.write_table(paths[3], pa.table({"seed": [0]}), {"identity": narrow})
    older = identity.of_shard(study, every[4], "data") | {"version": "0.0.1"}
    storage.write_table(paths[4], pa.table({"seed": [0]}), {"identity": older})
    faults = [fault for fault in integrity.inspect(study, {"": "data"}) if fault.path in paths]
    assert [(paths.index(fault.path), fault.kind) for fault in faults] == [
        (1, "missing"), (2, "damaged"), (3, "configuration"), (4, "version"),
    ]  # fmt: skip
    with pytest.raises(StageError, match="1 files were computed by another version") as refused:
        integrity.refuse_other_versions(tmp_path, faults)
    assert str(paths[4]) in str(refused.value)
    integrity.clear(study, faults)
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in said] == [str(path) for path in paths[2:5]]
    assert [path.exists() for path in paths] == [True, False, False, False, False, True]


def test_a_second_writer_learns_who_the_first_is(tmp_path):
    with only_writer(tmp_path):
        script = "import pathlib, sys; from ntksim.study.run import lock; lock.only_writer(pathlib.Path(sys.argv[1])).__enter__()"
        done = subprocess.run([sys.executable, "-c", script, tmp_path], env=studies.environment(), capture_output=True, text=True)
        assert f"another run is writing this study (process {os.getpid()} on " in done.stderr
    with only_writer(tmp_path):
        pass


def test_the_orphans_of_a_killed_writer_are_ended(tmp_path, capsys):
    """The writer is killed. Its child inherited the lock, as Snakemake does, and has a child itself, as Snakemake has jobs."""
    script = """
import subprocess, sys, time
from pathlib import Path
from ntksim.study.run.lock import only_writer
with only_writer(Path(sys.argv[1])) as lock:
    child = "import subprocess, sys; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); p.wait()"
    subprocess.Popen([sys.executable, "-c", child], pass_fds=[lock.fileno()])
    time.sleep(600)
"""
    writer = subprocess.Popen([sys.executable, "-c", script, tmp_path], env=studies.environment(), stdout=subprocess.PIPE)
    job = int(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    with only_writer(tmp_path):
        assert "ending the processes of a killed run" in capsys.readouterr().err
    writer.stdout.read()  # returns when all processes that could write to it have ended
    writer.stdout.close()
    assert lock.has_ended(job)


@pytest.mark.parametrize(
    "values",
    [
        np.array([1.0, np.nan, -np.inf]), np.arange(3, dtype=np.float32), np.arange(3), np.array([True, False, True]),
        ["finished", "", "überlauf"], np.array(["a", "bc", "d"]), list(np.arange(6.0).reshape(3, 2)), np.zeros((3, 0)),
    ],
)  # fmt: skip
def test_columns_are_those_that_arrow_makes(values):
    known = np.array([False, True, False])
    rows = list(values)
    assert storage.column(values).equals(pa.array(rows)) or np.isnan(values).any()
    assert str(storage.column(values)) == str(pa.array(rows))
    some = storage.column(rows[1:2], known)
    some.validate(full=True)
    assert some.equals(pa.array([None, rows[1], None], pa.array(rows).type)) or np.isnan(values).any()
    assert str(some) == str(pa.array([None, rows[1], None], pa.array(rows).type))


def test_tensors_are_those_that_arrow_makes():
    values = np.arange(24.0).reshape(3, 4, 2)
    assert storage.tensors(values).equals(pa.FixedShapeTensorArray.from_numpy_ndarray(values))


def test_jobs_load_no_more_than_they_need(tmp_path):
    """A job starts in half a second less without pandas and without SciPy's special functions."""
    code = """
import sys
import numpy as np
import pyarrow as pa
from ntksim.study.files import storage
from ntksim.study.stages import initial, training
storage.write_table(sys.argv[1], pa.table({"a": storage.column(np.arange(3.0)), "b": storage.column(["x"] * 3)}), {})
print(*[name for name in ("pandas", "scipy.special", "pydantic", "matplotlib", "sklearn") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.parquet")], capture_output=True, text=True)
    assert done.stdout == "\n", done.stdout + done.stderr
