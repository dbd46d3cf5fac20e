"""Axes of a study: keys of networks with lists, and what tables, names and identities make of them."""

import pandas as pd
import pytest

from ntksim.study.config.network import NetworkOptions
from ntksim.study.config.study import parse_study
from ntksim.study.plan import identity, jobs
from ntksim.study.statistics.columns import COLUMNS
from ntksim.study.statistics.seeds import NETWORK, cells, described

CONTENT = {
    "dataset": {"name": "circle", "train": 6, "test": 3},
    "networks": {"mlp": {"activation": ["relu", "leaky_relu(0.2)"], "depth": [1, 3], "sigma_w": 1.5}},
    "initial": {"widths": [8, 16], "seeds": 4},
    "seeds_per_shard": 2,
    "results": "none",
}


def networks(**options):
    return parse_study(CONTENT | {"networks": {"mlp": {"activation": "tanh", "depth": 1} | options}}).networks


def test_lists_of_networks_are_multiplied():
    study = parse_study(CONTENT)
    assert {name: (own.depth, own.activation, own.sigma_w) for name, own in study.networks.items()} == {
        "mlp_depth1_relu": (1, "relu", 1.5),
        "mlp_depth1_leaky_relu_0p2": (1, "leaky_relu(0.2)", 1.5),
        "mlp_depth3_relu": (3, "relu", 1.5),
        "mlp_depth3_leaky_relu_0p2": (3, "leaky_relu(0.2)", 1.5),
    }
    assert len(jobs.shards(study)) == 4 * 2 * 2
    assert {shard.network for shard in jobs.shards(study)} == set(study.networks)
    assert "mlp_depth3_leaky_relu_0p2" in jobs.describe(study, jobs.NOMINAL)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"depth": [1, 20]}, ["mlp_depth1", "mlp_depth20"]),
        ({"depth": [2]}, ["mlp_depth2"]),  # a list of one: another value leaves its files as they are
        ({"parameterization": ["ntk", "mean_field"]}, ["mlp_ntk", "mlp_mean_field"]),
        ({"sigma_w": [1, 1.5, 1e-5]}, ["mlp_sigma_w_1", "mlp_sigma_w_1p5", "mlp_sigma_w_1em05"]),
        ({"sigma_a": [0.1, 1 / 3]}, ["mlp_sigma_a_0p1", "mlp_sigma_a_0p3333333333333333"]),
        ({"sigma_b": [None, 0.0, 0.5]}, ["mlp_sigma_b_none", "mlp_sigma_b_0", "mlp_sigma_b_0p5"]),
        ({"sigma_b": 1.0, "output_bias": [False, True]}, ["mlp_output_bias_false", "mlp_output_bias_true"]),
        ({"output_scale": [2, 0.5], "activation": ["erf", "tanh"]}, ["mlp_erf_scale_2", "mlp_erf_scale_0p5", "mlp_tanh_scale_2",
                                                                  "mlp_tanh_scale_0p5"]),
    ],
)  # fmt: skip
def test_names_hold_the_values_that_differ(options, names):
    assert list(networks(**options)) == names


def test_exponents_are_named_where_they_differ():
    exponents = dict.fromkeys(("a_input", "a_hidden", "a_output", "b_input", "b_hidden", "b_output"), 0.5)
    found = networks(parameterization="abc", abc=[exponents | {"c": 0.0}, exponents | {"c": -0.5}])
    assert list(found) == ["mlp_c_0", "mlp_c_m0p5"]
    assert [own.abc.c for own in found.values()] == [0.0, -0.5]
    assert described(found["mlp_c_m0p5"])["abc"].endswith("b_output 0.5, c -0.5")


def test_networks_as_tables_record_them_are_the_same():
    study = parse_study(CONTENT)
    recorded = {name: own.model_dump() for name, own in study.networks.items()}
    assert parse_study(CONTENT | {"networks": recorded}).networks == study.networks


def test_a_network_of_a_list_has_the_identity_of_its_own():
    every = parse_study(CONTENT)
    alone = parse_study(CONTENT | {"networks": {"other": {"activation": "relu", "depth": 3, "sigma_w": 1.5}}})
    found, wanted = (
        identity.of_shard(study, jobs.Shard("initial", name, 8, 0, 1), "hash")
        for study, name in ((every, "mlp_depth3_relu"), (alone, "other"))
    )
    assert found == wanted


def test_every_key_of_networks_is_a_column():
    assert set(NetworkOptions.model_fields) < set(NETWORK) < set(COLUMNS)
    frames = []
    for name, own in networks(sigma_b=[None, 0.5], depth=[1, 2]).items():
        frame = pd.DataFrame({"value": [1.0, 2.0]})
        frames.append(frame.assign(**described(own), network=name, sampling="weights", width=8))
    split = list(cells(pd.concat(frames, ignore_index=True), "width"))
    assert [(cell["depth"], len(rows)) for cell, rows in split] == [(1, 2), (1, 2), (2, 2), (2, 2)]
    assert [cell["sigma_b"] for cell, _ in split][1::2] == [0.5, 0.5]
    assert all(pd.isna(cell["sigma_b"]) for cell, _ in split[::2])
