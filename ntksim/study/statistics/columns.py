"""The measured quantities, each declared once, and the meaning of every column of the tables."""

import math
from typing import Literal, NamedTuple

from ntksim.study.config.network import NetworkOptions

Where = Literal["convergence", "drift", "lazy", "modes", "run", "parts", "error_parts"]


class Law(NamedTuple):
    """Exponents of the width that theory predicts for a quantity; NaN if it predicts none.

    ``smooth`` and ``kinked`` hold for smooth and kinked activations in the ntk and notes parameterizations. ``deep`` replaces
    both with more than one hidden layer, if it differs. ``rich`` holds in mup and mean_field. ``scaled`` holds in standard and
    abc, in which time and learning rates scale with a power of the width.
    """

    smooth: float
    kinked: float
    deep: float | None = None
    # kernel, features and distance from the linearised network are of the same order at every width (Yang & Hu 2021)
    rich: float = 0.0
    scaled: float = math.nan


class Quantity(NamedTuple):
    """A quantity that is measured for every seed. If its name is largest_x, it is the largest value of x during the run.

    ``meaning``: the description of its column. ``where``: the tables with statistics of it over seeds (``convergence``,
    ``drift``, ``lazy``), and in which form shards hold it: ``modes``, a list per run; ``run``, one value per run; ``parts`` and
    ``error_parts``, not in shards, since they need all seeds (`drift_parts`). ``law``: theory's exponents; quantities with a law
    are in `scaling_laws`. ``statistic``: the statistic over seeds in `lazy`. ``words``: its name in the summary, if it appears
    there. ``share``: whether it lies in [0, 1].
    """

    meaning: str
    where: tuple[Where, ...]
    law: Law | None = None
    statistic: Literal["mean", "median"] = "median"
    words: str | None = None
    share: bool = False


_LIMIT = Law(-0.5, -0.5, rich=-0.5, scaled=-0.5)  # the central limit theorem
_HALF = Law(-0.5, -0.5)
# Smooth activations: Dyer & Gur-Ari 2019, Huang & Yau 2020. With a kinked activation a share m^(-1/2) of the gates flips. Which
# gates flip is random, and this moves the kernel by m^(-3/4). But opening and closing do not balance, since a neuron receives the
# residuals of only those points at which it is on. This moves the kernel systematically by m^(-1/2), which dominates at large
# widths. The distance from the linearised network has the same exponents (Lee et al. 2019 prove a bound of -1/2). The kernel
# distance is quadratic in the angle between kernels, so its exponents are doubled.
_KERNEL = Law(-1.0, -0.5)

QUANTITIES = {
    "relative_frobenius_error": Quantity("||K_m - K_inf||_F / ||K_inf||_F", ("convergence",), _LIMIT),
    "relative_frobenius_bias": Quantity(
        "||E K_m - K_inf||_F / ||K_inf||_F: the norm of the mean over seeds, whose square is freed of the scatter's share of it, "
        "scatter squared over the number of seeds; 0 where it is lost in the scatter, and in theory for one hidden layer",
        ("error_parts",), Law(-1.0, -1.0, rich=-1.0, scaled=-1.0), words="bias",
    ),
    "relative_frobenius_scatter": Quantity(
        "rms deviation of K_m from its mean over seeds, over ||K_inf||_F: its square and the bias's add up to that of "
        "relative_frobenius_error", ("error_parts",), _LIMIT, words="scatter",
    ),
    "relative_operator_error": Quantity("||K_m - K_inf||_2 / ||K_inf||_2", ("convergence",), _LIMIT),
    "smallest_eigenvalue": Quantity("smallest eigenvalue of K_m, in units of the kernel", ("convergence",)),
    "largest_eigenvalue": Quantity("largest eigenvalue of K_m, in units of the kernel", ("convergence",)),
    "condition_number": Quantity(
        "largest over smallest eigenvalue of K_m; infinite if the smallest is 0 to the precision", ("convergence",)
    ),
    "trace": Quantity("trace of K_m, in units of the kernel", ("convergence",)),
    "kernel_drift": Quantity(
        "||K_t - K_0||_F / ||K_0||_F. With k outputs this is the drift of the whole kernel (n k, n k). With layer_rates it is "
        "the drift of the kernel that training sees, the sum over layers weighted by their rates. In `layers` it is the drift of "
        "the layer's part of the plain kernel, which does not depend on the layer's rate", ("drift", "lazy"), _KERNEL,
        words="kernel drift",
    ),
    "systematic_kernel_drift": Quantity(
        "norm of the mean over seeds of (K_T - K_0) / ||K_0||_F, without the bias of a finite number of seeds", ("parts",),
        _KERNEL, words="its systematic part",
    ),
    "random_kernel_drift": Quantity(
        "root mean square deviation of (K_T - K_0) / ||K_0||_F from its mean over seeds; the squares of the two parts add up to "
        "the mean square of kernel_drift", ("parts",), Law(-1.0, -0.75, rich=math.nan), words="its random part",
    ),
    "kernel_distance": Quantity(
        "1 - <K_t, K_0> / (||K_t||_F ||K_0||_F), between 0 and 1; does not depend on the size of the kernels (Fort et al. 2020)",
        ("drift", "lazy"), Law(-2.0, -1.0),
    ),
    "parameter_drift": Quantity(
        "||theta_t - theta_0|| / ||theta_0|| over all parameters, or in `layers` over the layer's parameters", ("drift", "lazy"),
        Law(-0.5, -0.5, deep=-1.0, rich=math.nan), words="parameter drift",
    ),
    "feature_drift": Quantity(
        "||h_t - h_0||_F / ||h_0||_F, where h are the last hidden layer's activations on the training points", ("drift", "lazy"),
        _HALF,
    ),
    "gates_flipped": Quantity(
        "share of pairs of a hidden neuron and a training point whose pre-activation has changed sign since t = 0; missing for "
        "sin, cos, gaussian and activations of your own without a gate", ("drift", "lazy"), _HALF, share=True,
    ),
    "kernel_target_alignment": Quantity(
        "<K, YY'>_F / (||K||_F ||YY'||_F), for one target y'Ky / (||K||_F ||y||^2). With several outputs K is summed over them, "
        "here and in the centred alignments", ("convergence", "drift"),
    ),
    "limit_alignment": Quantity("cosine of K_m and K_inf in the Frobenius inner product", ("convergence",)),
    "centred_kernel_target_alignment": Quantity(
        "kernel_target_alignment of the centred kernels H K H and H yy' H, H = I - 11'/n (Cortes et al. 2012)", ("drift",)
    ),
    "centred_alignment": Quantity("cosine of the centred K_t and the centred K_0 (CKA)", ("drift",)),
    "effective_rank": Quantity(
        "exponential of the entropy of K_t's eigenvalues divided by their sum; from 1 to n, or to n k with k outputs", ("drift",)
    ),
    "loss_left": Quantity("loss at the end of training, divided by the loss at t = 0", ("drift", "lazy")),
    "loss": Quantity(
        "the loss that training.loss names, without weight decay: 1/2 sum of squared residuals over training points and outputs, "
        "unless it names another", ("drift", "lazy"), statistic="mean",
    ),
    "test_loss": Quantity(
        "the same loss on test points: 1/2 sum of squared residuals, unless training.loss names another; of a mean the mean over "
        "test points", ("drift", "lazy"), statistic="mean",
    ),
    "test_linearized_loss": Quantity("linearized_loss on test points", ("drift", "lazy"), statistic="mean"),
    "test_accuracy": Quantity(
        "share of test points that are classified correctly, by the sign of the output, or by the largest of several outputs. "
        "Missing if the targets are not classes, or if the outputs prefer no class, as at t = 0 when f - f_0 is trained",
        ("drift", "lazy"), statistic="mean", share=True,
    ),
    "test_linearized_accuracy": Quantity(
        "test_accuracy of the network linearised at theta_0, under the same training", ("drift", "lazy"), statistic="mean",
        share=True,
    ),
    "test_limit_closed_form_accuracy": Quantity(
        "test_accuracy of the same training with the constant kernel K_inf", ("drift", "lazy"), statistic="mean", share=True
    ),
    "initial_kernel_regression_test_loss": Quantity(
        "test loss of kernel regression K(x*, X) (K + ridge)^-1 y with K_0. The ridge is training.ridge, or else 0; then only "
        "the eigenvectors with an eigenvalue that is distinguishable from 0 in the precision are used. It is by least squares: "
        "missing under logistic and softmax losses", ("run", "drift", "lazy"), statistic="mean",
    ),
    "after_kernel_regression_test_loss": Quantity(
        "as initial_kernel_regression_test_loss, with the kernel after training instead of K_0", ("run", "drift", "lazy"),
        statistic="mean",
    ),
    "limit_kernel_regression_test_loss": Quantity(
        "as initial_kernel_regression_test_loss, with K_inf instead of K_0", ("run", "drift", "lazy"), statistic="mean"
    ),
    "relative_linearized_deviation": Quantity(
        "the larger of largest_linearized_deviation and largest_test_linearized_deviation, divided by the root mean square of "
        "the training targets, or under logistic and softmax losses by 1; missing where linearized_loss is",
        ("drift", "lazy"), _KERNEL,
        words="distance from the linearised network, in units of the targets",
    ),
    "largest_linearized_deviation": Quantity("largest linearized_deviation during the run", ("drift", "lazy"), _KERNEL),
    "largest_test_linearized_deviation": Quantity(
        "largest test_linearized_deviation during the run", ("drift", "lazy"), _KERNEL
    ),
    "largest_limit_closed_form_deviation": Quantity(
        "largest limit_closed_form_deviation during the run", ("drift",), Law(-0.5, -0.5, rich=math.nan)
    ),
    "eigenvalue": Quantity(
        "eigenvalue of K_0 as a rate of training (with layer rates, times n^(-c) in abc parameterizations, and of a mean loss "
        "times its factor, as 2/N of the mean of squares); missing if it is indistinguishable from 0: at most "
        "e min(n lambda_max, 2 tr K), where e is the precision's relative error", ("modes",),
    ),
    "after_eigenvalue": Quantity(
        "eigenvalue of the same index of the kernel after training, as a rate; missing if indistinguishable from 0", ("modes",)
    ),
    "initial_share": Quantity(
        "share of the squared norm of the residual at t = 0 along the eigenvector of K_0; missing under logistic and softmax "
        "losses", ("modes",),
    ),
    "decay_rate": Quantity(
        "rate at which the residual along the eigenvector of K_0 decays. It is fitted while this residual is above the noise and "
        "other modes contribute less than a tenth to its change (measures.MIXING). Missing if this leaves fewer than two "
        "snapshots or less change than noise, if the mode oscillates under momentum, with weight decay, and under logistic and "
        "softmax losses", ("modes",),
    ),
}  # fmt: skip


def quantities(where: Where) -> tuple[str, ...]:
    """Names of the quantities that have ``where`` in their `Quantity.where`, in the order of `QUANTITIES`."""
    return tuple(name for name, quantity in QUANTITIES.items() if where in quantity.where)


_PARTS = (*quantities("error_parts"), *quantities("parts"))  # no columns: single seeds do not have them

# Columns of a shard that hold a list in every row, with a number for each layer, and their names in the table `layers`.
LAYERS = {"layer_drift": "parameter_drift", "layer_kernel_drift": "kernel_drift"}

# Advice on how to let more seeds finish, by the status of those that did not.
REMEDIES = {
    "diverged": "in gradient descent lower relative_learning_rate (or learning_rate); in gradient flow set precision to float64",
    "stalled": "raise tolerance, set precision to float64, or raise sigma_w and sigma_a",
    "step_limit": "raise max_steps or tolerance, or lower relative_time or time",
    "overflow": "set precision to float64, or lower sigma_w, sigma_a and output_scale",
    "nan": "set precision to float64, or lower sigma_w, sigma_a and output_scale",
    "eigensolver_failed": "set precision to float64",
}

# Meaning and units of every column; stored in the Parquet schema.
COLUMNS = {
    "network": "name of the network in the configuration, with its values of the keys that have lists there",
    "activation": "activation of the hidden layers",
    "depth": "number of hidden layers",
    "parameterization": "powers of the width in weights, biases and learning rates: ntk, notes, standard, mup, mean_field or abc",
    "sampling": "how networks are drawn: weights, or conditional (networks in law). One seed is another network in each: rows of "
    "unlike sampling must not be joined by seed. Nor must conditional rows at initialisation and in training: a network in law "
    "depends on all that it is asked for",
    "train_points": "number of training points, an axis if dataset.train is a list",
    "dataset_seed": "seed of the choice of points, an axis if dataset.seed is a list",
    "width": "neurons per hidden layer",
    "seed": "seed of the network",
    "quantity": "quantity that the row summarises: a column of the table per seed",
    "count": "number of seeds in the statistics",
    "excluded": "number of seeds left out (in scaling_laws at all widths together), since they did not finish (see status) or "
    "their value is not finite",
    "excluded_share": "excluded divided by the number of all seeds; in scaling_laws at the width where this share is largest",
    "marked": "true if excluded_share is above 0.1: seeds that stop early are often those that move most, and without them "
    "the statistic is biased",
    "earliest_stop": "relative_time_reached of the seed that stopped first; missing if all seeds finished",
    "latest_stop": "relative_time_reached of the seed that stopped last; missing if all seeds finished",
    "time_reached": "time at which a seed's training ended: the end of training if it finished, the last accepted step of a flow "
    "that stopped, otherwise the last snapshot up to which all numbers are finite",
    "relative_time_reached": "time_reached times lambda_max(K_inf)",
    "mean": "mean over seeds; missing for bias, scatter and the parts of the kernel drift, since single seeds do not have them",
    "root_mean_square": "; ".join(
        ["root mean square over seeds", *(f"for {name}: {QUANTITIES[name].meaning}" for name in _PARTS)]
    ),
    "exact_root_mean_square": "root mean square by the exact law for one hidden layer; missing if no exact law is known",
    "standard_deviation": "standard deviation over seeds, n - 1 in the denominator",
    "standard_error": "standard error of the mean. For the exponent, and for the random part of the kernel drift, it is that of "
    "the jackknife, with at least 5 seeds. For the systematic part it is the interval's length over twice Student's quantile",
    "interval_low": "lower end of the 95% interval of the mean, the exponent or a part of the kernel drift (docs/statistics.md)",
    "interval_high": "upper end of the 95% interval of the mean, the exponent or a part of the kernel drift (docs/statistics.md)",
    "root_mean_square_low": "lower end of the 95% interval of the root mean square, with at least 5 seeds (docs/statistics.md)",
    "root_mean_square_high": "upper end of the 95% interval of the root mean square, with at least 5 seeds (docs/statistics.md)",
    "time": "time t of gradient flow, or learning rate x steps; in units of 1 / eigenvalue of the kernel. Under another loss "
    "than the squared one it is of that loss, whose gradient the learning rate multiplies",
    "relative_time": "t times lambda_max(K_inf), and under another loss than the squared one times the bound c on its second "
    "derivative in the outputs: 2/N and 1/n of the means of squares, 1/4 of logistic and 1/2 of softmax sums, over N or n for "
    "their means",
    "mean_square_time": "time of the same training on the mean square (1/N) sum r^2 over N = points x outputs: N/2 times that on "
    "1/2 sum r^2, which is N/2 times time for squared, time itself for mean_squared, and k/2 times time for half_mean_squared "
    "with k outputs. Missing under logistic and softmax losses",
    "steps": "number of steps of gradient descent, or of gradient flow time / learning rate where there is one, or missing",
    "learning_rate": "learning rate of gradient descent on the loss that `time` is of, 1/2 sum r^2 unless training.loss names "
    "another: time is learning_rate x steps. Of gradient flow that which counts its steps; missing where there is none",
    "mean_square_learning_rate": "learning rate of the same training on the mean square (1/N) sum r^2, as mean_square_time is "
    "its time; missing likewise",
    "sliding_gates": "number of pairs of a hidden neuron and a training point that gradient flow holds at a pre-activation of 0, "
    "where the slope of the activation is the one that holds it; missing in gradient descent",
    "rank": "directions of a hidden matrix that a network in law has revealed by the end of the run, the most over matrices and "
    "sides, in the row of the last time; missing in other rows, and with sampling weights",
    "kernel_velocity": "kernel distance from the previous snapshot, per unit of time; missing at t = 0",
    "layer": "1 for the first hidden layer's weights and biases, ..., depth + 1 for those of the readout",
    "linearized_loss": "loss of the network linearised at theta_0 under the same training: (I - eta K_0)^k for gradient descent, "
    "and the corresponding formula with momentum, or these steps on a logistic or softmax loss, and with weight decay, which "
    "moves it along J_0 theta_0 too. For batches it is computed with the full batch. Missing, as all that is linearized, with "
    "weight decay where layers that train have several rates",
    "closed_form_loss": "loss of gradient flow with the constant kernel K_0, e^(-K_0 t), from the network's f_0; with momentum "
    "mu at time t / (1 - mu). Missing, as all that is of the closed form, under logistic and softmax losses, which have none, "
    "and with weight decay",
    "limit_closed_form_loss": "loss of the same training with the constant kernel K_inf, from the network's f_0: e^(-K_inf t), "
    "or the steps of gradient descent, one by one on a logistic or softmax loss, and with weight decay, which has the network's "
    "own J_0 theta_0. For batches it is computed with the full batch. Missing where linearized_loss is",
    "ensemble_loss": "expected loss of the same training over infinitely wide networks: the loss of their mean plus half the sum "
    "of their variances, times the factor of a mean (Lee et al. 2019). For batches it is computed with the full batch. Missing, "
    "as the moments in `ensemble`, under logistic and softmax losses, and with weight decay",
    "test_closed_form_accuracy": "test_accuracy of gradient flow with the constant kernel K_0",
    "test_closed_form_loss": "closed_form_loss on test points",
    "test_limit_closed_form_loss": "limit_closed_form_loss on test points",
    "test_ensemble_loss": "ensemble_loss on test points",
    "linearized_deviation": "root mean square, over training points and outputs, of f_t minus the linearised network's output",
    "closed_form_deviation": "root mean square, over training points and outputs, of f_t minus the output of gradient flow with "
    "the constant kernel K_0",
    "limit_closed_form_deviation": "root mean square, over training points and outputs, of f_t minus the output of the same "
    "training with the constant kernel K_inf",
    "test_linearized_deviation": "linearized_deviation over test points",
    "test_closed_form_deviation": "closed_form_deviation over test points",
    "test_limit_closed_form_deviation": "limit_closed_form_deviation over test points",
    "points": "train or test: the points over which the means in this row are taken",
    "limit_mean": "root mean square of mu, the mean of f_t over infinitely wide networks under the same training (Lee et al. "
    "2019; for batches with the full batch): a scale to compare mean_difference with. Missing, as all of theory here, under "
    "logistic and softmax losses, and with weight decay",
    "mean_difference": "root mean square of the mean of f_t over seeds minus mu, without the bias of a finite number of seeds; 0 "
    "if it is indistinguishable from the scatter, and missing where mu is",
    "mean_difference_error": "standard error of mean_difference, with at least 5 seeds: the interval's length over twice "
    "Student's quantile",
    "mean_difference_low": "lower end of the 95% interval of mean_difference, with at least 5 seeds (docs/statistics.md)",
    "mean_difference_high": "upper end of the 95% interval of mean_difference, with at least 5 seeds (docs/statistics.md)",
    "limit_variance": "mean variance of f_t over infinitely wide networks; 0 if f - f_0 is trained",
    "variance": "mean variance of f_t over seeds, n - 1 in the denominator",
    "variance_error": "standard error of variance, by the jackknife over at least 5 seeds",
    "variance_low": "lower end of the 95% interval of variance, with at least 5 seeds (docs/statistics.md)",
    "variance_high": "upper end of the 95% interval of variance, with at least 5 seeds (docs/statistics.md)",
    "status": "how the whole run ended: finished; overflow or nan (a value is infinite or NaN); eigensolver_failed; in training "
    "also diverged, step_limit (gradient flow reached its largest number of steps), or stalled (its steps became too short "
    "to move time). What to change: " + "; ".join(f"{status}: {remedy}" for status, remedy in REMEDIES.items()),
    "along": "variable of the law: width; train, the number of training points, at the width in this row; or depth_over_width, "
    "for networks that are equal but for their depth",
    "averaged_over": "seeds: the law of one data set. seeds and data sets: of the average over all seeds of the data too, whose "
    "dataset_seed is missing; the interval then counts how data sets differ (docs/statistics.md)",
    "widths_fitted": "number of widths in the fit; along train of training sets, along depth_over_width of networks and widths",
    "prefactor": "c in c x width^exponent (or of the variable in `along`), fitted to the root mean square over seeds, along "
    "train to the mean of losses, and of kernel_dispersion_minus_1 and first_step_change to the values of table dispersion",
    "prefactor_low": "lower end of the 95% interval of the prefactor, with at least 5 seeds (docs/statistics.md)",
    "prefactor_high": "upper end of the 95% interval of the prefactor, with at least 5 seeds (docs/statistics.md)",
    "exponent": "exponent of the width, or of the variable in `along`, by least squares in logarithms",
    "theory_exponent": "theory's exponent of the width, for large widths and this activation, depth and parameterization; "
    "missing if theory gives none, as for movement in training with weight decay. For activations with a kink, such as ReLU, "
    "movement at finite widths also has steeper parts (-3/4, -1)",
    "z_score": "(exponent - theory_exponent) / standard_error; not a test of theory if movement also has steeper parts",
    "index": "index of the eigenvalue, 0 for the largest; in training with k outputs there are n k eigenvalues",
    "limit_eigenvalue": "eigenvalue of K_inf, in units of the kernel",
    "relative_rate_difference": "(decay_rate - eigenvalue) / eigenvalue. A constant kernel gives 0, except for the finite steps "
    "of gradient descent, and for batches, whose noise keeps the residual from vanishing. Missing where decay_rate is",
    "family": "name of the network, without the suffix of its output scale if several scales are given",
    "scaled_width": "sqrt(width) x output_scale, the variable of the crossover from rich to lazy in ntk and notes (Geiger et "
    "al. 2020); missing in other parameterizations",
    "verdict": "rich, untrained or lazy if more than half of the seeds are; otherwise between. undecided: more than a quarter of "
    "the seeds did not finish; none: no seed did. In the table `lazy` losses and accuracies are means over seeds; measures of "
    "movement and loss_left are medians",
    "rich_share": "share of seeds whose kernel drift is 1 or more",
    "untrained_share": "share of seeds that are not rich and have more than half of their loss left (loss_left above 0.5)",
    "lazy_share": "share of seeds that are neither rich nor untrained, and whose kernel drift is below 0.1, and, unless training "
    "uses batches, also relative_linearized_deviation, where it is known",
} | {name: quantity.meaning for name, quantity in QUANTITIES.items() if name not in _PARTS}
COLUMNS = {name: str(field.description) for name, field in NetworkOptions.model_fields.items()} | COLUMNS
