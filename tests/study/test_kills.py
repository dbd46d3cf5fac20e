"""A study survives repeated kill -9 of its process group, its main process and single jobs, at seeded moments."""

import json
import os
import random
import signal
import subprocess
from contextlib import suppress

import studies

SEED = 2
FILES = ("limit/tanh.npz", "initial/tanh.width-8.seeds-2-3.parquet", "tables/convergence.parquet", "figures/spectrum.svg")


def moments():
    """What to kill and when, drawn with a fixed seed: once at each file, once at each of two lines of output."""
    rng = random.Random(SEED)
    victims = ["group", "main", "job", "group"]
    rng.shuffle(victims)
    inside = [
        {"file": file, "when": rng.choice(["half", "done"]), "whom": whom} for file, whom in zip(FILES, victims, strict=True)
    ]
    inside[2]["when"] = "half"  # in the middle of writing a table
    return [{"line": rng.randrange(1, 30)}, *inside[:2], {"line": rng.randrange(30, 60)}, *inside[2:]]


def run_until_killed(folder, moment):
    """Start the study in a new process group, and return its exit status, which is negative if it was killed."""
    kill = studies.ROOT / "tests" / "kill"
    environment = studies.environment(PYTHONPATH=os.pathsep.join([str(kill), str(studies.ROOT)]), PYTHONUNBUFFERED="1")
    if "file" in moment:
        environment["NTKSIM_TEST_KILL"] = json.dumps(moment)
    # The output goes to a file, since orphans keep writing to it after the study has ended.
    with (folder / "output.txt").open("wb") as output:
        study = subprocess.Popen(
            studies.command(folder, studies.TINY, "--verbose"), cwd=studies.ROOT, env=environment, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        if "line" in moment:
            while study.poll() is None and (folder / "output.txt").read_bytes().count(b"\n") < moment["line"]:
                with suppress(subprocess.TimeoutExpired):
                    study.wait(timeout=0.01)
            with suppress(ProcessLookupError):
                os.killpg(study.pid, signal.SIGKILL)
        return study.wait(timeout=600)


def test_the_same_command_finishes_after_any_kill(undisturbed, tmp_path):
    results = tmp_path / "results"
    for moment in moments():
        status = run_until_killed(tmp_path, moment)
        assert status != 0, f"nothing was killed at {moment}: {(tmp_path / 'output.txt').read_text()}"
        assert (status == -signal.SIGKILL) == (moment.get("whom") != "job")
    status, text = studies.run(tmp_path, studies.TINY)
    assert status == 0, text
    assert studies.numbers(results) == studies.numbers(undisturbed)
    for figure in undisturbed.glob("figures/*"):
        assert (results / "figures" / figure.name).read_bytes() == figure.read_bytes()
    assert (results / "report.html").is_file()
    assert not list(results.rglob("*.partial.*"))
