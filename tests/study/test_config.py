"""Every bad configuration gives one message that names the key and the remedy, before anything is computed."""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from ntksim.study.config import imports
from ntksim.study.config.study import json_schema, load_study, parse_study
from ntksim.study.config.words import word
from ntksim.study.data import nested
from ntksim.study.errors import ConfigError
from ntksim.study.plan import jobs
from ntksim.study.plan.identity import shard_identity

ROOT = Path(__file__).parents[2]
GOOD = yaml.safe_load((ROOT / "config.yaml").read_text())
ABSENT = object()
FLOW = {"widths": [64], "seeds": 2}
DESCENT = {"method": "gradient_descent", "widths": [64], "seeds": 2, "relative_time": 5.0}


def changed(path, value):
    content = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    place = content
    for part in parents:
        place = place[part]
    if value is ABSENT:
        del place[last]
    else:
        place[last] = value
    return content


BAD = [
    ("presicion", "float64", "presicion: unknown key; did you mean 'precision'?"),
    ("initial.sedes", 3, "initial.sedes: unknown key; did you mean 'seeds'?"),
    ("networks.relu_1.width", 3, "networks.relu_1.width: unknown key; known keys are depth, activation"),
    ("dataset", ABSENT, "dataset: this key is missing"),
    ("initial.seeds", ABSENT, "initial.seeds: this key is missing"),
    ("initial.widths", [64, 0], "initial.widths: expected widths of at least 1, got [64, 0]"),
    ("initial.widths", [64, 64], "initial.widths: expected each width once"),
    ("initial.widths", [], "initial.widths: expected at least 1 entries, got []"),
    ("initial.widths", "64", "initial.widths: expected a valid list, got '64'"),
    ("initial.widths", 64, "initial.widths: expected a list, such as [64], got 64"),
    ("initial.widths", [64.5], "initial.widths.0: expected a valid integer, got 64.5"),
    ("initial.seeds", True, "initial.seeds: expected a valid integer, got True"),
    ("initial.seeds", "32", "initial.seeds: expected a valid integer, got '32'"),
    (
        "networks.relu_1.activation",
        "swish",
        "networks.relu_1.activation: expected one of abs, cos, elu, erf, exp, gaussian, gelu",
    ),
    ("networks.relu_1.initialiser", "torch", "networks.relu_1.initialiser: expected one of gaussian, kaiming_normal in a study"),
    (
        "networks.relu_1.initialiser",
        "glorot",
        "networks.relu_1.initialiser: expected 'gaussian' or 'kaiming_normal', got 'glorot'",
    ),
    ("networks.relu_1.initialiser", "kaiming_normal", "networks.relu_1: initialiser 'kaiming_normal' belongs to parameteriz"),
    (
        "networks.relu_1",
        {"activation": "relu", "depth": 1, "parameterization": "standard", "initialiser": "kaiming_normal", "sigma_b": 0.5},
        "networks.relu_1: initialiser 'kaiming_normal' starts biases at zero: sigma_b must be 0, or None for no biases; got 0.5",
    ),
    (
        "networks.relu_1.initialiser",
        ["gaussian", "he_uniform"],
        "networks.relu_1.initialiser: expected one of gaussian, kaiming_normal in a study, which compares kernels with the limit",
    ),
    ("networks.relu_1.initialiser", ["gaussian", "gaussian"], "networks: 'relu_1': initialiser: expected different values"),
    ("networks.relu_1.sigma_w", -1.0, "networks.relu_1.sigma_w: expected greater than 0, got -1.0"),
    ("networks.relu_1.sigma_w", float("nan"), "networks.relu_1.sigma_w: expected a finite number"),
    ("networks.relu_1.output_bias", True, "networks.relu_1: output_bias=True needs biases: set sigma_b"),
    ("networks.relu_1.parameterization", "abc", "networks.relu_1: parameterization 'abc' needs abc, its seven exponents"),
    (
        "networks.relu_1.abc",
        dict.fromkeys(("a_input", "a_hidden", "a_output", "b_input", "b_hidden", "b_output"), 0),
        "networks.relu_1.abc.c: this key is missing; add it (it is: exponent of the factor of learning rates",
    ),
    ("networks.relu_3.parameterization", "mean_field", "networks.relu_3: parameterization 'mean_field' needs depth 1; got 3"),
    ("networks", {"../x": {"depth": 1, "activation": "relu"}}, "networks: the name '../x' must be letters"),
    ("networks", {}, "networks: expected at least 1 entries"),
    ("training.method", "adam", "training.method: expected 'gradient_flow' or 'gradient_descent', got 'adam'"),
    ("training.relative_learning_rate", 4.5, "training.relative_learning_rate: expected less than 4, got 4.5"),
    (
        "training",
        DESCENT | {"relative_learning_rate": 2.5},
        "training: relative_learning_rate: expected less than 2, from where on descent with momentum 0 diverges, got 2.5",
    ),
    (
        "training",
        DESCENT | {"relative_learning_rate": 3.9, "momentum": 0.9},
        "training: relative_learning_rate: expected less than 3.8, from where on descent with momentum 0.9 diverges, got 3.9",
    ),
    (
        "training",
        DESCENT | {"relative_learning_rate": 1.5, "momentum": 0.5, "nesterov": True},
        "training: relative_learning_rate: expected less than 1.5, from where",
    ),
    ("training.relative_time", ABSENT, "training: relative_time: expected one of relative_time, time and steps, got none"),
    ("training.time", 1.0, "training: relative_time: expected one of relative_time, time and steps, got relative_time and time"),
    ("training.time", 0.0, "training.time: expected greater than 0, got 0.0; it is: end of training, in place of"),
    ("training.steps", 0, "training.steps: expected greater than or equal to 1, got 0"),
    ("training.steps", 1.5, "training.steps: expected a valid integer, got 1.5"),
    ("training.learning_rate", -1.0, "training.learning_rate: expected greater than 0, got -1.0"),
    ("training.learning_rate", 0.1, "training: learning_rate: of gradient_flow steps and learning_rate together give the time"),
    ("training", FLOW | {"steps": 7}, "training: steps: of gradient_flow steps and learning_rate together give the time"),
    ("training.rate_of", "sum", "training.rate_of: expected 'half_sum' or 'mean_square', got 'sum'"),
    ("training.rate_of", "mean_square", "training: rate_of: says what time and learning_rate mean, and neither is given"),
    (
        "training",
        DESCENT | {"learning_rate": 0.1, "relative_learning_rate": 0.1},
        "training: learning_rate: there is relative_learning_rate already; leave one of the two out",
    ),
    (
        "training",
        FLOW | {"time": 1e10, "learning_rate": 1e-3, "method": "gradient_descent"},
        "training: time: more than 1e+09 steps of learning_rate; lower it",
    ),
    ("training.snapshot_times", [1.0], "training: snapshot_times: are in the unit of time; give the end as time, or as steps"),
    (
        "training",
        FLOW | {"time": 5.0, "snapshot_times": [1.0, 6.0]},
        "training: snapshot_times: expected ascending times above 0, up to the end 5, got [1.0, 6.0]",
    ),
    (
        "training",
        FLOW | {"steps": 50, "learning_rate": 0.1, "snapshot_times": [2.0, 1.0]},
        "training: snapshot_times: expected ascending times above 0, up to the end 5, got [2.0, 1.0]",
    ),
    ("training", FLOW | {"time": 5.0, "snapshot_times": []}, "training.snapshot_times: expected at least 1 entries, got []"),
    (
        "training",
        FLOW | {"time": 5.0, "snapshot_times": [1.0], "snapshots": 3},
        "training: snapshot_times: there is snapshots already; leave one of the two out",
    ),
    ("training.relative_learning_rate", 0.5, "training: relative_learning_rate: belongs to method gradient_descent"),
    ("training.momentum", 0.9, "training: momentum: belongs to method gradient_descent"),
    ("training.nesterov", True, "training: nesterov: belongs to method gradient_descent"),
    ("training.batch_size", 4, "training: batch_size: belongs to method gradient_descent"),
    ("training.momentum", 1.0, "training.momentum: expected less than 1, got 1.0"),
    ("training", DESCENT | {"nesterov": True}, "training: nesterov: needs momentum; set it above 0, such as 0.9"),
    ("training", DESCENT | {"batch_size": 4}, "training: relative_learning_rate: batch_size needs it"),
    (
        "training",
        DESCENT | {"batch_size": 17, "relative_learning_rate": 0.1},
        "training.batch_size: expected at most dataset.train = 16, got 17",
    ),
    (
        "training.layer_rates",
        [1.0, -1.0],
        "training: layer_rates: expected numbers from 1e-30 to 1e30, or 0 for a frozen layer, got [1.0, -1.0]",
    ),
    ("training.layer_rates", [0.0, 0.0], "training: layer_rates: expected a number above 0 among them"),
    ("training.ridge", -0.1, "training.ridge: expected greater than or equal to 0, got -0.1"),
    ("training.ridge", float("inf"), "training.ridge: expected a finite number, got inf"),
    ("training.layer_rates", [1.0], "training.layer_rates: expected at least 2 entries, got [1.0]"),
    (
        "training.layer_rates",
        [1.0, 0.5],
        "training.layer_rates: expected 4 numbers for networks.relu_3 (its depth + 1), got 2; a study with layer_rates has",
    ),
    ("training.keep_kernels", 1, "training.keep_kernels: expected a valid boolean, got 1"),
    ("networks.relu_1.output_scale", [0.5, 0.5], "networks: 'relu_1': output_scale: expected different values, got [0.5, 0.5]"),
    ("networks.relu_1.depth", [1, 1], "networks: 'relu_1': depth: expected different values, got [1, 1]"),
    ("networks.relu_1.depth", [1, 0], "networks.relu_1.depth: expected greater than or equal to 1, got 0"),
    ("networks.relu_1.activation", ["relu", "rellu"], "networks.relu_1.activation: expected one of abs"),
    ("networks.relu_1.sigma_w", list(range(1, 100002)), "networks: 'relu_1': sigma_w: expected different values, got [1, 2, 3"),
    (
        "networks.relu_1",
        {"depth": list(range(1, 401)), "activation": "relu", "sigma_w": list(range(1, 301))},
        "networks: 'relu_1': depth, sigma_w: expected at most 100000 combinations of their values",
    ),
    ("networks.relu_1.output_bias", [True, False], "networks.relu_1: output_bias"),
    (
        "networks",
        {"a": {"depth": [1, 2], "activation": "relu"}, "a_depth2": {"depth": 2, "activation": "relu"}},
        "networks: the name 'a_depth2' stands for two networks; rename one",
    ),
    ("networks.relu_1.output_scale", [], "networks: 'relu_1': output_scale: expected at least one value, got []"),
    ("networks.relu_1.output_scale", [0.5, -1], "networks.relu_1.output_scale: expected greater than 0, got -1"),
    ("networks.relu_1.output_scale", [0.5, "a"], "networks.relu_1.output_scale: expected a valid number, got 'a'"),
    (
        "networks",
        {"a" * 65: {"depth": 1, "activation": "relu", "output_scale": [0.25, 0.5]}},
        f"networks: the name '{'a' * 65}' must be letters, digits and underscores, a letter first, at most 64, and 128 with",
    ),
    (
        "networks",
        {"relu_scale_big": {"depth": 1, "activation": "relu"}},
        "networks: the name 'relu_scale_big' holds _scale_, behind which stands the output scale of a network that has several",
    ),
    ("training.tolerance", 1.0, "training.tolerance: expected less than 1, got 1.0"),
    ("dataset.classes", [4, 4], "dataset.classes: expected different labels, two at least, got [4, 4]"),
    ("dataset.classes", [1, 2, 4, 2], "dataset.classes: expected different labels, two at least, got [1, 2, 4, 2]"),
    ("dataset.classes", [4], "dataset.classes: expected different labels, two at least, got [4]"),
    ("dataset.classes", [4, 12], "dataset: classes: expected labels of digits, from 0 to 9, got [4, 12]"),
    *(
        (
            "dataset.classes",
            labels,
            "dataset.classes: expected a list of text and finite numbers (quote words like yes and no; for a column of booleans "
            f"give 0 and 1), got {labels}; it is: labels",
        )
        for labels in ([True, False], [4, True], [False, 1], ["cat", float("nan")], [4, float("inf")], [4, None])
    ),
    ("dataset.target_scale", 0, "dataset.target_scale: expected greater than or equal to 0.00000001, got 0"),
    ("dataset.target_scale", 1e308, "dataset.target_scale: expected less than or equal to 100000000, got 1e+308"),
    ("dataset.target", ["a", "a"], "dataset.target: expected the name of a column, or a list of different ones, got ['a', 'a']"),
    ("dataset.target", [], "dataset.target: expected the name of a column, or a list of different ones, got []"),
    (
        "dataset",
        {"file": "x.csv", "target": ["a", "b"], "classes": [0, 1], "train": 4, "test": 2},
        "dataset: target: labels of classes stand in one column; name that one, or leave classes out",
    ),
    ("dataset.name", "mnist", "dataset.name: expected 'digits', 'iris', 'wine'"),
    ("dataset.name", ABSENT, "dataset: give either name (a set that ships with ntksim) or file (your own data)"),
    ("dataset.name", "diabetes", "dataset: classes: the targets of diabetes are real numbers; leave classes out"),
    ("dataset.file", "x.csv", "dataset: give either name"),
    ("dataset.file", "x.txt", "dataset.file: expected one .npz, .csv or .parquet file, or a pair [x.npy, y.npy], got 'x.txt'"),
    ("dataset.file", ["x.npy"], "dataset.file: expected one .npz, .csv or .parquet file, or a pair"),
    ("dataset.file", 3, "dataset.file: expected a path, or a pair [x.npy, y.npy], got 3"),
    ("dataset.target", "label", "dataset: target names a column of a .csv or .parquet file; leave it out here"),
    ("dataset.features", 5, "dataset: features: the synthetic sets gaussian and sphere need it, and only they have it"),
    ("dataset.train", 1, "dataset.train: expected greater than or equal to 2, got 1"),
    ("precision", "float16", "precision: expected 'float64' or 'float32', got 'float16'"),
]


@pytest.mark.parametrize(("path", "value", "message"), BAD, ids=[f"{p}-{i}" for i, (p, _, _) in enumerate(BAD)])
def test_errors_name_the_bad_value(path, value, message):
    with pytest.raises(ConfigError) as error:
        parse_study(changed(path, value), source="c.yaml")
    lines = str(error.value).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"c.yaml: {message}")


def test_each_problem_has_a_line():
    content = changed("presicion", 1)
    content["initial"]["seeds"] = "x"
    with pytest.raises(ConfigError) as error:
        parse_study(content)
    assert len(str(error.value).splitlines()) == 2


def said(run):
    """Lines on the error output, but for the word about compilation, which whoever comes first gives."""
    return [line for line in run.stderr.strip().splitlines() if not line.startswith("ntksim: compiling")]


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "expected keys such as dataset"), ("a: [", "not valid YAML"), ("- 1", "expected keys"), (None, "no such file")],
)
def test_bad_files_end_with_one_message_and_status_2(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    if text is not None:
        path.write_text(text)
    for command in ("study", "plan"):
        run = subprocess.run([sys.executable, "-m", "ntksim.cli", command, str(path)], cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == 2
        assert message in run.stderr
        assert "Traceback" not in run.stderr + run.stdout
        assert len(said(run)) == 1


def test_too_many_points_are_refused_before_any_job(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(changed("dataset.train", 5000) | {"results": str(tmp_path / "results")}))
    run = subprocess.run([sys.executable, "-m", "ntksim.cli", "study", str(path)], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2
    assert "dataset.train + dataset.test = 5032, but the classes [4, 9] have only 361 points" in run.stderr
    assert len(said(run)) == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            'dataset --dataset {"name":"digits","train":4,"test":12} --output o.npz',
            "should be greater or equal to the number of classes = 10",
        ),
        ('dataset --dataset {"file":"none.csv","train":4,"test":2} --output o.npz', "dataset.file: none.csv: no such file"),
        (
            'limit --network {"depth":0,"activation":"relu"} --width 4 --dataset d --output o',
            "--network: depth: expected",
        ),
        ('limit --network {"depth":1,"activation":"relu"} --width 4 --dataset d.npz --output o', "d.npz: no such file"),
        ("limit --network relu --width 4 --dataset d --output o", "--network: expected keys and values in JSON, such as"),
        ('limit --network {"depth":1,"activation":"relu","sigma":1} --width 4 --dataset d --output o', "did you mean 'sigma_w'?"),
        ("show nowhere", "no tables; run the study first"),
        ("figures nowhere loss --output o", "nowhere/training.parquet: no such file"),
        ("study config.yaml --profile nowhere", "--profile: nowhere holds no profile.yaml"),
    ],
)
def test_commands_end_with_one_message(command, message):
    run = subprocess.run([sys.executable, "-m", "ntksim.cli", *command.split()], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode in (1, 2)
    assert message in run.stderr
    assert len(said(run)) == 1


def test_the_schema_file_is_up_to_date():
    """After a change run `ntksim schema > workflow/schemas/config.schema.json`."""
    stored = json.loads((ROOT / "workflow/schemas/config.schema.json").read_text())
    assert stored == json.loads(json.dumps(json_schema()))
    for section in (stored, *stored["$defs"].values()):
        assert section["additionalProperties"] is False
        assert all("description" in key for key in section["properties"].values())


def test_default_study():
    study = load_study(ROOT / "config.yaml")
    assert study.initial.widths == [64 * 4**k for k in range(8)]
    assert study.science_hash() == parse_study(changed("results", "elsewhere")).science_hash()
    assert study.science_hash() != parse_study(changed("networks.relu_1.sigma_w", 1.0)).science_hash()


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_plans_its_jobs_on_its_data(path):
    study, text = load_study(path), path.read_text()
    assert study.results == f"results/{path.stem}"
    plan = jobs.describe(study, jobs.NOMINAL)
    assert all(network in plan for network in study.networks)
    for label in study.data_sets:
        data = nested.load(*study.drawn(label))
        if study.training is not None and study.training.measures is not None and study.training.measures.modes is not None:
            assert np.ptp(np.linalg.norm(data.x_train, axis=1)) < 1e-12
    named = set(re.findall(r"\w+", " ".join(re.findall(r"^#(.*)", text, re.M)).rpartition("See ")[2]))
    made = {*jobs.figures(study), *jobs.tables(study)}
    assert named & made, "the header names figures or tables to look at"
    assert not named & {*jobs.FIGURES, "lazy", "freeze", "continuum", "regression"} - made
    assert f"studies/{path.name}" in (ROOT / "docs" / "training.md").read_text()


def test_an_initialiser_enters_records_where_it_does_something():
    plain, own = (
        parse_study(changed("networks.relu_1", GOOD["networks"]["relu_1"] | {"parameterization": "standard"} | initialiser))
        for initialiser in ({"initialiser": "gaussian"}, {"initialiser": "kaiming_normal"})
    )
    records = [shard_identity("initial", study.networks["relu_1"].network(8), [0], "")["network"] for study in (plain, own)]
    assert "initialiser" not in records[0]
    assert records[1] == records[0] | {"initialiser": "kaiming_normal"}
    assert "initialiser" not in plain.model_dump()["networks"]["relu_1"]
    assert plain.science_hash() != own.science_hash()


def test_reading_a_configuration_does_not_load_numba():
    code = "import sys, ntksim, ntksim.study.plan.jobs; sys.exit(any(m in sys.modules for m in ('numba', 'pandas', 'scipy')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_engine_runs_without_the_packages_of_the_study():
    """The engine computes if no package of the study can be imported."""
    code = """
import sys
for name in ("pandas", "pyarrow", "snakemake", "matplotlib", "sklearn", "pydantic", "yaml", "jsonschema"):
    sys.modules[name] = None
import ntksim
ntksim.empirical_ntk(ntksim.Network(1, 4), [[1.0, 2.0]], seeds=[0])
ntksim.train, ntksim.closed_form, ntksim.infinite_kernel
import ntksim.engine.measures
sys.exit(any(name.startswith("ntksim.study") for name in sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


# --- activations of one's own -----------------------------------------------------------------------------------------


MODULE = """
import math
import ntksim
mish = ntksim.Activation("mish", lambda z: z * math.tanh(math.log1p(math.exp(z))))
number = 3
"""


def importing(path):
    content = changed("networks.relu_1.activation", {"import": path})
    return parse_study(content).networks["relu_1"]


def test_an_imported_activation_is_refused_unless_allowed(monkeypatch, tmp_path):
    (tmp_path / "functions_of_mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(imports.ALLOWED, raising=False)
    with pytest.raises(ConfigError, match="functions_of_mine.mish is code that would be run: allow it with --allow-imports"):
        importing("functions_of_mine.mish")
    assert "functions_of_mine" not in sys.modules
    monkeypatch.setenv(imports.ALLOWED, "1")
    options = importing("functions_of_mine.mish")
    assert options.network(4).activation.name == "mish"
    assert options.network(4) == options.network(4)
    assert '"activation":{"import":"functions_of_mine.mish"}' in word(options)
    assert jobs.allowance([options]) == " --allow-imports"
    assert jobs.allowance(parse_study(changed("networks.relu_1.activation", "elu(0.5)")).networks.values()) == ""
    for path, message in {
        "functions_of_mine.number": "must be an ntksim.Activation, got 3",
        "functions_of_mine.none": "cannot be imported .AttributeError",
        "no_such_module.mish": "cannot be imported .ModuleNotFoundError",
        "mish": "expected a name, or {import: my_module.my_activation}",
    }.items():
        with pytest.raises(ConfigError, match=message):
            importing(path)


def test_numbers_in_brackets_are_checked():
    assert parse_study(changed("networks.relu_1.activation", "leaky_relu(0.10)")).networks["relu_1"].activation == "leaky_relu"
    with pytest.raises(ConfigError, match=r"activation: expected monomial with a whole number from 2 to 10 in brackets"):
        parse_study(changed("networks.relu_1.activation", "monomial(2.5)"))
