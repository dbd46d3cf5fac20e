"""Names of functions that a factory or a user makes, by what they are made of."""

import sys
import threading
from types import ModuleType

import numpy as np
import pytest

from ntksim.engine.compiled.function_names import digest_of, told_apart
from ntksim.engine.compiled.jit import jit

SLOPE, TABLE = 2.0, np.array([1.0, 2.0])
settings = ModuleType("settings")


def times(factor):
    return lambda z: factor * z


def steep(z):
    return SLOPE * z


def looked_up(z):
    return TABLE[0] * z


def calls_steep(z):
    return steep(z) + 1


def nested(z):
    return [SLOPE * y for y in (z, z)]


def of_a_module(z):
    return settings.slope * z


def test_functions_of_one_place_are_told_apart_by_what_they_capture():
    one, two, again = times(1), times(2), times(1)
    assert digest_of(one) == digest_of(again)
    captured = [
        1,
        2,
        1.0,
        True,
        np.float32(1),
        np.float64(1),
        "1",
        (1,),
        (1, 1),
        np.ones(1),
        np.ones((1, 1)),
        -0.0,
        0.0,
        one,
        two,
    ]
    captured += [np.sin, np.cos, np, sys, float, int, {"a": 1}, {"a": 2}, frozenset([1]), None]
    assert len({digest_of(times(value)) for value in captured}) == len(captured)
    first, second = lambda z: z + 1, lambda z: z + 2
    defaults = [lambda z, a=1: z, lambda z, a=2: z]
    names = [lambda z: np.sin(z), lambda z: np.cos(z)]
    assert len({digest_of(function) for function in (first, second, *defaults, *names)}) == 6


@pytest.mark.parametrize("function", [steep, calls_steep, nested])
def test_a_changed_global_changes_the_digest(monkeypatch, function):
    before = digest_of(function)
    monkeypatch.setitem(globals(), "SLOPE", 3.0)
    assert digest_of(function) != before


def test_a_changed_array_or_value_of_a_module_changes_the_digest(monkeypatch):
    before = digest_of(looked_up)
    monkeypatch.setitem(globals(), "TABLE", np.array([1.0, 2.5]))
    assert digest_of(looked_up) != before
    settings.slope = 2.0
    before = digest_of(of_a_module)
    settings.slope = 3.0
    assert digest_of(of_a_module) != before


def test_functions_that_call_each_other_have_digests():
    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n > 0 and even(n - 1)

    assert digest_of(even) == digest_of(even) != digest_of(odd)


def test_what_cannot_be_told_is_refused():
    with pytest.raises(TypeError, match="cannot be kept"):
        digest_of(times(threading.Lock()))


def test_names_are_made_where_they_may_be_shared():
    assert told_apart(steep) is steep
    one, two = told_apart(times(1)), told_apart(times(2))
    assert one.__qualname__ == "times.<locals>.<lambda>_" + digest_of(times(1))
    assert one.__qualname__ != two.__qualname__
    assert (one(3), two(3)) == (3, 6)


def test_two_lambdas_and_a_changed_global_are_compiled_as_they_are(monkeypatch):
    one, two = jit(times(1)), jit(times(2))
    assert (one(3), two(3)) == (3, 6)
    assert jit(lambda z: SLOPE * z)(3) == 6
    monkeypatch.setitem(globals(), "SLOPE", 3.0)
    assert jit(lambda z: SLOPE * z)(3) == 9


def test_two_functions_of_one_name_are_refused():
    scope = {"__name__": "some_module"}
    exec("def phi(z):\n    return z + 1", scope)  # noqa: S102
    jit(scope["phi"])
    jit(scope["phi"])
    exec("def phi(z):\n    return z + 1", scope)  # noqa: S102
    jit(scope["phi"])  # the same again, as when a module is loaded anew
    exec("def phi(z):\n    return z + 2", scope)  # noqa: S102
    with pytest.raises(TypeError, match=r"two functions to be compiled have the name some_module\.phi: rename one of them"):
        jit(scope["phi"])
