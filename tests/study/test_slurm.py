"""A study on a real Slurm of one node, through the project's own profile: jobs cancelled, killed and failing, a node drained,
and the whole study killed, with the bits of a study that nothing happened to."""

import json
import os
import signal
import subprocess
import time
from contextlib import contextmanager

import pytest
import slurm
import yaml

import studies

reason = slurm.unavailable()
pytestmark = pytest.mark.skipif(reason is not None, reason=f"no Slurm can be started here: {reason}")

SHARDS = [f"tanh.width-{width}.seeds-{seeds}.parquet" for width in (16, 8) for seeds in ("0-1", "2-3")]

WILDCARDS = ["tanh_16_0_1", "tanh_16_2_3", "tanh_8_0_1", "tanh_8_2_3"]  # the same, as in the comments of their jobs


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm.running(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@contextmanager
def study(cluster, folder, *faults):
    """A study that has been started; what it prints is in ``folder``/output.txt."""
    profile = yaml.safe_load((studies.ROOT / "workflow" / "profiles" / "slurm" / "profile.yaml").read_text())
    profile["slurm-init-seconds-before-status-checks"] = 2  # shards of seconds need not wait for ten
    (folder / "profile").mkdir(exist_ok=True)
    (folder / "profile" / "profile.yaml").write_text(yaml.safe_dump(profile))
    kill = studies.ROOT / "tests" / "kill"
    environment = studies.environment(
        PYTHONPATH=os.pathsep.join([str(kill), str(studies.ROOT)]), NTKSIM_TEST_KILL=json.dumps(faults)
    )
    command = cluster.wrap(*studies.command(folder, studies.TINY, "--profile", str(folder / "profile")))
    with (folder / "output.txt").open("ab") as output:
        process = subprocess.Popen(
            command, cwd=studies.ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def output(folder):
    return (folder / "output.txt").read_text()


def wait_until(happened, process, folder):
    """Wait for something that happens while the study runs. The limit of time allows for a busy machine."""
    deadline = time.monotonic() + 300
    while not happened():
        assert process.poll() is None, output(folder)
        assert time.monotonic() < deadline, output(folder)
        time.sleep(0.2)


def test_whatever_fails_the_study_finishes(cluster, undisturbed, tmp_path):
    """A node drained; the study killed with all its jobs running; then a job killed for its memory, one that dies, and one that
    is cancelled as it runs."""

    def fault(shard, whom, run):
        mark = str(tmp_path / f"{shard}-in-run-{run}")
        return {"file": f"initial/{SHARDS[shard]}", "when": "half", "whom": whom, "mark": mark}

    def has_happened(fault):
        return os.path.exists(fault["mark"])

    standing = [fault(shard, "nobody", 1) for shard in range(4)]
    cluster.node("drain")
    with study(cluster, tmp_path, *standing) as process:
        wait_until(lambda: cluster.jobs("pending"), process, tmp_path)
        assert not cluster.jobs("running")
        cluster.node("resume")
        wait_until(lambda: all(map(has_happened, standing)), process, tmp_path)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert len(cluster.jobs("running")) == 4

    faults = [fault(shard, whom, 2) for shard, whom in enumerate(("memory", "job", "nobody"))]
    with study(cluster, tmp_path, *faults) as process:
        wait_until(lambda: has_happened(faults[2]), process, tmp_path)
        cluster.call("scancel", *(job[-1] for job in cluster.jobs("running") if job[0].endswith(WILDCARDS[2])))
        assert process.wait(timeout=300) == 0, output(tmp_path)
    assert all(map(has_happened, faults)), output(tmp_path)
    assert "cancelling 4 Slurm jobs of a killed run" in output(tmp_path)
    states = {name: [job for job in cluster.jobs("all") if job[0].endswith(name)] for name in WILDCARDS}
    assert [[state for _, _, state, _ in jobs] for jobs in states.values()] == [
        ["CANCELLED", "FAILED", "COMPLETED"], ["CANCELLED", "FAILED", "COMPLETED"],
        ["CANCELLED", "CANCELLED", "COMPLETED"], ["CANCELLED", "COMPLETED"],
    ]  # fmt: skip
    assert all(int(jobs[2][1].rstrip("M")) == 2 * int(jobs[1][1].rstrip("M")) for jobs in list(states.values())[:3])
    assert studies.numbers(tmp_path / "results") == studies.numbers(undisturbed)
