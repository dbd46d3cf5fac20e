"""What is printed while a study runs: a line a job with a bar and the time left, and what failed with the reason at the end."""

import io
import json
import os

import pytest

import studies
from ntksim.study.config.study import parse_study
from ntksim.study.plan import jobs
from ntksim.study.run import progress

STATS = {"initial_shard": 3, "tables": 1, "all": 1, "total": 5}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def job(number, rule="initial_shard", log=()):
    benchmark = f"results/benchmarks/initial/{number}.jsonl"
    words = f"Kernels at initialisation: tanh,\nwidth {number}"
    return {"jobid": number, "rule_name": rule, "rule_msg": words, "log": list(log), "benchmark": benchmark}


@pytest.fixture
def clock(monkeypatch):
    """The clock of the lines, which the test sets."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_job_is_one_line_with_a_bar_and_the_time_left(clock):
    """A job that is predicted to take 6 of 12 seconds and took 30 is half of the work, so half a minute is left."""
    out = io.StringIO()
    lines = progress.Progress(out, {"initial/1.jsonl": 6.0, "initial/2.jsonl": 4.0, "initial/3.jsonl": 1.0, "tables.jsonl": 1.0})
    lines.total(STATS)
    lines.begins(job(1))
    assert out.getvalue() == ""
    clock[0] += 30
    lines.ends(1)
    lines.begins(job(2))
    clock[0] += 60
    lines.ends(2)
    lines.begins(job(0, rule="all"))
    lines.ends(0)
    lines.begins(job(7))  # which nobody predicted, so that jobs are counted
    clock[0] += 30
    lines.ends(7)
    lines.close()
    assert out.getvalue().splitlines() == [
        "1 of 4 [##########----------] about 30 s left: Kernels at initialisation: tanh, width 1 (30 s)",
        "2 of 4 [################----] about 18 s left: Kernels at initialisation: tanh, width 2 (60 s)",
        "3 of 4 [###############-----] about 40 s left: Kernels at initialisation: tanh, width 7 (30 s)",
    ]
    assert "\r" not in out.getvalue()


def test_a_terminal_has_one_bar_below_the_lines(clock):
    out = Terminal()
    lines = progress.Progress(out)
    lines.total(STATS)
    for number in (1, 2):
        lines.begins(job(number))
    clock[0] += 300
    lines.ends(1)
    assert "now Kernels at initialisation: tanh, width 1 and 1 more" in out.getvalue()
    assert "about 15 min left; now Kernels at initialisation: tanh, width 2" in out.getvalue()
    lines.close()
    kept = [line for line in out.getvalue().split("\r")[-1].splitlines() if line.strip()]
    assert kept == []  # the bar is wiped
    assert out.getvalue().count("1 of 4: Kernels at initialisation: tanh, width 1 (5 min)\n") == 1


def test_jobs_that_failed_for_good_are_in_the_digest_and_no_others(tmp_path, clock):
    log = tmp_path / "2.log"
    log.write_text("ntksim: warning: something\nntksim: error: sigma_w: expected more\n")
    out = io.StringIO()
    lines = progress.Progress(out)
    lines.total(STATS)
    for number in (1, 2):
        lines.begins(job(number))
        lines.says("CalledProcessError in file x: Command '...' returned non-zero exit status 1.")
        lines.fails(job(number, log=[str(log)]) | {"rule_msg": None})
    lines.begins(job(1))
    lines.ends(1)
    lines.begins(job(3))
    lines.says("CalledProcessError in file x: Command '...' returned non-zero exit status 130.")
    lines.fails(job(3) | {"rule_msg": None})  # by Ctrl-C, as the whole study is
    lines.says("WorkflowError:\nAt least one job did not complete successfully.")
    lines.says("WorkflowError: something else")
    lines.close()
    lines.close()  # which logging does twice
    text = out.getvalue()
    assert "CalledProcessError" not in text
    assert "At least" not in text
    assert text.count("WorkflowError: something else") == 1
    assert text.partition("1 job failed:\n")[2].splitlines() == [
        "  Kernels at initialisation: tanh, width 2", "    reason: sigma_w: expected more", f"    log:    {log}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("log", "status", "words"),
    [
        ("a warning\nntksim: error: data.csv: no such column\n", "returned non-zero exit status 1.", "data.csv: no such column"),
        ("", "returned non-zero exit status 137.", "killed by signal 9, perhaps for lack of memory"),
        ("half a line", "died with <Signals.SIGTERM: 15>.", "killed by signal 15; the log ends with: half a line"),
        ("", "SLURM-job '7' failed, SLURM status is: 'OUT_OF_MEMORY'. ", "Slurm says OUT_OF_MEMORY"),
        ("Traceback\nKeyError: 1\n", "returned non-zero exit status 1.", "KeyError: 1"),
        (None, "", "it said nothing (no exit status)"),
    ],
)
def test_the_reason_of_a_failure(tmp_path, log, status, words):
    path = tmp_path / "job.log"
    if log is not None:
        path.write_text(log)
    assert progress.reason(path, status) == words


def test_what_is_there_is_not_pending(tmp_path):
    studies.command(tmp_path, studies.TINY)
    study = parse_study(studies.TINY | {"results": str(tmp_path / "results")})
    every = progress.pending(tmp_path / "config.yaml")
    assert {"dataset.jsonl", "limit/tanh.jsonl", "tables.jsonl", "figures.jsonl", "report.jsonl"} < set(every)
    first = jobs.shards(study)[0].file
    (tmp_path / "results" / "initial").mkdir(parents=True)
    (tmp_path / "results" / first).touch()
    assert set(every) - set(progress.pending(tmp_path / "config.yaml")) == {first.replace(".parquet", ".jsonl")}
    (tmp_path / "results" / "dataset.npz").touch()
    assert "dataset.jsonl" not in progress.pending(tmp_path / "config.yaml")


def test_data_sets_that_are_there_are_not_pending(tmp_path):
    studies.command(tmp_path, studies.TINY | {"dataset": {"name": "circle", "train": [4, 8], "test": 3, "seed": [0, 1]}})
    every = progress.pending(tmp_path / "config.yaml")
    names = {f"dataset.train-{n}.dataset_seed-{seed}" for n in (4, 8) for seed in (0, 1)}
    assert {f"{name}.jsonl" for name in names} < set(every)
    (tmp_path / "results").mkdir()
    for name in sorted(names)[:3]:
        (tmp_path / "results" / f"{name}.npz").touch()
    assert set(every) - set(progress.pending(tmp_path / "config.yaml")) == {f"{name}.jsonl" for name in sorted(names)[:3]}


def test_a_study_says_at_its_end_which_jobs_failed_and_why(tmp_path):
    """One shard is killed and one has an error. The data set and the limit were made before."""
    shards = [f"tanh.width-16.seeds-{seeds}" for seeds in ("0-1", "2-3")]
    faults = [
        {"file": f"initial/{shard}.parquet", "when": "half", "whom": whom, "mark": str(tmp_path / whom)}
        for shard, whom in zip(shards, ("job", "error"), strict=True)
    ]
    kill = os.pathsep.join([str(studies.ROOT / "tests" / "kill"), str(studies.ROOT)])
    content = studies.TINY | {"initial": {"widths": [16], "seeds": 4}}
    status, text = studies.run(tmp_path, content, PYTHONPATH=kill, NTKSIM_TEST_KILL=json.dumps(faults))
    assert status == 1, text
    digest = text.partition("2 jobs failed:\n")[2].splitlines()
    for shard, words in zip(
        shards, ("killed by signal 9, perhaps for lack of memory", "the file system has gone away"), strict=True
    ):
        seeds = shard.partition("seeds-")[2].replace("-", " to ")
        at = digest.index(f"  Kernels at initialisation: tanh, width 16, seeds {seeds}")
        assert digest[at + 1].startswith("    reason: ")
        assert words in digest[at + 1]
        assert digest[at + 2] == f"    log:    {tmp_path}/results/logs/initial/{shard}.log"
    assert text.splitlines()[-1].startswith("ntksim: error: the study did not finish; see")
    assert text.count("of 7 [") == 2
    assert "Shell command" not in text
    assert len(text.splitlines()) < 20, text
    assert "\r" not in text
