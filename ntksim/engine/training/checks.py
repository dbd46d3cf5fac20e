"""Checks of what `train` is given, and a warning about what comes out."""

import math
from collections.abc import Sequence
from numbers import Real
from os import PathLike

import numpy as np

from ntksim.engine.arguments import SAMPLINGS, decay_number, flag, one_of, rank_tolerance_in_use, seed_array, warn
from ntksim.engine.devices import chosen_device
from ntksim.engine.finite.parameters import Parameters
from ntksim.engine.loss import LOSSES, SQUARED, Loss
from ntksim.engine.network import Network
from ntksim.engine.training.descent import Descent
from ntksim.engine.training.flow import Flow

RANK_TOLERANCE = 1e-6


def in_law(sampling: str, device: str, parameters: bool, rank_tolerance: float | None) -> bool:
    """Whether networks are sampled in law; they have no parameters, and are trained on the CPU."""
    one_of("sampling", sampling, SAMPLINGS)
    if sampling != "conditional" and rank_tolerance is not None:
        raise ValueError("rank_tolerance belongs to sampling='conditional': leave it out")
    if sampling == "conditional" and parameters:
        raise ValueError("sampling='conditional' has no parameters: leave out start and return_parameters, or sampling")
    if sampling == "conditional" and device == "cuda":
        raise ValueError("sampling='conditional' is trained on the CPU only so far; got device='cuda': use device='cpu'")
    if sampling == "conditional" and device != "auto":
        chosen_device(device)  # which knows what devices there are
    return sampling == "conditional"


def seeds(seeds: Sequence[int] | None, start: Parameters | None) -> np.ndarray:
    """Seeds, or the one of a network that starts from given parameters, whose batches it shuffles."""
    if start is None and seeds is None:
        raise TypeError("give seeds, a sequence of non-negative integers such as range(8), or start, a network's parameters")
    if start is not None and seeds is not None:
        raise TypeError("give seeds or start, not both: start is one network's parameters")
    return np.zeros(1, np.uint64) if seeds is None else seed_array(seeds)


def kept(kernels: object, test_kernels: object, x_test: np.ndarray | None) -> tuple[bool, bool]:
    """Whether kernels of training points are kept along the way, and those of test with training points."""
    found = flag("keep_kernels", kernels), flag("keep_test_kernels", test_kernels)
    if found[1] and x_test is None:
        raise ValueError("keep_test_kernels needs test points: give x_test, or leave it out")
    return found


def biases(network: Network, start: Parameters | None) -> tuple[bool, ...]:
    """Whether layers 1..L and the output have biases."""
    if start is None:
        return (network.sigma_b is not None,) * network.depth + (network.output_bias,)
    hidden = start.biases or (None,) * network.depth
    return (*(own is not None for own in hidden), start.output_bias is not None)


def checked_rank(tolerance: float | None, network: Network, plan: Flow | Descent, n: int, kind: np.dtype) -> float:
    """The tolerance that networks in law use, which do not take all plans."""
    network.require_gaussian()
    tolerance = RANK_TOLERANCE if tolerance is None else tolerance
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float, np.floating)) or not 1e-7 <= tolerance <= 0.1:
        raise ValueError(f"rank_tolerance must be a number from 1e-7 to 0.1; got {tolerance!r}")
    if isinstance(plan, Flow) and tolerance > plan.tolerance / 10:
        raise ValueError(
            f"rank_tolerance must be at most a tenth of the flow's tolerance {plan.tolerance:g}, or no step meets it; "
            f"got {tolerance:g}: lower rank_tolerance, or raise tolerance"
        )
    used = rank_tolerance_in_use(tolerance, kind)
    if isinstance(plan, Flow) and network.depth > 1 and used > plan.tolerance / 10:
        raise ValueError(
            f"tolerance must be at least {math.ceil(1e8 * used) / 1e7:g} for networks in law in {kind.name}, or no step meets "
            f"it; got {plan.tolerance:g}: raise it, or use dtype='float64' or sampling='weights'"
        )
    if isinstance(plan, Descent):
        if plan.batch_size is not None:
            raise ValueError("sampling='conditional' takes all points at once: leave batch_size out, or use sampling='weights'")
        if network.depth > 1 and (asked := int(plan.steps[-1]) * n * network.outputs) > min(network.widths):
            raise ValueError(
                f"sampling='conditional' may ask for {asked} directions (steps times points times outputs), more than the width "
                f"{min(network.widths)}: use method='gradient_flow', fewer steps, or sampling='weights'"
            )
    return used


def checked_loss(loss: Loss, weight_decay: object, place: str, in_law: bool, removes: bool) -> float:
    """Weight decay as a number; what is asked for must be there on the device, and for networks in law."""
    decay = decay_number(weight_decay)
    what = f"loss={loss.name!r}" if loss.kind != SQUARED else "weight_decay" if decay else None
    if what is not None and in_law:
        raise ValueError(f"{what} needs a network's weights: leave it out, or use sampling='weights'")
    if what is not None and place == "cuda":
        raise ValueError(f"{what} is on the CPU only so far; got device='cuda': use device='cpu'")
    if loss.kind != SQUARED and removes:
        raise ValueError(f"remove_initial_output belongs to squared losses: leave it out, or loss={loss.name!r}")
    return decay


def on_cpu(device: object, loss: object, weight_decay: object) -> bool:
    """Whether device ``"auto"`` is the CPU whatever there is, since GPUs train on squared losses without weight decay alone."""
    if not isinstance(device, str) or device != "auto":
        return False
    return bool(np.any(weight_decay != 0)) or (isinstance(loss, str) and LOSSES.get(loss, (SQUARED,))[0] != SQUARED)


def checked_interval(checkpoint: object, interval: float) -> float:
    """Seconds between two checkpoints; both arguments of `train` are checked."""
    if isinstance(interval, bool) or not isinstance(interval, Real) or not interval >= 0:
        raise ValueError(f"checkpoint_interval must be a number of seconds, at least 0; got {interval!r}")
    if checkpoint is not None and (not isinstance(checkpoint, (str, PathLike)) or not str(checkpoint) or "\0" in str(checkpoint)):
        raise TypeError(f"checkpoint must be the path of a folder, or None; got {checkpoint!r}")
    return float(interval)


def times_asked(reached: np.ndarray, status: tuple[str, ...], last: float, scale: float) -> np.ndarray:
    """Times reached (S,) in the units in which they were asked for, from those of the flow theta' = -grad L."""
    return np.where(np.array(status) == "finished", last, np.nan_to_num(reached) / scale)


def warn_of_the_end(status: tuple[str, ...], reached: np.ndarray, last: float, plan: Flow | Descent) -> None:
    """Say what to change where seeds of a flow did not come to the last time."""
    if not isinstance(plan, Flow):
        return
    ends = {
        "diverged": ("numbers that are not finite", "train in float64, or start from smaller weights"),
        "step_limit": (f"max_steps={plan.max_steps}", "raise max_steps or tolerance (now {:g}), or end sooner"),
        "stalled": (
            "motion that its precision does not resolve",
            "raise tolerance (now {:g}), train in float64, or start from larger weights",
        ),
    }
    for word, (where, remedy) in ends.items():
        stopped = np.array([own == word for own in status])
        if stopped.any():
            warn(
                f"gradient flow of {stopped.sum()} of {len(status)} seeds stopped at {where}, at times from "
                f"{reached[stopped].min():.3g} of {last:.3g} on (Trajectory.time_reached), and rows beyond are NaN: "
                + remedy.format(plan.tolerance),
                RuntimeWarning,
            )
