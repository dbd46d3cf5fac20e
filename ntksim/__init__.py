"""Empirical neural tangent kernels of fully-connected networks over many seeds and widths.

The public names are loaded on first use (PEP 562), so that ``import ntksim`` costs neither Numba nor pandas: every job
of a sweep parses the workflow, and the workflow imports this package.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOME = {
    "ABC": "ntksim.engine.network",
    "Activation": "ntksim.engine.activation",
    "Ensemble": "ntksim.engine.infinite.ensembles",
    "Kernel": "ntksim.engine.infinite.kernel",
    "KeptKernels": "ntksim.study.results",
    "NNGPRegressor": "ntksim.estimators",
    "Network": "ntksim.engine.network",
    "NTKClassifier": "ntksim.estimators",
    "NTKRegressor": "ntksim.estimators",
    "NetworkKernel": "ntksim.estimators",
    "Parameters": "ntksim.engine.finite.parameters",
    "Trajectory": "ntksim.engine.training.trajectory",
    "closed_form": "ntksim.engine.infinite.predictions",
    "continuum_spectrum": "ntksim.engine.infinite.continuum",
    "empirical_ntk": "ntksim.engine.finite.empirical",
    "from_flax": "ntksim.frameworks.flax",
    "from_keras": "ntksim.frameworks.keras",
    "from_sklearn": "ntksim.frameworks.sklearn",
    "from_torch": "ntksim.frameworks.torch",
    "infinite_ensemble": "ntksim.engine.infinite.ensembles",
    "infinite_kernel": "ntksim.engine.infinite.kernel",
    "linearized_descent": "ntksim.engine.infinite.linearized",
    "measures": "ntksim.engine.measures",
    "modes": "ntksim.engine.training.residual_modes",
    "network_outputs": "ntksim.engine.finite.empirical",
    "one_hidden_layer_variance": "ntksim.engine.infinite.variance",
    "radial_derivative": "ntksim.engine.finite.radial",
    "read_kernels": "ntksim.study.results",
    "read_table": "ntksim.study.files.tables",
    "sample_parameters": "ntksim.engine.finite.parameters",
    "to_torch": "ntksim.frameworks.torch",
    "train": "ntksim.engine.training.train",
}
__all__ = [
    "ABC",
    "Activation",
    "Ensemble",
    "Kernel",
    "KeptKernels",
    "NNGPRegressor",
    "Network",
    "NTKClassifier",
    "NTKRegressor",
    "NetworkKernel",
    "Parameters",
    "Trajectory",
    "closed_form",
    "continuum_spectrum",
    "empirical_ntk",
    "from_flax",
    "from_keras",
    "from_sklearn",
    "from_torch",
    "infinite_ensemble",
    "infinite_kernel",
    "linearized_descent",
    "measures",
    "modes",
    "network_outputs",
    "one_hidden_layer_variance",
    "radial_derivative",
    "read_kernels",
    "read_table",
    "sample_parameters",
    "to_torch",
    "train",
]

if TYPE_CHECKING:
    from ntksim.engine import measures
    from ntksim.engine.activation import Activation
    from ntksim.engine.finite.empirical import empirical_ntk, network_outputs
    from ntksim.engine.finite.parameters import Parameters, sample_parameters
    from ntksim.engine.finite.radial import radial_derivative
    from ntksim.engine.infinite.continuum import continuum_spectrum
    from ntksim.engine.infinite.ensembles import Ensemble, infinite_ensemble
    from ntksim.engine.infinite.kernel import Kernel, infinite_kernel
    from ntksim.engine.infinite.linearized import linearized_descent
    from ntksim.engine.infinite.predictions import closed_form
    from ntksim.engine.infinite.variance import one_hidden_layer_variance
    from ntksim.engine.network import ABC, Network
    from ntksim.engine.training import residual_modes as modes
    from ntksim.engine.training.train import train
    from ntksim.engine.training.trajectory import Trajectory
    from ntksim.estimators import NetworkKernel, NNGPRegressor, NTKClassifier, NTKRegressor
    from ntksim.frameworks.flax import from_flax
    from ntksim.frameworks.keras import from_keras
    from ntksim.frameworks.sklearn import from_sklearn
    from ntksim.frameworks.torch import from_torch, to_torch
    from ntksim.study.files.tables import read_table
    from ntksim.study.results import KeptKernels, read_kernels


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'ntksim' has no attribute {name!r}")
    try:
        module = import_module(_HOME[name])
    except ModuleNotFoundError as error:
        from ntksim.study.errors import lacking

        raise ModuleNotFoundError(lacking(f"ntksim.{name}", error), name=error.name, path=error.path) from None
    value = module if name in ("measures", "modes") else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
