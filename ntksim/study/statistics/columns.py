"""What is measured, each quantity declared once, and what every column of the tables means."""

import math
from typing import Literal, NamedTuple

Where = Literal["convergence", "drift", "lazy", "modes", "run", "parts"]


class Law(NamedTuple):
    """Exponents of the width that theory gives a quantity, NaN where it gives none.

    ``smooth`` and ``kinked`` are those of activations in ntk and notes, ``deep`` that of both with more than one hidden layer
    where it is another, ``rich`` that in mup and mean_field, and ``scaled`` in standard and abc, where time and rates scale
    with the width or any power of it.
    """

    smooth: float
    kinked: float
    deep: float | None = None
    rich: float = 0.0  # kernel and features move as much at every width (Yang & Hu 2021), and leave linearisation as far
    scaled: float = math.nan


class Quantity(NamedTuple):
    """Something that is measured of every seed.

    ``where``: the tables with statistics over seeds of it, ``convergence``, ``drift``, ``lazy``; ``modes``, where shards hold
    a list of it per run; ``run``, where they hold one value per run; ``parts``, where it takes all seeds (`drift_parts`). With a
    ``law`` it is in `scaling_laws`; ``statistic`` is that of `lazy`, ``words`` its name in the summary, if it is there. A
    ``share`` lies in [0, 1]. One that is called largest_x is the largest x along the run.
    """

    meaning: str
    where: tuple[Where, ...]
    law: Law | None = None
    statistic: Literal["mean", "median"] = "median"
    words: str | None = None
    share: bool = False


_LIMIT = Law(-0.5, -0.5, rich=-0.5, scaled=-0.5)  # the central limit theorem
_HALF = Law(-0.5, -0.5)
# Smooth: Dyer & Gur-Ari 2019, Huang & Yau 2020. With a kink a share m^(-1/2) of the gates flips: what is random in it moves the
# kernel by m^(-3/4), but flips on and off do not balance, since a neuron feels the residuals of the points for which it is on
# alone, and this systematic part goes like m^(-1/2), which wins in the end. The deviation from the linearised network follows
# (Lee et al. 2019 bound it by -1/2), and the kernel distance, quadratic in the angle, goes like the square.
_KERNEL = Law(-1.0, -0.5)

QUANTITIES = {
    "relative_frobenius_error": Quantity("||K_m - K_inf||_F / ||K_inf||_F", ("convergence",), _LIMIT),
    "relative_operator_error": Quantity("||K_m - K_inf||_2 / ||K_inf||_2", ("convergence",), _LIMIT),
    "smallest_eigenvalue": Quantity("of K_m, units of the kernel", ("convergence",)),
    "largest_eigenvalue": Quantity("of K_m, units of the kernel", ("convergence",)),
    "condition_number": Quantity(
        "largest over smallest eigenvalue of K_m; infinite where the precision does not tell that from 0", ("convergence",)
    ),
    "trace": Quantity("of K_m, units of the kernel", ("convergence",)),
    "kernel_drift": Quantity(
        "||K_t - K_0||_F / ||K_0||_F, of k outputs that of the whole kernels (n k, n k), and so the distance; with layer_rates "
        "of the kernels that training sees, sums over layers with their rates; in `layers` of the layer's part of the plain "
        "kernel, whose drift its rate leaves as it is", ("drift", "lazy"), _KERNEL, words="kernel drift",
    ),
    "systematic_kernel_drift": Quantity(
        "the norm of the mean over seeds of (K_T - K_0) / ||K_0||_F, without the bias of finitely many seeds", ("parts",),
        _KERNEL, words="its systematic part",
    ),
    "random_kernel_drift": Quantity(
        "the rms deviation from it: their squares add up to kernel_drift's", ("parts",), Law(-1.0, -0.75, rich=math.nan),
        words="its random part",
    ),
    "kernel_distance": Quantity(
        "1 - <K_t, K_0> / (||K_t||_F ||K_0||_F), between 0 and 1: blind to the kernel's size (Fort et al. 2020)",
        ("drift", "lazy"), Law(-2.0, -1.0),
    ),
    "parameter_drift": Quantity(
        "||theta_t - theta_0|| / ||theta_0||, of all parameters, or in `layers` of the layer's", ("drift", "lazy"),
        Law(-0.5, -0.5, deep=-1.0, rich=math.nan), words="parameter drift",
    ),
    "feature_drift": Quantity(
        "||h_t - h_0||_F / ||h_0||_F, h the last hidden layer's activations on training points", ("drift", "lazy"), _HALF
    ),
    "gates_flipped": Quantity(
        "share of pairs of a hidden neuron and a training point whose pre-activation changed sign since t = 0; NaN for the "
        "activation sin", ("drift", "lazy"), _HALF, share=True,
    ),
    "kernel_target_alignment": Quantity(
        "<K, YY'>_F / (||K||_F ||YY'||_F), y'Ky / (||K||_F ||y||^2) for one target; kernels of several outputs are summed, here "
        "and in the centred alignments", ("convergence", "drift"),
    ),
    "limit_alignment": Quantity("cosine of K_m and K_inf in the Frobenius inner product", ("convergence",)),
    "centred_kernel_target_alignment": Quantity(
        "kernel_target_alignment of the centred kernels H K H and H yy' H, H = I - 11'/n (Cortes et al. 2012)", ("drift",)
    ),
    "centred_alignment": Quantity("cosine of the centred K_t and K_0 (CKA)", ("drift",)),
    "effective_rank": Quantity(
        "exp of the entropy of K_t's eigenvalues over their sum, from 1 to n, or n k for k outputs", ("drift",)
    ),
    "loss_left": Quantity("loss at the end of training over that at t = 0", ("drift", "lazy")),
    "loss": Quantity("1/2 sum of squared residuals on training points, over all outputs", ("drift", "lazy"), statistic="mean"),
    "test_loss": Quantity("1/2 sum of squared residuals on test points", ("drift", "lazy"), statistic="mean"),
    "test_linearized_loss": Quantity("linearized_loss on test points", ("drift", "lazy"), statistic="mean"),
    "test_accuracy": Quantity(
        "share of test points whose class is told: by the sign of the output, or the largest of more than two; NaN where targets "
        "are no classes, and where outputs tell none, as at t = 0 with f - f_0 trained", ("drift", "lazy"), statistic="mean",
        share=True,
    ),
    "test_linearized_accuracy": Quantity(
        "test_accuracy of the network linearised at theta_0 under the same training", ("drift", "lazy"), statistic="mean",
        share=True,
    ),
    "test_limit_closed_form_accuracy": Quantity(
        "test_accuracy of the same training with the constant kernel K_inf", ("drift", "lazy"), statistic="mean", share=True
    ),
    "initial_kernel_regression_test_loss": Quantity(
        "test loss of kernel regression, K(x*, X) (K + ridge)^-1 y, with K_0; ridgeless unless training.ridge is set, on the "
        "eigenvectors that the precision tells from the null space", ("run", "drift", "lazy"), statistic="mean"
    ),
    "after_kernel_regression_test_loss": Quantity(
        "initial_kernel_regression_test_loss with the kernel after training in place of K_0", ("run", "drift", "lazy"),
        statistic="mean",
    ),
    "limit_kernel_regression_test_loss": Quantity(
        "initial_kernel_regression_test_loss with K_inf in place of K_0", ("run", "drift", "lazy"), statistic="mean"
    ),
    "relative_linearized_deviation": Quantity(
        "the larger of largest_linearized_deviation and largest_test_linearized_deviation, in units of the root mean square of "
        "the training targets", ("drift", "lazy"), _KERNEL, words="distance from the linearised network, in units of the targets",
    ),
    "largest_linearized_deviation": Quantity("the largest linearized_deviation of the run", ("drift", "lazy"), _KERNEL),
    "largest_test_linearized_deviation": Quantity("the largest test_linearized_deviation of the run", ("drift", "lazy"), _KERNEL),
    "largest_limit_closed_form_deviation": Quantity(
        "the largest limit_closed_form_deviation of the run", ("drift",), Law(-0.5, -0.5, rich=math.nan)
    ),
    "eigenvalue": Quantity(
        "of K_0, as a rate of training (times n^(-c) in abc parameterizations, layer rates included); null where the precision "
        "does not tell it from 0: no larger than e min(n lambda_max, 2 tr K), e the precision's relative error", ("modes",),
    ),
    "after_eigenvalue": Quantity(
        "the eigenvalue of the same index of the kernel after training, as a rate; null where it is not told from 0", ("modes",)
    ),
    "initial_share": Quantity("of the squared norm of the residual at t = 0 that lies along the eigenvector of K_0", ("modes",)),
    "decay_rate": Quantity(
        "fitted to the residual along the eigenvector of K_0 while it is above the noise and other modes add less than a tenth "
        "to its change (measures.MIXING); NaN where that leaves fewer than two snapshots or less change than noise, and where "
        "the mode oscillates under momentum", ("modes",),
    ),
}  # fmt: skip


def quantities(where: Where) -> tuple[str, ...]:
    """The names of the quantities that are there (`Quantity.where`), in their order."""
    return tuple(name for name, quantity in QUANTITIES.items() if where in quantity.where)


# What a shard holds a list of in every row, a number a layer, and its name in `layers`.
LAYERS = {"layer_drift": "parameter_drift", "layer_kernel_drift": "kernel_drift"}

# What lets more seeds finish, by the status of those that did not.
REMEDIES = {
    "diverged": "in gradient descent lower relative_learning_rate; in gradient flow raise tolerance, or set precision to float64",
    "step_limit": "raise max_steps or tolerance, or lower relative_time",
    "overflow": "set precision to float64, or lower sigma_w, sigma_a and output_scale",
    "nan": "set precision to float64, or lower sigma_w, sigma_a and output_scale",
    "eigensolver_failed": "set precision to float64",
}

# Units and meaning of every column, kept in the Parquet schema.
COLUMNS = {
    "network": "name of the network in the configuration",
    "activation": "activation of the hidden layers",
    "depth": "number of hidden layers",
    "parameterization": "where the 1/sqrt(width) stands",
    "width": "neurons per hidden layer",
    "seed": "seed of the network",
    "quantity": "the column of the per-seed table that is summarised",
    "count": "seeds in the statistics",
    "excluded": "seeds left out (of all widths in scaling_laws): they did not finish (see status), or the value is not finite",
    "excluded_share": "excluded over all seeds; in scaling_laws at the width with the largest share",
    "marked": "true where excluded_share is above 0.1: seeds that stop early are often those that move most, and without them "
    "the statistic is biased",
    "earliest_stop": "relative_time up to which there are numbers of the first of the seeds that did not finish; NaN if all did",
    "latest_stop": "relative_time up to which there are numbers of the last of the seeds that did not finish; NaN if all did",
    "time_reached": "where a seed's training ended: the end of training if it finished, the last accepted step of a flow that "
    "stopped, else the last snapshot's time up to which there are numbers",
    "relative_time_reached": "time_reached times lambda_max(K_inf)",
    "mean": "over seeds; NaN for the parts of the kernel drift, which no single seed has",
    "root_mean_square": "; ".join(["over seeds", *(f"of {name} {QUANTITIES[name].meaning}" for name in quantities("parts"))]),
    "exact_root_mean_square": "what the exact law of one hidden layer gives for the root mean square; NaN where none is known",
    "standard_deviation": "over seeds, n - 1 in the denominator",
    "standard_error": "of the mean; by the jackknife over 5 seeds at least of the exponent and of the random part of the kernel "
    "drift; of its systematic part the interval's length over twice Student's quantile",
    "interval_low": "95% interval of the mean, the exponent, or a part of the kernel drift (docs/statistics.md)",
    "interval_high": "95% interval of the mean, the exponent, or a part of the kernel drift (docs/statistics.md)",
    "root_mean_square_low": "95% interval of the root mean square, of 5 seeds at least (docs/statistics.md)",
    "root_mean_square_high": "95% interval of the root mean square, of 5 seeds at least (docs/statistics.md)",
    "time": "t of the flow, or learning rate x steps; units of 1 / eigenvalue of the kernel",
    "relative_time": "t times lambda_max(K_inf)",
    "sliding_gates": "pairs of a hidden neuron and a training point that gradient flow holds at a pre-activation of 0, where the "
    "slope of the activation is the one that holds them; NaN in gradient descent",
    "kernel_velocity": "kernel distance from the snapshot before, per unit of time; NaN at t = 0",
    "layer": "1 for the first hidden layer's weights and biases, depth + 1 for the readout's",
    "linearized_loss": "loss of the network linearised at theta_0 under the same training; (I - eta K_0)^k for descent, what "
    "momentum makes of it, and for batches that of all points at once",
    "closed_form_loss": "loss of gradient flow with the constant kernel K_0, e^(-K_0 t), from the network's own f_0; under "
    "momentum mu at t / (1 - mu)",
    "limit_closed_form_loss": "loss of the same training with the constant kernel K_inf, from the network's own f_0: "
    "e^(-K_inf t), or the steps of descent; for batches that of all points at once",
    "ensemble_loss": "expected loss of the same training over infinitely wide networks: that of their mean plus half the sum of "
    "their variances (Lee et al. 2019); for batches that of all points at once",
    "test_closed_form_accuracy": "test_accuracy of gradient flow with the constant kernel K_0",
    "test_closed_form_loss": "closed_form_loss on test points",
    "test_limit_closed_form_loss": "limit_closed_form_loss on test points",
    "test_ensemble_loss": "ensemble_loss on test points",
    "linearized_deviation": "root mean square over training points, and outputs, of f_t minus the linearised network",
    "closed_form_deviation": "root mean square over training points of f_t minus e^(-K_0 t)",
    "limit_closed_form_deviation": "root mean square over training points of f_t minus the same training with K_inf",
    "test_linearized_deviation": "linearized_deviation over test points",
    "test_closed_form_deviation": "closed_form_deviation over test points",
    "test_limit_closed_form_deviation": "limit_closed_form_deviation over test points",
    "points": "train or test: those over which the row's means are taken",
    "limit_mean": "root mean square of mu, the mean of f_t over infinitely wide networks under the same training (Lee et al. "
    "2019; for batches, that of all points at once): what mean_difference is to be measured by",
    "mean_difference": "root mean square of the mean of f_t over seeds less mu, without the bias of finitely many seeds; 0 where "
    "it is lost in their scatter",
    "mean_difference_error": "standard error of mean_difference, of 5 seeds at least: its interval's length over twice Student's "
    "quantile",
    "mean_difference_low": "95% interval of mean_difference, of 5 seeds at least (docs/statistics.md)",
    "mean_difference_high": "95% interval of mean_difference, of 5 seeds at least (docs/statistics.md)",
    "limit_variance": "mean variance of f_t over infinitely wide networks; 0 where f_0 is removed",
    "variance": "mean variance of f_t over seeds, n - 1 in the denominator",
    "variance_error": "standard error of variance, by the jackknife over 5 seeds at least",
    "variance_low": "95% interval of variance, of 5 seeds at least (docs/statistics.md)",
    "variance_high": "95% interval of variance, of 5 seeds at least (docs/statistics.md)",
    "status": "of the whole run: finished; overflow or nan: a value is infinite or NaN; eigensolver_failed; in training also "
    "diverged, or step_limit (see Trajectory). What to change: "
    + "; ".join(f"{status}: {remedy}" for status, remedy in REMEDIES.items()),
    "widths_fitted": "widths in the fit",
    "prefactor": "c in c x width^exponent, fitted to the root mean square over seeds",
    "prefactor_low": "95% interval of the prefactor, of 5 seeds at least (docs/statistics.md)",
    "prefactor_high": "95% interval of the prefactor, of 5 seeds at least (docs/statistics.md)",
    "exponent": "of the width, least squares in logarithms",
    "theory_exponent": "of the width as it grows, for this activation, depth and parameterization; NaN where theory gives none. "
    "Where gates flip (relu, leaky_relu, abs) movement at finite widths has steeper parts beside it (-3/4, -1)",
    "z_score": "(exponent - theory_exponent) / standard_error: with steeper parts in it no test of the asymptotic exponent",
    "index": "0 for the largest eigenvalue; in training of k outputs there are n k",
    "limit_eigenvalue": "of K_inf, units of the kernel",
    "relative_rate_difference": "(decay_rate - eigenvalue) / eigenvalue: 0 under a constant kernel, but for finite steps of "
    "descent, and for batches, whose noise leaves a floor under the residual",
    "family": "name of the network in the configuration, without the output scale where several are given",
    "output_scale": "factor alpha of the output",
    "scaled_width": "sqrt(width) x output_scale, the variable of the crossover from rich to lazy in ntk and notes (Geiger et "
    "al. 2020); NaN in other parameterizations",
    "verdict": "rich, untrained or lazy: more than half of the seeds are; else between; undecided: more than a quarter of the "
    "seeds did not finish; none: no seed did. In `lazy` what moved, and the loss left, are medians over seeds, losses and "
    "accuracies means",
    "rich_share": "share of the seeds whose kernel drift is 1 or more",
    "untrained_share": "share of the seeds that are not rich and have more than half of their loss left (loss_left above 0.5)",
    "lazy_share": "share of the seeds that are neither, and whose kernel drift and, but for batches, "
    "relative_linearized_deviation are below 0.1",
} | {name: quantity.meaning for name, quantity in QUANTITIES.items() if name not in quantities("parts")}
