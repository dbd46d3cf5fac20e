"""Training that is stopped at any moment goes on with the same bits."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from cases import POINTS

import ntksim
from ntksim.engine import checkpoints, descent, training

TARGETS = np.random.default_rng(2).normal(size=(5, 2))
NETWORK = ntksim.Network(2, 12, "tanh", sigma_b=0.2, outputs=2)
FLOW = {"method": "gradient_flow", "times": [0.0, 0.3, 2.0, np.inf], "tolerance": 1e-6}
DESCENT = {"method": "gradient_descent", "steps": 60, "learning_rate": 0.01}
RUNS = [
    FLOW | {"remove_initial_output": True, "x_test": POINTS[:2], "keep_kernels": True},
    DESCENT | {"keep_kernels": True},
    DESCENT | {"momentum": 0.9, "batch_size": 2, "x_test": POINTS[:2]},
    DESCENT | {"momentum": 0.5, "nesterov": True, "layer_rates": [1, 2, 0.5]},
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


@pytest.mark.parametrize("options", RUNS, ids=["flow", "descent", "batches", "layers"])
def test_stopped_after_every_write(options, tmp_path, monkeypatch):
    monkeypatch.setattr(descent, "_WORK", 12 * 16 * 5 * 20)  # a few steps at a time
    seeds = [3, 5, 8]
    undisturbed = ntksim.train(NETWORK, POINTS, TARGETS, seeds=seeds, **options)
    write = checkpoints.write

    def stopping(path, arrays):
        write(path, arrays)
        raise Stopped

    monkeypatch.setattr(checkpoints, "write", stopping)
    stops = 0
    while True:
        try:
            run = ntksim.train(NETWORK, POINTS, TARGETS, seeds=seeds, checkpoint=tmp_path, checkpoint_interval=0, **options)
            break
        except Stopped:
            stops += 1
            if stops == 1000:
                pytest.fail("no progress from checkpoint to checkpoint")
            if stops == 100:
                monkeypatch.setattr(checkpoints, "write", write)
    assert stops > 10
    _same(run, undisturbed)


def test_a_run_that_is_done_is_not_repeated(tmp_path, monkeypatch):
    run = ntksim.train(NETWORK, POINTS, TARGETS, seeds=range(4), checkpoint=tmp_path, **FLOW)
    monkeypatch.setattr(training, "flow_seed", None)
    _same(ntksim.train(NETWORK, POINTS, TARGETS, seeds=range(4), checkpoint=tmp_path, **FLOW), run)
    assert len(list(tmp_path.iterdir())) == 1
    for change in ({"y": 2 * TARGETS}, {"tolerance": 1e-5}, {"seeds": [0]}, {"dtype": "float32"}, {"times": [1.0]}):
        arguments = {"x": POINTS, "y": TARGETS, "seeds": range(4)} | FLOW | change
        with pytest.raises(TypeError, match="not callable"):  # it would be computed
            ntksim.train(NETWORK, checkpoint=tmp_path, **arguments)
    wider = dataclasses.replace(NETWORK, sigma_w=1.1)
    with pytest.raises(TypeError, match="not callable"):
        ntksim.train(wider, POINTS, TARGETS, seeds=range(4), checkpoint=tmp_path, **FLOW)


def test_a_damaged_checkpoint_counts_as_missing(tmp_path):
    run = ntksim.train(NETWORK, POINTS, TARGETS, seeds=[0], checkpoint=tmp_path, **FLOW)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]):
        path.write_bytes(damaged)
        _same(ntksim.train(NETWORK, POINTS, TARGETS, seeds=[0], checkpoint=tmp_path, **FLOW), run)


SCRIPT = """
import sys, numpy as np, ntksim
x = np.random.default_rng(0).normal(size=(16, 8))
run = ntksim.train(
    ntksim.Network(2, 520, "tanh"), x, x[:, 0], seeds=range(3), times=[0, 1, 20.0], tolerance=1e-5,
    checkpoint=sys.argv[1] or None, checkpoint_interval=0.0,
)
np.savez(sys.argv[2], **{name: value for name, value in vars(run).items() if isinstance(value, np.ndarray)})
"""


def test_killed_at_random(tmp_path):
    """kill -9 again and again, at moments of a fixed seed; threads share one of the three networks."""
    rng = np.random.default_rng(0)

    def start(folder, result):
        command = [sys.executable, "-c", SCRIPT, str(folder), str(tmp_path / result)]
        return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.getcwd()})

    begun = time.monotonic()
    assert start("", "undisturbed.npz").wait() == 0
    length, kills = time.monotonic() - begun, 0
    for _ in range(6):
        process = start(tmp_path / "kept", "killed.npz")
        time.sleep(length * rng.uniform(0.4, 0.9))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills > 0
    assert start(tmp_path / "kept", "killed.npz").wait() == 0
    with np.load(tmp_path / "undisturbed.npz") as a, np.load(tmp_path / "killed.npz") as b:
        for name in a.files:
            assert a[name].tobytes() == b[name].tobytes(), name
