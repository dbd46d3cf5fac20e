"""What stands between a study and a cluster, with stand-ins for Slurm's commands; `test_slurm.py` has the real ones."""

import pytest

from ntksim.study.errors import ConfigError, StageError
from ntksim.study.plan import memory
from ntksim.study.run import cluster, profiles


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """A file with a job's name a line, which squeue prints and scancel empties; the commands stand alone on the PATH."""
    jobs = tmp_path / "queue"
    (tmp_path / "bin").mkdir()
    for name, action in {"squeue": f"cat {jobs}", "scancel": f"echo $2 > {tmp_path}/cancelled; : > {jobs}"}.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{action}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(cluster.time, "sleep", lambda seconds: None)
    return jobs


def name_of(results):
    return cluster.Jobs(results, "slurm").options()[1]


def test_jobs_of_a_killed_run_are_cancelled_and_no_others(queue, tmp_path, capsys):
    results = tmp_path / "results"
    results.mkdir()
    cluster.Jobs(results, "slurm").begin()  # and then it is killed
    mine, others = name_of(results), name_of(tmp_path / "elsewhere")
    queue.write_text(f"{mine}_one\n{others}_two\n{mine}_three\n{mine}_three\n")
    cluster.Jobs(results, "local").end_orphans()  # whoever comes next
    assert (tmp_path / "cancelled").read_text() == f"--name={mine}_one,{mine}_three\n"
    assert f"{results}: cancelling 3 Slurm jobs of a killed run" in capsys.readouterr().err
    queue.write_text(f"{mine}_four\n")
    cluster.Jobs(results, "local").end_orphans()  # nothing was submitted since
    assert queue.read_text() == f"{mine}_four\n"


def test_jobs_that_cannot_be_looked_for_are_not_forgotten(tmp_path, monkeypatch):
    cluster.Jobs(tmp_path, "slurm").begin()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(StageError, match=r"has no squeue.*on a login node, or remove .*\.slurm"):
        cluster.Jobs(tmp_path, "local").end_orphans()
    assert (tmp_path / ".slurm").exists()


def test_on_slurm_jobs_are_looked_for_even_if_the_folder_was_removed(queue, tmp_path):
    queue.write_text(f"{name_of(tmp_path / 'gone')}_one\n")
    cluster.Jobs(tmp_path / "gone", "slurm").end_orphans()
    assert queue.read_text() == ""


def test_a_slurm_that_does_not_answer_is_waited_for(queue, tmp_path):
    cluster.Jobs(tmp_path, "slurm").begin()
    (tmp_path / "bin" / "squeue").write_text("#!/bin/sh\necho 'slurm_load_jobs error: no controller' >&2\nexit 1\n")
    with pytest.raises(StageError, match="Slurm does not answer.*no controller.*run again"):
        cluster.Jobs(tmp_path, "local").end_orphans()
    (tmp_path / "bin" / "squeue").write_text(f"#!/bin/sh\necho {name_of(tmp_path)}_stays\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "_PATIENCE", 0)
        with pytest.raises(StageError, match="do not end.*_stays.*run the same command again"):
            cluster.Jobs(tmp_path, "local").end_orphans()


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (
            "executor: cluster-of-dreams",
            "the executor cluster-of-dreams of .* is not installed; .*pip install -c constraints.txt snakemake-exec",
        ),
        ("executor: slurm", "this machine has no sbatch; run it on a login node"),
        ("executor: null", "executor: expected a name such as local or slurm, got None"),
        ("executor: ..", "executor: expected a name such as local or slurm"),
        ("executor: dryrun", "executor: expected a name such as local or slurm"),
        ("[a, list]", "expected a mapping of Snakemake options, got list"),
        ("a: b: c", "cannot be read as YAML"),
        ("jobs: 2\nexecutor: local\njobs: 3", "profile.yaml: the key 'jobs' is there twice, in lines 1 and 3, .* remove one"),
        ("resources: {gpu: 1, gpu: 2}", "the key 'gpu' is there twice, in line 1"),
        ("resources: [gpu]", "resources: expected limits such as gpu=1, got"),
        ("resources: {gpu: null}", "resources: expected limits such as gpu=1, got"),
    ],
)
def test_profiles_that_cannot_work_are_refused(tmp_path, monkeypatch, profile, message):
    (tmp_path / "profile.yaml").write_text(profile)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(profiles, "_is_installed", lambda executor: executor in ("slurm", "local"))
    with pytest.raises(ConfigError, match=message):
        profiles.read_profile(tmp_path)
    (tmp_path / "profile.yaml").write_text("jobs: 2")
    assert profiles.read_profile(tmp_path).executor == "local"


@pytest.mark.parametrize(
    ("profile", "options"),
    [
        ("", ["--executor", "local", "--resources", "mem_mb=7000"]),
        ("resources: [gpu=2]", ["--executor", "local", "--resources", "gpu=2", "mem_mb=7000"]),
        ("resources: {gpu: 2}", ["--executor", "local", "--resources", "gpu=2", "mem_mb=7000"]),
        ("resources: gpu=2 mem_mb=90", ["--executor", "local", "--resources", "gpu=2", "mem_mb=90"]),
        ("resources: {mem: 8GB}", ["--executor", "local", "--resources", "mem=8GB"]),
        ("resources: [mem_mib=90 gpu=1]", ["--executor", "local", "--resources", "mem_mib=90", "gpu=1"]),
        ("executor: slurm", ["--executor", "slurm"]),
    ],
)
def test_jobs_of_a_machine_share_its_memory(tmp_path, monkeypatch, profile, options):
    (tmp_path / "profile.yaml").write_text(profile)
    monkeypatch.setattr(profiles, "_is_installed", lambda executor: True)
    monkeypatch.setattr(profiles.shutil, "which", lambda command: command)
    assert profiles.read_profile(tmp_path).options(7000) == options


def test_memory_is_what_control_groups_allow(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(memory, "_LIMITS", tmp_path)
    physical = memory.physical_megabytes()
    assert memory.machine_megabytes() == physical > 300
    for place, text in (("job/step/memory.max", "300000000"), ("job/memory.max", "200000000"), ("memory.max", "max")):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(f"{text}\n")
    (tmp_path / "memory" / "old").mkdir(parents=True)
    (tmp_path / "memory" / "old" / "memory.limit_in_bytes").write_text("100000000")
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text(str(2**63 - 4096))
    for groups, expected in (("0::/job/step", 200), ("0::/", physical), ("5:cpu:/old\n4:memory:/old\n0::/", 100)):
        (tmp_path / "groups").write_text(groups)
        assert memory.machine_megabytes() == expected
