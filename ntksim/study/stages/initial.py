"""What the rules of the workflow run at initialisation: functions of paths and values.

A file carries what it was computed from (`identity`), and a stage reads no file that was computed from something else.
"""

import numpy as np

from ntksim.engine.training.train import train
from ntksim.study.data import files
from ntksim.study.stages.kernels import write_kernels
from ntksim.study.stages.limit import limit
from ntksim.study.stages.shard import ShardJob

__all__ = ["first_step_changes", "initial_shard", "limit"]


def initial_shard(job: ShardJob, sampling: str = "weights", first_step: float | None = None) -> None:
    """Write the statistics of empirical kernels at initialisation, a row per seed, with their eigenvalues, their relative
    difference from the limit, and a status; ``sampling`` is that of `empirical_ntk`.

    With ``first_step`` also the kernels' diagonals, and their relative change by one step of gradient descent at this learning
    rate, in units of 1 / lambda_max of the limit.
    """
    write_kernels(job, sampling, first_step, first_step_changes)


def first_step_changes(job: ShardJob, data: files.Data, reference: np.ndarray, sampling: str, relative_rate: float) -> np.ndarray:
    """||K_1 - K_0||_F / ||K_0||_F (S,) after one step of full-batch gradient descent of one output, on its targets.

    The learning rate is ``relative_rate`` / lambda_max of the limit's kernel ``reference``, that of training.
    """
    rate = relative_rate / (job.network.learning_rate_scale * float(np.linalg.eigvalsh(reference)[-1]))
    y = data.y_train if data.y_train.ndim == 1 else data.y_train[:, 0]
    device = "cpu" if sampling == "conditional" else job.device
    run = train(
        job.network, data.x_train, y, seeds=job.seeds, method="gradient_descent", learning_rate=rate, times=[0.0, rate],
        sampling=sampling, dtype=job.dtype, device=device,
    )  # fmt: skip
    return run.kernel_drift[:, -1]
