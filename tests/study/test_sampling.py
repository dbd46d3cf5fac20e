"""Networks in law at initialisation (`initial.sampling: conditional`): what they are in tables, identities, plans and figures."""

import ast
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ntksim
import studies
from ntksim.engine.arguments import SAMPLINGS
from ntksim.study.config.study import json_schema, parse_study
from ntksim.study.data import dataset
from ntksim.study.plan import cost, identity, jobs
from ntksim.study.report import description, figures, findings, summary
from ntksim.study.run import integrity, runner, verify
from ntksim.study.stages import kernels as stage
from ntksim.study.stages.kernels import triangles
from ntksim.study.stages.shard import ShardJob
from ntksim.study.statistics import scaling_laws
from ntksim.study.statistics.columns import quantities
from ntksim.study.statistics.drift_parts import ERROR_PARTS, gram_matrix, parts

CONTENT = {
    "dataset": {"name": "gaussian", "features": 8, "train": 4, "test": 2},
    "networks": {
        "relu_1": {"activation": "relu", "depth": 1, "sigma_w": 1.5},
        "relu_2": {"activation": "relu", "depth": 2, "sigma_w": 1.5},
    },
    "initial": {"widths": [64, 256], "seeds": 8, "sampling": "conditional"},
    "training": {"widths": [64], "seeds": 5, "relative_time": 2.0, "snapshots": 2, "remove_initial_output": True},
    "seeds_per_shard": 5,
}
SHARD = jobs.Shard("initial", "relu_2", 256, 0, 4)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return studies.computed(CONTENT, tmp_path_factory.mktemp("sampling"))


def weights(**more):
    return {name: value for name, value in CONTENT["initial"].items() if name != "sampling"} | more


def test_tables_hold_the_networks_that_the_engine_draws(study):
    """Those of conditional sampling at initialisation, and of weights in training."""
    data = dataset.read(f"{study.results}/dataset.npz")
    network = study.networks["relu_2"].network(256)
    limit = ntksim.infinite_kernel(network, data.x_train).ntk
    errors = {
        sampling: ntksim.measures.relative_frobenius_error(
            ntksim.empirical_ntk(network, data.x_train, seeds=range(8), sampling=sampling), limit
        )
        for sampling in SAMPLINGS
    }
    initial = ntksim.read_table(study.results, "initial")
    found = initial.query("network == 'relu_2' and width == 256")["relative_frobenius_error"].to_numpy()
    assert found == pytest.approx(errors["conditional"], rel=1e-12)
    assert np.abs(found - errors["weights"]).min() > 1e-6


def test_every_table_of_networks_says_how_they_are_drawn(study):
    for name in jobs.tables(study):
        table = ntksim.read_table(study.results, name)
        if name == "scaling_laws":
            expected = np.where(table["quantity"].isin(["relative_frobenius_error", "relative_operator_error", *ERROR_PARTS]),
                                "conditional", "weights")  # fmt: skip
            assert table["sampling"].to_list() == expected.tolist()
        else:
            of_initial = name in ("initial", "convergence", "spectrum")
            assert set(table["sampling"]) == {"conditional" if of_initial else "weights"}, name


def test_rows_of_unlike_sampling_do_not_join_by_seed(study):
    initial, final = (ntksim.read_table(study.results, name) for name in ("initial", "final"))
    common = [name for name in initial.columns.intersection(final.columns) if name not in ("status", "kernel_target_alignment")]
    assert {"network", "width", "seed", "sampling"} <= set(common)
    assert initial.merge(final, on=common).empty
    assert len(initial.drop(columns="sampling").merge(final, on=["network", "width", "seed"])) > 0


def test_no_merge_on_seeds_forgets_the_sampling():
    """Of the package's own: each names its columns, and one by seed, or by width, names the sampling."""
    found = 0
    for path in (studies.ROOT / "ntksim" / "study").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("merge", "merge_asof"):
                found += 1
                assert "on" in {keyword.arg for keyword in node.keywords}, f"{path}:{node.lineno}"
                around = ast.get_source_segment(path.read_text(), node) + _assigned(path, node)
                assert "sampling" in around, f"{path}:{node.lineno}"
    assert found >= 2


def _assigned(path, node):
    """The assignments of the function that holds a call, as text."""
    functions = [own for own in ast.walk(ast.parse(path.read_bytes())) if isinstance(own, ast.FunctionDef)]
    own = next(own for own in functions if own.lineno <= node.lineno <= own.end_lineno)
    return "".join(ast.unparse(line) for line in own.body if isinstance(line, ast.Assign))


def test_shards_of_weights_stay_what_they_were():
    """The key is in no record, no hash and no identity unless it does something."""
    without, said, other = (
        parse_study(CONTENT | {"initial": initial}) for initial in (weights(), weights(sampling="weights"), CONTENT["initial"])
    )
    assert without.science_hash() == said.science_hash() != other.science_hash()
    assert "sampling" not in json.dumps(said.model_dump())
    known = {name: identity.of_shard(own, SHARD, "hash") for name, own in (("said", said), ("other", other))}
    assert known["other"] == known["said"] | {"sampling": "conditional"}
    training = jobs.Shard("training", "relu_2", 64, 0, 4)
    assert identity.of_shard(said, training, "hash") == identity.of_shard(other, training, "hash")
    assert (
        identity.differences(known["other"], known["said"]) == identity.differences(known["said"], known["other"]) == ["sampling"]
    )
    assert json_schema()["$defs"]["Initial"]["properties"]["sampling"]["enum"] == list(SAMPLINGS)


def test_a_gpu_is_told_how_networks_are_drawn(study, tmp_path, monkeypatch):
    """Kernels in law run on GPUs too; there is none here, so the engine is asked what it is given."""
    assert parse_study(CONTENT | {"device": "cuda"}).device == "cuda"
    asked = {}
    monkeypatch.setattr(stage, "empirical_ntk", lambda network, x, **options: asked.update(options) or np.ones((5, 4, 4)))
    limit = Path(study.results) / jobs.limit_file(study, "relu_2", 256)
    job = ShardJob(
        f"{study.results}/dataset.npz", limit, study.networks["relu_2"].network(256), range(5), tmp_path / "s", "float64", "cuda"
    )
    stage._kernels(job, np.ones((4, 8)), "cuda", "conditional")
    assert asked["device"] == "cuda"
    assert asked["sampling"] == "conditional"


def test_bias_and_scatter_add_up_to_the_error(study):
    convergence = ntksim.read_table(study.results, "convergence")
    for _, rows in convergence.groupby(["network", "width"]):
        square = rows.set_index("quantity")["root_mean_square"] ** 2
        bias, scatter = (rows[rows["quantity"] == name].iloc[0] for name in ERROR_PARTS)
        lost = bias["root_mean_square"] == 0  # its square came out below 0, and stands as 0
        total = square[list(ERROR_PARTS)].sum()
        assert total == pytest.approx(square["relative_frobenius_error"], rel=1e-12) or (
            lost and total > square["relative_frobenius_error"]
        )
        for part in (bias, scatter):
            assert part["interval_low"] <= part["root_mean_square"] <= part["interval_high"]
            assert part["count"] == 8
        shallow = bias["depth"] == 1
        assert (bias["exact_root_mean_square"] == 0) == shallow
        exact = rows.set_index("quantity")["exact_root_mean_square"]
        assert np.isfinite(exact[["relative_frobenius_error", ERROR_PARTS[1]]]).all() == shallow


def test_bias_is_told_from_scatter():
    """300 kernels of width 256 beside references that are off by 0 and by 0.2 of the limit: the bias is 0 and 0.2.

    One hidden layer has no bias, so the interval of the first reaches 0, but for one in 40 draws of seeds; seeds are fixed.
    """
    x = np.random.default_rng(0).normal(size=(4, 8))
    network = ntksim.Network(1, 256, "relu", sigma_w=1.5)
    limit = ntksim.infinite_kernel(network, x).ntk
    kernels = ntksim.empirical_ntk(network, x, seeds=range(300), sampling="conditional")
    scatter = np.sqrt(ntksim.one_hidden_layer_variance(network, x).sum()) / np.linalg.norm(limit)
    for bias in (0.0, 0.2):
        gram = gram_matrix(triangles((kernels - (1 - bias) * limit) / np.linalg.norm(limit)))
        own, other = (parts(gram, ERROR_PARTS)[name] for name in ERROR_PARTS)
        assert own["interval_low"] <= bias <= own["interval_high"] < bias + 0.05
        assert other["interval_low"] <= scatter <= other["interval_high"] < 1.2 * scatter


def test_triangles_keep_inner_products():
    rng = np.random.default_rng(0)
    matrices = rng.normal(size=(3, 5, 5))
    matrices = matrices + matrices.transpose(0, 2, 1)
    assert triangles(matrices) @ triangles(matrices).T == pytest.approx(np.einsum("sij,tij->st", matrices, matrices))
    assert triangles(matrices).shape == (3, 15)


def test_plans_price_networks_in_law():
    """In proportion to the width in time, and hardly at all in memory, where weights cost its square."""
    widths = [2**14, 2**16, 2**18, 2**20]
    study = parse_study(CONTENT | {"initial": CONTENT["initial"] | {"widths": widths}})
    seconds = [cost._seconds_of_initial(study, "relu_2", width, 8, cost.NOMINAL) for width in widths]
    assert np.array(seconds[1:]) / seconds[:-1] == pytest.approx([4, 4, 4], rel=0.05)
    by_weights = parse_study(CONTENT | {"initial": weights(widths=widths)})
    assert cost._seconds_of_initial(by_weights, "relu_2", 2**20, 8, cost.NOMINAL) > 1e3 * seconds[-1]
    assert jobs.seeds_in_block(study, "initial", "relu_2", 2**20) == 5
    shard = jobs.Shard("initial", "relu_2", 2**20, 0, 4)
    assert jobs.cost(study, shard).memory_mb < 400


def test_shards_are_verified(study, capsys):
    assert verify.verify(study.results, fraction=1.0)
    printed = capsys.readouterr().out
    assert "initial/relu_2.width-256.seeds-5-7.parquet: equal bits" in printed
    assert "0 within tolerance, 0 different" in printed


def test_more_seeds_and_wider_networks_leave_shards_as_they_are(tmp_path):
    """Through the workflow; another sampling computes them all again."""
    content = {name: value for name, value in CONTENT.items() if name != "training"}
    content |= {"networks": {"relu_2": CONTENT["networks"]["relu_2"]}}
    status, text = studies.run(tmp_path, content)
    assert status == 0, text
    folder = tmp_path / "results" / "initial"
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    more = content | {"initial": {"widths": [64, 256, 4096], "seeds": 11, "sampling": "conditional"}}
    status, text = studies.run(tmp_path, more)
    assert status == 0, text
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert {name: after[name] for name in before} == before
    # of 11 seeds after 8: 0-4, 5-7, and 8-9 and 10, since blocks begin at multiples of five
    assert len(after) == 2 * 4 + 3
    assert "networks in law (conditional sampling)" in text
    other = parse_study(content | {"initial": weights(), "results": str(tmp_path / "results")})
    faults = {fault.path.name: (fault.kind, fault.why) for fault in integrity.inspect(other, runner._check_data(other))}
    assert {faults.get(name) for name in before} == {("configuration", "sampling")}


def test_the_summary_says_how_much_of_the_error_is_bias(study):
    attrs = ntksim.read_table(study.results, "convergence").attrs
    assert description.study(attrs)[-2].endswith("float64; networks in law (conditional sampling)")
    assert description.study(attrs)[-1].count("networks in law") == 0
    assert "its bias" in summary.summary(study.results)

    def rows(values, lows, scatters, exact=np.nan):
        made = []
        for name, sizes, ends in zip(ERROR_PARTS, (values, scatters), (lows, scatters), strict=True):
            for place, (size, low) in enumerate(zip(sizes, ends, strict=True)):
                made.append({"quantity": name, "width": 8 * 2**place, "root_mean_square": size, "interval_low": low,
                             "interval_high": 2 * size, "exact_root_mean_square": exact})  # fmt: skip
        return pd.DataFrame(made)

    said = findings.bias(rows([0.3, 0.1, 0.01], [0.2, 0.05, 0.0], [0.4, 0.3, 0.2]))
    assert said == (
        "its bias at width 8 is 0.3 [0.2, 0.6], 36% of the squared error; it is told from 0 at 2 of 3 widths (by chance alone at "
        "1 in 20)"
    )
    assert ", in theory 0;" in findings.bias(rows([0.1, 0.1], [0.0, 0.0], [1.0, 1.0], exact=0.0))
    assert findings.bias(rows([0.1, 0.1], [np.nan, np.nan], [1.0, 1.0])) is None


def test_bias_and_scatter_have_laws_of_their_own():
    """A bias of 4/m beside a scatter of 2 m^-1/2 in 16 directions, 64 seeds: exponents of -1 and -1/2.

    Their intervals hold theory but for one in 20 draws each; seeds are fixed.
    """
    rng, cell = np.random.default_rng(4), {"network": "a", "activation": "tanh", "depth": 2, "parameterization": "ntk"}
    widths = [8, 16, 32, 64]
    grams = {}
    for m in widths:
        changes = rng.normal(0, 2 * m**-0.5 / 4, (64, 16))
        changes[:, 0] += 4 / m
        grams["a", None, None, m] = gram_matrix(changes)
    row = cell | {"sampling": "weights", "status": "finished"} | dict.fromkeys(quantities("convergence"), 1.0)
    laws = scaling_laws.scaling_laws(pd.DataFrame([row | {"width": m} for m in widths]), None, error_grams=grams)
    laws = laws.set_index("quantity")
    for name, theory in zip(ERROR_PARTS, (-1.0, -0.5), strict=True):
        law = laws.loc[name]
        assert law["theory_exponent"] == theory
        assert law["interval_low"] < theory < law["interval_high"]
        assert law["interval_high"] - law["interval_low"] < 0.4


def test_findings_say_whether_bias_explains_an_exponent_off_theory():
    """Only where the error's interval leaves out -1/2, and the scatter's intervals and the narrowest bias tell."""

    def said(error, scatter, low=0.1, exact=np.nan, **more):
        laws = {"relative_frobenius_error": error, ERROR_PARTS[1]: scatter, **more}
        rows = [
            {"quantity": name, "along": "width", "exponent": middle, "interval_low": middle - 0.02, "marked": False,
             "interval_high": middle + 0.02, "theory_exponent": -1.0 if name == ERROR_PARTS[0] else -0.5}
            for name, middle in laws.items() if middle is not None
        ]  # fmt: skip
        found = {"quantity": ERROR_PARTS[0], "width": [64, 16], "interval_low": [0.0, low], "exact_root_mean_square": exact}
        return findings.off_theory(pd.DataFrame(found), pd.DataFrame(rows))

    assert said(-0.56, -0.55) == (
        "bias alone does not explain the power -0.56: the scatter without it scales as the width to the power -0.55, with a 95% "
        "interval of -0.57 to -0.53"
    )
    explained = (
        "bias explains the power -0.54: the scatter without it scales as the width to the power -0.51, with a 95% interval of "
        "-0.53 to -0.49, as in theory; the bias falls "
    )
    assert said(-0.54, -0.51) == f"{explained}in theory as 1/width"
    measured = said(-0.54, -0.51, **{ERROR_PARTS[0]: -1.01})
    assert measured == f"{explained}to the power -1.01, with a 95% interval of -1.03 to -0.99"
    for nothing in (
        (-0.51, -0.55),
        (-0.54, -0.51, 0.0),
        (-0.54, None),
        (-0.54, -0.45),
        (-0.46, -0.48),
        (-0.54, np.nan),
        (np.nan, -0.54),
    ):
        assert said(*nothing) is None
    assert said(-0.56, -0.55, exact=0.0) is None  # one hidden layer


def test_the_convergence_figure_shows_the_bias(study):
    """A circle where it is told from 0, with its interval; else a triangle at the upper end; nothing of few seeds or rounding."""
    convergence, laws = (ntksim.read_table(study.results, name) for name in ("convergence", "scaling_laws"))
    own = (convergence["quantity"] == ERROR_PARTS[0]) & (convergence["network"] == "relu_2")
    names = ["root_mean_square", "interval_low", "interval_high"]
    convergence.loc[own, names] = [[0.2, 0.1, 0.4], [0.0, 0.0, 0.05]]

    def drawn():
        axis = figures.convergence(convergence, laws).axes[1]
        lines = {line.get_marker(): line for line in axis.get_lines() if line.get_alpha() and line.get_marker() in "ov"}
        return lines, [text.get_text() for text in axis.get_legend().get_texts()]

    lines, words = drawn()
    assert [lines[marker].get_ydata().tolist() for marker in "ov"] == [[0.2], [0.05]]
    assert [text for text in words if "bias" in text] == ["bias (\u25bd at most)"]
    for low, high in ((np.nan, np.nan), (0.0, 1e-17)):
        convergence.loc[own, names] = [[0.0, low, high]] * 2
        lines, words = drawn()
        assert not lines
        assert not [text for text in words if "bias" in text]
    assert "The error's bias" in " ".join(
        sum(findings.in_words(ntksim.read_table(study.results, "convergence"), laws).values(), [])
    )


def test_the_exact_law_is_one_line_of_errors(study):
    """A point a width, whatever other quantities have an exact law."""
    convergence, laws = (ntksim.read_table(study.results, name) for name in ("convergence", "scaling_laws"))
    axis = figures.convergence(convergence, laws).axes[0]
    (line,) = [line for line in axis.get_lines() if line.get_label() == "relu_1: exact law"]
    rows = convergence.query("network == 'relu_1' and quantity == 'relative_frobenius_error'")
    assert line.get_xdata().tolist() == rows["width"].to_list() == [64, 256]
    assert line.get_ydata().tolist() == rows["exact_root_mean_square"].to_list()


def test_the_default_study_reaches_a_million_neurons():
    from ntksim.study.config.study import load_study

    study = load_study(Path(studies.ROOT) / "config.yaml")
    assert (study.initial.widths[0], study.initial.widths[-1], study.initial.sampling) == (64, 2**20, "conditional")
    assert all(len(shard.seeds) == 32 for shard in jobs.shards(study))
