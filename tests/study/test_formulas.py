"""Formulas of targets and densities: what they mean, spherical harmonics, and the column where one stops."""

import math

import numpy as np
import pytest

from ntksim.study.config.dataset import Dataset
from ntksim.study.config.formula import formula
from ntksim.study.config.study import parse_study
from ntksim.study.data import dataset
from ntksim.study.errors import ConfigError, StageError


def circle(**options):
    return dataset.load(Dataset(**{"name": "circle", "train": 16, "test": 8} | options))


def values(text, points, on_circle=False):
    return formula("dataset.formula", text, points.shape[1], on_circle=on_circle)(points)


def test_sums_of_sines():
    theta = 2 * np.pi * np.arange(16) / 16
    data = circle(spacing="even", formula="0.9 sin(2 theta) + 0.7 sin(4 theta + 1.57) - 0.2 cos(theta)")
    expected = 0.9 * np.sin(2 * theta) + 0.7 * np.sin(4 * theta + 1.57) - 0.2 * np.cos(theta)
    assert data.y_train == pytest.approx(expected, abs=1e-14)
    angles = np.arctan2(data.x_test[:, 1], data.x_test[:, 0])
    assert data.y_test == pytest.approx(
        0.9 * np.sin(2 * angles) + 0.7 * np.sin(4 * angles + 1.57) - 0.2 * np.cos(angles), abs=1e-14
    )
    # without keys of their own, points are those that they always were, and so are the default targets
    assert circle(formula="x1*x2").hash == circle().hash
    assert "formula" not in Dataset(name="circle", train=4, test=3).model_dump()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x1*x2 + 0.5 x3^2", lambda a, b, c: a * b + 0.5 * c**2),
        ("-x1^2", lambda a, b, c: -(a**2)),
        ("2 - 3 - x1", lambda a, b, c: -1 - a),
        ("12 / 2 / 3 * x1", lambda a, b, c: 2 * a),
        ("2 x1 / 4 + 1 / 2 * x2", lambda a, b, c: a / 2 + b / 2),
        ("2(x1 + 1) - -x2", lambda a, b, c: 2 * (a + 1) + b),
        ("+1.5e1x1^3 * -.5", lambda a, b, c: -7.5 * a**3),
        ("exp(-x1^2 / 2)", lambda a, b, c: np.exp(-(a**2) / 2)),
        ("sin(2 pi x1) * cos(x2 - pi)", lambda a, b, c: -np.sin(2 * np.pi * a) * np.cos(b)),
        ("(((x3)))^0 + 0 x1", lambda a, b, c: np.ones(len(a))),
    ],
)
def test_formulas_mean_what_they_say(text, expected):
    points = np.random.default_rng(2).normal(size=(20, 3))
    assert values(text, points) == pytest.approx(expected(*points.T), rel=1e-13, abs=1e-14)


@pytest.mark.parametrize("d", [2, 3, 7])
def test_gegenbauer_polynomials_are_spherical_harmonics(d):
    """Reproducing kernels: E P_j(<x, a>) P_k(<x, b>) = delta_jk P_k(<a, b>) / N(d, k), x uniform, by an exact quadrature.

    Means over a design of points: Gauss's rule in the coordinate along a (the weight is sin^(d-2)), whose orthogonality is that
    of the zonal functions. N(d, k) is the number of harmonics of degree k.
    """
    nodes, weights = np.polynomial.legendre.leggauss(200)
    angle = np.pi * (nodes + 1) / 2
    weights = weights * np.sin(angle) ** (d - 2)
    points = np.zeros((200, d))
    points[:, 0], points[:, -1] = 3 * np.cos(angle), 3 * np.sin(angle)  # of any radius
    zonal = np.stack([values(f"gegenbauer({k}, x1)", points) for k in range(6)])
    count = [math.comb(d + k - 1, k) - (math.comb(d + k - 3, k - 2) if k > 1 else 0) for k in range(6)]
    assert (zonal * weights) @ zonal.T / weights.sum() == pytest.approx(np.diag(1 / np.array(count)), abs=1e-12)
    pole = np.eye(d)[:1]
    assert [values(f"gegenbauer({k}, x1)", pole)[0] for k in range(6)] == pytest.approx([1] * 6, abs=1e-14)
    # degree 2 in closed form, about another axis
    slanted = (0.6 * points[:, 0] + 0.8 * points[:, 1]) / 3
    assert values("gegenbauer(2, 0.6 x1 + 0.8 x2)", points) == pytest.approx((d * slanted**2 - 1) / (d - 1), abs=1e-13)


NAMED = "a number, theta, x1, x2, pi, sin, cos, exp, gegenbauer or \\("


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("0.9 sin(2 theta) + tan(theta)", 20, f"expected {NAMED}, got 'tan'"),
        ("x3", 1, f"expected {NAMED}, got 'x3'"),
        ("", 1, "expected a number, .*, got the end"),
        ("x1 +", 5, "expected a number, .*, got the end"),
        ("x1 x2", 4, r"expected an operator \(\+ - \* / \^\) or the end, got 'x2'"),
        ("1 / 2 theta", 7, "expected an operator .*, or parentheses around what stands after /, got 'theta'"),
        ("x1**2", 4, "expected a number, .*, got '\\*'"),
        ("x1^-1", 4, "expected an exponent, a whole number from 0 to 100, got '-'"),
        ("x1^2^2", 5, "expected an operator .* or the end, got '\\^'"),
        ("x1^101", 4, "expected an exponent, a whole number from 0 to 100, got '101'"),
        ("(x1", 4, r"expected an operator .* or \), got the end"),
        ("x1)", 3, r"expected an operator .* or the end, got '\)'"),
        ("sin theta", 5, "expected \\(, got 'theta'"),
        ("gegenbauer(1.5, x1)", 12, "expected a degree, a whole number from 0 to 100, got '1.5'"),
        ("gegenbauer(2 x1)", 14, "expected ,, got 'x1'"),
        ("1e999", 1, "expected a number below 1.8e308, got '1e999'"),
        ("__import__('os')", 1, "expected a number, .*, got '__import__'"),
        ("x1; x2", 3, "expected an operator .* or the end, got ';'"),
        ("(" * 60 + "x1" + ")" * 60, 51, "expected at most 50 parentheses inside one another, got '\\('"),
    ],
)
def test_what_is_no_formula_is_refused_at_its_column(text, column, message):
    with pytest.raises(StageError, match=f"^dataset.formula: column {column}: {message}$") as error:
        circle(formula=text)
    assert len(str(error.value).splitlines()) == 1


def test_long_formulas_are_read():
    points = np.ones((2, 1))
    assert values("+".join(["x1"] * 3000), points).tolist() == [3000, 3000]
    assert values("-" * 3001 + "x1", points).tolist() == [-1, -1]
    assert values(" * ".join(["x1"] * 3000), points).tolist() == [1, 1]


@pytest.mark.parametrize(("key", "text"), [("formula", "tan(x1)"), ("density", "1 + tan(theta)")])
def test_configurations_with_what_is_no_formula_are_refused(key, text):
    content = {
        "dataset": {"name": "circle", "train": 6, "test": 3, key: text},
        "networks": {"tanh": {"activation": "tanh", "depth": 1}},
        "initial": {"widths": [8], "seeds": 2},
    }
    column = text.index("tan") + 1
    with pytest.raises(ConfigError, match=f"^own.yaml: dataset.{key}: column {column}: expected a number, theta, .*, got 'tan'$"):
        parse_study(content, "own.yaml")
    content["dataset"] = {"name": "sphere", "features": 3, "train": 6, "test": 3, "formula": "theta"}
    with pytest.raises(ConfigError, match=r"^config: dataset.formula: column 1: .*'theta', which only name: circle has$"):
        parse_study(content)
    assert parse_study(content | {"dataset": content["dataset"] | {"formula": "x1*x3 + 1"}}) is not None
