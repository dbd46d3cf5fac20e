"""A study with an activation of one's own, imported where that is allowed: its jobs, tables and identities."""

import shlex

import pytest

import ntksim
import studies
from ntksim.cli import main
from ntksim.engine.activation import Activation
from ntksim.study.config import imports
from ntksim.study.config.words import word
from ntksim.study.files.storage import read_arrays
from ntksim.study.plan import identity

MODULE = """
import math
import ntksim
mish = ntksim.Activation("mish", lambda z: z * math.tanh(math.log1p(math.exp(FACTOR * z))))
bent = ntksim.Activation("bent", lambda z: math.atan(z) if z > 0 else 0.5 * z, smooth=False)
"""
NETWORKS = {
    "mine": {"activation": {"import": "activations_of_mine.mish"}, "depth": 1},
    "kinked": {"activation": {"import": "activations_of_mine.bent"}, "depth": 1},
    "leaky": {"activation": "leaky_relu(0.3)", "depth": 1},
}
CONTENT = studies.TINY | {
    "networks": NETWORKS,
    "training": {
        "method": "gradient_descent",
        "widths": [8, 16],
        "seeds": 2,
        "relative_time": 2.0,
        "snapshots": 3,
        "keep_kernels": True,
    },
}


def test_a_study_of_ones_own_activations(monkeypatch, tmp_path, capsys):
    """All stages, as the workflow has them run; a job by its command line; and `verify`."""
    (tmp_path / "activations_of_mine.py").write_text(MODULE.replace("FACTOR", "1"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(imports.ALLOWED, "1")
    study = studies.computed(CONTENT, tmp_path / "results")
    laws = ntksim.read_table(tmp_path / "results", "scaling_laws")
    drift = laws[laws["quantity"] == "kernel_drift"].set_index("network")
    assert drift["activation"].to_dict() == {"mine": "mish", "kinked": "bent", "leaky": "leaky_relu(0.3)"}
    assert drift["theory_exponent"].to_dict() == {"mine": -1.0, "kinked": -0.5, "leaky": -0.5}
    monkeypatch.setenv(imports.ALLOWED, "0")  # reading runs no code
    assert ntksim.read_kernels(tmp_path / "results", "mine", 16).kernels.shape[0] == 2
    job = shlex.split(
        f"limit --network {word(study.networks['mine'])} --width 1 --dataset results/dataset.npz --output again.npz"
    )
    for command in (job, ["verify", "results", "--shards", "1"]):
        monkeypatch.setenv(imports.ALLOWED, "0")
        assert main(command) != 0
        assert "activations_of_mine.mish is code that would be run: allow it with --allow-imports" in capsys.readouterr().err
        assert main([*command, "--allow-imports"]) == 0
    one, two = (read_arrays(path) for path in ("again.npz", "results/limit/mine.npz"))
    numbers = [name for name in two if two[name].dtype == "float64"]
    assert len(numbers) >= 2
    assert all((one[name] == two[name]).all() for name in numbers)


@pytest.fixture
def allowed(monkeypatch):
    monkeypatch.setenv(imports.ALLOWED, "1")


def test_identities_hold_what_an_activation_computes(allowed):
    def shard(factor):
        own = Activation("mine", lambda z: factor * z * z)
        return identity.shard_identity("initial", ntksim.Network(1, 8, own), [0, 1], "data")

    kinked = [identity.shard_identity("initial", ntksim.Network(1, 8, Activation("mine", lambda z: z * z, smooth=s)), [0], "data")
              for s in (True, False)]  # fmt: skip
    assert identity.differences(*kinked) == ["network.activation.digest"]
    assert shard(1.0) == shard(1.0)
    assert identity.differences(shard(1.0), shard(2.0)) == ["network.activation.digest"]
    leaky = [identity.shard_identity("initial", ntksim.Network(1, 8, f"leaky_relu({s})"), [0], "data") for s in (0.1, 0.2)]
    assert identity.differences(*leaky) == ["network.activation"]
    assert leaky[0]["network"]["activation"] == "leaky_relu"
