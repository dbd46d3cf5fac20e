"""Training that is stopped at any moment goes on with the same bits."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial

import numpy as np
import pytest
from cases import POINTS

import ntksim
from ntksim.engine.training import checkpoints, descent, modes, train

TARGETS = np.random.default_rng(2).normal(size=(5, 2))
NETWORK = ntksim.Network(2, 12, "tanh", sigma_b=0.2, outputs=2)
SHALLOW = ntksim.Network(1, 40, "tanh", sigma_b=0.2, outputs=2)  # whose descent takes one sweep a step
FLOW = {"method": "gradient_flow", "times": [0.0, 0.3, 2.0, np.inf], "tolerance": 1e-6}
DESCENT = {"method": "gradient_descent", "steps": 60, "learning_rate": 0.01}
RUNS = [
    (NETWORK, FLOW | {"remove_initial_output": True, "x_test": POINTS[:2], "keep_kernels": True}),
    (NETWORK, DESCENT | {"keep_kernels": True}),
    (NETWORK, DESCENT | {"momentum": 0.9, "batch_size": 2, "x_test": POINTS[:2]}),
    (NETWORK, DESCENT | {"momentum": 0.5, "nesterov": True, "layer_rates": [1, 0, 0.5]}),
    (NETWORK, DESCENT | {"loss": "mean_squared", "weight_decay": 0.1}),
    (SHALLOW, DESCENT | {"momentum": 0.9, "weight_decay": 0.1}),
    (SHALLOW, DESCENT | {"batch_size": 2}),
    (NETWORK, FLOW | {"sampling": "conditional", "times": [0.3, 2.0], "tolerance": 1e-3}),
]


class Stopped(Exception):
    """Stands for the end of the process."""


def _same(a, b):
    for field in dataclasses.fields(a):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if isinstance(one, np.ndarray):
            assert one.tobytes() == other.tobytes(), field.name
        else:
            assert one == other, field.name


def test_flows_of_many_points_are_stopped_after_every_write(tmp_path, monkeypatch):
    """Their steps take few modes where these will do, and for a while all of them after they would not."""
    rng, found, krylov, write, stops = np.random.default_rng(5), set(), modes._krylov, checkpoints.write, 0
    call = partial(
        ntksim.train, ntksim.Network(1, 40, "relu", sigma_b=0.2), rng.normal(size=(120, 3)), rng.normal(size=120), seeds=[1],
        times=[0.0, 0.1, 2.0], tolerance=1e-2,
    )  # fmt: skip

    def sometimes(kernel, vector, time, precision):
        """As if a few modes did not do at half of the times, which the bits of the time choose."""
        few = None if np.float64(time).view(np.int64) % 2 == 0 else krylov(kernel, vector, time, precision)
        found.add(few is not None)
        return few

    def stopping(path, arrays):
        write(path, arrays)
        raise Stopped

    monkeypatch.setattr(modes, "_krylov", sometimes)
    monkeypatch.setattr(modes, "_PAUSE", 5)
    undisturbed, run = call(), None
    assert found == {True, False}
    monkeypatch.setattr(checkpoints, "write", stopping)
    while run is None:
        try:
            run = call(checkpoint=tmp_path, checkpoint_interval=0)
        except Stopped:
            stops += 1
            if stops == 100:
                monkeypatch.setattr(checkpoints, "write", write)
    assert stops > 10
    _same(run, undisturbed)


@pytest.mark.parametrize(
    ("network", "options"), RUNS, ids=["flow", "descent", "batches", "layers", "decay", "shallow", "shallow batches", "in law"]
)
def test_stopped_after_every_write(network, options, tmp_path, monkeypatch):
    monkeypatch.setattr(descent, "_WORK", 12 * 16 * 5 * 20)  # a few steps at a time
    seeds = [3, 5, 8]
    undisturbed = ntksim.train(network, POINTS, TARGETS, seeds=seeds, **options)
    write = checkpoints.write

    def stopping(path, arrays):
        write(path, arrays)
        raise Stopped

    monkeypatch.setattr(checkpoints, "write", stopping)
    stops = 0
    while True:
        try:
            run = ntksim.train(network, POINTS, TARGETS, seeds=seeds, checkpoint=tmp_path, checkpoint_interval=0, **options)
            break
        except Stopped:
            stops += 1
            if stops == 1000:
                pytest.fail("no progress from checkpoint to checkpoint")
            if stops == (12 if "sampling" in options else 100):  # in law a seed is written once, when it is done
                monkeypatch.setattr(checkpoints, "write", write)
    assert stops > 10
    _same(run, undisturbed)


def test_a_run_that_is_done_is_not_repeated(tmp_path, monkeypatch):
    run = ntksim.train(NETWORK, POINTS, TARGETS, seeds=range(4), checkpoint=tmp_path, **FLOW)
    monkeypatch.setattr(train, "flow_seed", None)
    _same(ntksim.train(NETWORK, POINTS, TARGETS, seeds=range(4), checkpoint=tmp_path, **FLOW), run)
    assert len(list(tmp_path.iterdir())) == 1
    for change in ({"y": 2 * TARGETS}, {"tolerance": 1e-5}, {"seeds": [0]}, {"dtype": "float32"}, {"times": [1.0]}):
        arguments = {"x": POINTS, "y": TARGETS, "seeds": range(4)} | FLOW | change
        with pytest.raises(TypeError, match="not callable"):  # it would be computed
            ntksim.train(NETWORK, checkpoint=tmp_path, **arguments)
    wider = dataclasses.replace(NETWORK, sigma_w=1.1)
    with pytest.raises(TypeError, match="not callable"):
        ntksim.train(wider, POINTS, TARGETS, seeds=range(4), checkpoint=tmp_path, **FLOW)


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    expected = ntksim.train(NETWORK, POINTS, TARGETS, seeds=[0], **FLOW)
    monkeypatch.setattr(checkpoints.os, "replace", full)
    with pytest.warns(RuntimeWarning, match="cannot be written .No space left on device.; training goes on without checkpoint"):
        run = ntksim.train(NETWORK, POINTS, TARGETS, seeds=[0], checkpoint=tmp_path, **FLOW)
    _same(run, expected)
    assert list(tmp_path.iterdir()) == []


def test_what_is_on_disk_stays_when_the_disk_is_full(tmp_path, monkeypatch):
    write = checkpoints.write

    def stopping(path, arrays):
        write(path, arrays)
        raise Stopped

    monkeypatch.setattr(checkpoints, "write", stopping)
    with pytest.raises(Stopped):
        ntksim.train(NETWORK, POINTS, TARGETS, seeds=[0], checkpoint=tmp_path, checkpoint_interval=0, **FLOW)
    (kept,) = tmp_path.iterdir()
    monkeypatch.setattr(checkpoints, "write", lambda path, arrays: False)
    ntksim.train(NETWORK, POINTS, TARGETS, seeds=[0], checkpoint=tmp_path, checkpoint_interval=0, **FLOW)
    assert list(tmp_path.iterdir()) == [kept]


def test_seeds_may_be_repeated(tmp_path):
    run = ntksim.train(NETWORK, POINTS, TARGETS, seeds=[4] * 6, checkpoint=tmp_path, checkpoint_interval=0, **FLOW)
    assert (run.outputs == run.outputs[0]).all()


def test_bad_paths_are_refused_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "flow_seed", None)
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="checkpoint must be a folder"):
            ntksim.train(NETWORK, POINTS, TARGETS, seeds=[0], checkpoint=path, **FLOW)
    for path in (5, True, b"bytes", "", "a\0b"):
        with pytest.raises(TypeError, match="checkpoint must be the path of a folder"):
            ntksim.train(NETWORK, POINTS, TARGETS, seeds=[0], checkpoint=path, **FLOW)
    with pytest.raises(ValueError, match="checkpoint_interval must be a number of seconds"):
        ntksim.train(NETWORK, POINTS, TARGETS, seeds=[0], checkpoint_interval=-1, **FLOW)


def test_a_damaged_checkpoint_counts_as_missing(tmp_path):
    run = ntksim.train(NETWORK, POINTS, TARGETS, seeds=[0], checkpoint=tmp_path, **DESCENT)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    places = [0, 40, 200, len(whole) // 2, *range(len(whole) - 300, len(whole), 7)]
    flipped = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in places]
    for damaged in (whole[: len(whole) // 2], b"", *flipped):
        path.write_bytes(damaged)
        _same(ntksim.train(NETWORK, POINTS, TARGETS, seeds=[0], checkpoint=tmp_path, **DESCENT), run)


SCRIPT = """
import json, sys, numpy as np, ntksim
x = np.random.default_rng(0).normal(size=(16, 8))
run = ntksim.train(
    ntksim.Network(2, 520, "tanh"), x, x[:, 0], times=[0, 1, 20.0],
    checkpoint=sys.argv[1] or None, checkpoint_interval=0.0, **json.loads(sys.argv[3]),
)
np.savez(sys.argv[2], **{name: value for name, value in vars(run).items() if isinstance(value, np.ndarray)})
"""


@pytest.mark.parametrize(
    ("options", "rounds", "most", "longest"),
    [
        ({"seeds": [0, 1, 2], "tolerance": 1e-5}, 5, 4, 0.0),
        ({"seeds": list(range(8)), "tolerance": 1e-2, "sampling": "conditional"}, 2, 2, 0.1),
    ],
    ids=["weights", "in law"],
)
def test_killed_at_random(options, rounds, most, longest, tmp_path):
    """kill -9 again and again, after numbers of writes up to ``most`` and then times up to ``longest``, drawn with a fixed seed.

    By weights threads share one of the three networks. In law only seeds that are done are written, so that kills come while
    others are under way.
    """
    rng, kept, kills = np.random.default_rng(0), tmp_path / "kept", 0
    kept.mkdir()

    def start(folder, result):
        command = [sys.executable, "-c", SCRIPT, str(folder), str(tmp_path / result), json.dumps(options)]
        return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.getcwd()})

    def versions():
        return {(entry.name, entry.stat().st_mtime_ns) for entry in kept.iterdir() if "partial" not in entry.name}

    assert start("", "undisturbed.npz").wait() == 0
    for _ in range(rounds):
        process, seen, wanted = start(kept, "killed.npz"), versions(), int(rng.integers(1, most + 1))
        while process.poll() is None and wanted:
            with suppress(FileNotFoundError):  # replaced meanwhile
                wanted -= bool(versions() - seen)
                seen |= versions()
            time.sleep(0.001)
        time.sleep(rng.uniform(0, longest))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills > 0
    assert start(kept, "killed.npz").wait() == 0
    with np.load(tmp_path / "undisturbed.npz") as a, np.load(tmp_path / "killed.npz") as b:
        for name in a.files:
            assert a[name].tobytes() == b[name].tobytes(), name
