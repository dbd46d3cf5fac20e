"""What all seeds of a training job share: its times and rates, the limits, and theory's moments over infinitely wide networks."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ntksim.engine.devices import chosen_device
from ntksim.engine.finite.radial import radial_derivative
from ntksim.engine.network import Network, common_rate, rated
from ntksim.engine.training.train import train
from ntksim.engine.training.trajectory import Trajectory
from ntksim.study.data import files as datasets
from ntksim.study.data.losses import Objective, objectives
from ntksim.study.files.storage import CHECKPOINT
from ntksim.study.stages.clock import clock
from ntksim.study.stages.limit import infinite_kernels, read_limit
from ntksim.study.stages.measures import Evaluation, evaluation
from ntksim.study.stages.shard import ShardJob
from ntksim.study.stages.theory import Moments, ensemble_moments

if TYPE_CHECKING:  # what shards depend on of the configuration is in their identities
    from ntksim.study.config.stages import Schedule


@dataclass(frozen=True)
class Job:
    """What all seeds of a shard share.

    ``schedule`` has its defaults filled in, and ``options`` are what it means to `train`. ``objectives`` are its loss on training
    and on test points. ``times`` (T,) are those of training,
    ``flow_times`` those at which gradient flow is as far on: t / (1 - mu) under momentum. ``descent`` holds the learning rate and
    the momentum of gradient descent, and is empty for the flow. ``limits`` holds the infinite-width kernels of one output,
    ``ensemble`` the moments over infinitely wide networks on training and on test points.
    """

    network: Network
    data: datasets.Data
    dtype: str
    device: str
    schedule: Any
    options: dict[str, Any]
    objectives: tuple[Objective, Objective]
    descent: dict[str, Any]
    relative_times: np.ndarray
    times: np.ndarray
    limits: dict[str, np.ndarray]
    ensemble: tuple[Moments, Moments]
    checkpoint: Path

    @cached_property
    def evaluation(self) -> Evaluation | None:
        """The points at which profiles and predictions are looked at; None where the schedule asks for none."""
        return evaluation(self)

    @property
    def flow_times(self) -> np.ndarray:
        """Times at which gradient flow is as far on."""
        return self.times / (1 - self.descent.get("momentum", 0.0))

    @property
    def scale(self) -> float:
        """What kernels are multiplied by where they move outputs: f' = -scale K g, g the gradient of the loss's sum."""
        return self.network.learning_rate_scale * self.objectives[0].loss.factor

    @property
    def decay(self) -> float:
        """lambda of the linearised network's descent, with the factors on learning rates that its kernel has; 0 without any."""
        if not self.descent or not self.schedule.has_linearized:
            return 0.0
        rate = common_rate(self.schedule.layer_rates)
        return float(self.schedule.weight_decay * self.network.learning_rate_scale * (1.0 if rate is None else rate))

    @property
    def targets(self) -> tuple[np.ndarray, np.ndarray]:
        """Of training points (n k,) and of test points (n* k,)."""
        return self.data.y_train.ravel(), self.data.y_test.ravel()

    @property
    def observed(self) -> np.ndarray:
        """The points on which networks are observed only: those of the test, and behind them evaluation points of their own."""
        there = self.evaluation
        return self.data.x_test if there is None or not there.own else np.concatenate([self.data.x_test, there.x])

    @property
    def keeps_test_kernels(self) -> bool:
        """Whether kernels of those with training points are wanted along the way."""
        return self.schedule.measures is not None and self.schedule.measures.at_test_points

    def radial(self, seeds: range) -> tuple[np.ndarray, np.ndarray]:
        """J_0 theta_0 of the layers that train, (S, n k) on training and (S, n* k) on test points, along which weight decay moves
        linearised networks.
        """
        trained = np.ones(self.network.depth + 1) if self.schedule.layer_rates is None else np.array(self.schedule.layer_rates)
        points, count = np.concatenate([self.data.x_train, self.data.x_test]), len(self.data.x_train)
        shares = radial_derivative(self.network, points, seeds=seeds, by_layer=True, dtype=self.dtype).astype(np.float64)
        found = shares[:, trained > 0].sum(axis=1)
        return found[:, :count].reshape(len(seeds), -1), found[:, count:].reshape(len(seeds), -1)

    def train(self, seeds: range) -> Trajectory:
        """Train some seeds; test points of the result are `observed`."""
        times: Any = self.times
        return train(
            self.network, self.data.x_train, self.data.y_train, seeds=seeds, times=times, x_test=self.observed,
            dtype=self.dtype, keep_kernels=True, keep_test_kernels=self.keeps_test_kernels, checkpoint=self.checkpoint,
            device=self.device, **self.options,
        )  # fmt: skip


def make_job(shard: ShardJob, schedule: "Schedule") -> Job:
    """The job of a shard: the times of its schedule, the arguments of `train`, and what theory says of all seeds together."""
    data, filled = datasets.read(shard.dataset), schedule.filled
    limits = read_limit(shard.limit, shard.network, data)
    network = replace(shard.network, outputs=data.outputs)
    if filled.layer_rates is not None:  # sums over layers with their rates, in place of plain sums
        limits = infinite_kernels(rated(network, filled.layer_rates), data)
    both = objectives(filled.loss, data)
    largest = both[0].loss.curvature * network.learning_rate_scale * np.linalg.eigvalsh(limits["ntk"])[-1]
    times, relative_times, learning_rate = clock(filled, float(largest), data.y_train.size)
    options = {name: getattr(filled, name) for name in ("method", "layer_rates", "remove_initial_output", "sampling")}
    if filled.sampling == "conditional":
        options["rank_tolerance"] = filled.rank_tolerance
    descent: dict[str, Any] = {}
    if filled.method == "gradient_flow":
        options |= {"tolerance": filled.tolerance, "max_steps": filled.max_steps}
    else:
        descent = {"learning_rate": learning_rate}
        descent |= {"momentum": filled.momentum, "nesterov": filled.nesterov}
        options |= descent | {"batch_size": filled.batch_size, "loss": filled.loss, "weight_decay": filled.weight_decay}
    return Job(
        network=network, data=data, dtype=shard.dtype, device=chosen_device("cpu" if filled.is_on_cpu else shard.device),
        schedule=filled, options=options, objectives=both, descent=descent, relative_times=relative_times, times=times,
        limits=limits, ensemble=ensemble_moments(network, data, limits, times, filled, descent),
        checkpoint=Path(shard.output).parent / f".{Path(shard.output).stem}.{CHECKPOINT}",
    )  # fmt: skip
