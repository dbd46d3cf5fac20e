"""Empirical neural tangent kernels of fully-connected networks over many seeds and widths.

The public names are loaded on first use (PEP 562), so that ``import ntksim`` costs neither Numba nor pandas: every job
of a sweep parses the workflow, and the workflow imports this package.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOME = {
    "ABC": "ntksim.engine.network",
    "Ensemble": "ntksim.engine.infinite.ensembles",
    "Kernel": "ntksim.engine.infinite.kernel",
    "KeptKernels": "ntksim.study.results",
    "Network": "ntksim.engine.network",
    "Parameters": "ntksim.engine.empirical",
    "Trajectory": "ntksim.engine.training.train",
    "closed_form": "ntksim.engine.infinite.predictions",
    "empirical_ntk": "ntksim.engine.empirical",
    "infinite_ensemble": "ntksim.engine.infinite.ensembles",
    "infinite_kernel": "ntksim.engine.infinite.kernel",
    "measures": "ntksim.engine.measures",
    "network_outputs": "ntksim.engine.empirical",
    "one_hidden_layer_variance": "ntksim.engine.infinite.variance",
    "read_kernels": "ntksim.study.results",
    "read_table": "ntksim.study.files.tables",
    "sample_parameters": "ntksim.engine.empirical",
    "train": "ntksim.engine.training.train",
}
__all__ = [
    "ABC",
    "Ensemble",
    "Kernel",
    "KeptKernels",
    "Network",
    "Parameters",
    "Trajectory",
    "closed_form",
    "empirical_ntk",
    "infinite_ensemble",
    "infinite_kernel",
    "measures",
    "network_outputs",
    "one_hidden_layer_variance",
    "read_kernels",
    "read_table",
    "sample_parameters",
    "train",
]

if TYPE_CHECKING:
    from ntksim.engine import measures
    from ntksim.engine.empirical import Parameters, empirical_ntk, network_outputs, sample_parameters
    from ntksim.engine.infinite.ensembles import Ensemble, infinite_ensemble
    from ntksim.engine.infinite.kernel import Kernel, infinite_kernel
    from ntksim.engine.infinite.predictions import closed_form
    from ntksim.engine.infinite.variance import one_hidden_layer_variance
    from ntksim.engine.network import ABC, Network
    from ntksim.engine.training.train import Trajectory, train
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
    value = module if name == "measures" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
