"""Quantities that tables summarise, and what each column means."""

INITIAL_QUANTITIES = (
    "relative_frobenius_error",
    "relative_operator_error",
    "smallest_eigenvalue",
    "largest_eigenvalue",
    "condition_number",
    "trace",
    "kernel_target_alignment",
    "limit_alignment",
)
# What stands in a training shard in the row of the last time: of the whole run.
LAST = ("initial_kernel_regression_test_loss", "after_kernel_regression_test_loss", "limit_kernel_regression_test_loss")
MODES = {"eigenvalues": "eigenvalue", "after_eigenvalues": "after_eigenvalue", "decay_rates": "decay_rate"}
LARGEST = ("linearized_deviation", "test_linearized_deviation", "limit_closed_form_deviation")
DRIFT_QUANTITIES = (
    "kernel_drift",
    "kernel_distance",
    "parameter_drift",
    "feature_drift",
    "gates_flipped",
    "kernel_target_alignment",
    "centred_kernel_target_alignment",
    "centred_alignment",
    "effective_rank",
    "loss",
    "test_loss",
    "test_linearized_loss",
    "test_accuracy",
    "test_linearized_accuracy",
    "test_limit_closed_form_accuracy",
    *LAST,
    *(f"largest_{name}" for name in LARGEST),
)

# Units and meaning of every column, kept in the Parquet schema.
COLUMNS = {
    "network": "name of the network in the configuration",
    "activation": "activation of the hidden layers",
    "depth": "number of hidden layers",
    "parameterization": "where the 1/sqrt(width) stands",
    "width": "neurons per hidden layer",
    "seed": "seed of the network",
    "relative_frobenius_error": "||K_m - K_inf||_F / ||K_inf||_F",
    "relative_operator_error": "||K_m - K_inf||_2 / ||K_inf||_2",
    "smallest_eigenvalue": "of K_m, units of the kernel",
    "largest_eigenvalue": "of K_m, units of the kernel",
    "condition_number": "largest over smallest eigenvalue of K_m",
    "trace": "of K_m, units of the kernel",
    "kernel_target_alignment": "<K, YY'>_F / (||K||_F ||YY'||_F), y'Ky / (||K||_F ||y||^2) for one target; kernels of several "
    "outputs are summed, here and in the centred alignments",
    "limit_alignment": "cosine of K_m and K_inf in the Frobenius inner product",
    "quantity": "the column of the per-seed table that is summarised",
    "count": "seeds in the statistics",
    "excluded": "seeds left out (of all widths in scaling_laws): they did not finish (see status), or the value is not finite",
    "mean": "over seeds; NaN for the parts of the kernel drift, which no single seed has",
    "root_mean_square": "over seeds; of systematic_kernel_drift the norm of the mean over seeds of (K_T - K_0) / ||K_0||_F, "
    "without the bias of finitely many seeds, and of random_kernel_drift the rms deviation from it: their squares add up to "
    "kernel_drift's",
    "exact_root_mean_square": "what the exact law of one hidden layer gives for the root mean square; NaN where none is known",
    "standard_deviation": "over seeds, n - 1 in the denominator",
    "standard_error": "of the mean, or by bootstrap over seeds, of 5 at least, of the exponent, or of a part of the kernel drift",
    "interval_low": "95% interval: t of the mean, or bootstrap like the standard error",
    "interval_high": "95% interval: t of the mean, or bootstrap like the standard error",
    "time": "t of the flow, or learning rate x steps; units of 1 / eigenvalue of the kernel",
    "relative_time": "t times lambda_max(K_inf)",
    "loss": "1/2 sum of squared residuals on training points, over all outputs",
    "test_loss": "1/2 sum of squared residuals on test points",
    "test_accuracy": "share of test points whose class is told: by the sign of the output, or the largest of more than two; NaN "
    "where targets are no classes",
    "test_linearized_accuracy": "test_accuracy of the network linearised at theta_0 under the same training",
    "test_closed_form_accuracy": "test_accuracy of gradient flow with the constant kernel K_0",
    "test_limit_closed_form_accuracy": "test_accuracy of the same training with the constant kernel K_inf",
    "kernel_drift": "||K_t - K_0||_F / ||K_0||_F, of k outputs that of the whole kernels (n k, n k), and so the distance",
    "kernel_distance": "1 - <K_t, K_0> / (||K_t||_F ||K_0||_F), between 0 and 1: blind to the kernel's size (Fort et al. 2020)",
    "kernel_velocity": "kernel distance from the snapshot before, per unit of time; NaN at t = 0",
    "centred_kernel_target_alignment": "the same of the centred kernels H K H and H yy' H, H = I - 11'/n (Cortes et al. 2012)",
    "centred_alignment": "cosine of the centred K_t and K_0 (CKA)",
    "effective_rank": "exp of the entropy of K_t's eigenvalues over their sum, from 1 to n, or n k for k outputs",
    "feature_drift": "||h_t - h_0||_F / ||h_0||_F, h the last hidden layer's activations on training points",
    "gates_flipped": "share of pairs of a hidden neuron and a training point whose pre-activation changed sign since t = 0; NaN "
    "for the activation sin",
    "parameter_drift": "||theta_t - theta_0|| / ||theta_0||, of all parameters, or in `layers` of the layer's",
    "layer": "1 for the first hidden layer's weights and biases, depth + 1 for the readout's",
    "linearized_loss": "loss of the network linearised at theta_0 under the same training; (I - eta K_0)^k for descent, what "
    "momentum makes of it, and for batches that of all points at once",
    "closed_form_loss": "loss of gradient flow with the constant kernel K_0, e^(-K_0 t), from the network's own f_0; under "
    "momentum mu at t / (1 - mu)",
    "limit_closed_form_loss": "loss of the same training with the constant kernel K_inf, from the network's own f_0: "
    "e^(-K_inf t), or the steps of descent; for batches that of all points at once",
    "ensemble_loss": "expected loss under gradient flow over infinitely wide networks: that of their mean plus half the sum of "
    "their variances (Lee et al. 2019); under momentum mu at t / (1 - mu)",
    "test_linearized_loss": "the same on test points",
    "test_closed_form_loss": "the same on test points",
    "test_limit_closed_form_loss": "the same on test points",
    "test_ensemble_loss": "the same on test points",
    "initial_kernel_regression_test_loss": "test loss of ridgeless kernel regression, K(x*, X) K^-1 y, with K_0",
    "after_kernel_regression_test_loss": "the same with the kernel after training",
    "limit_kernel_regression_test_loss": "the same with K_inf",
    "largest_linearized_deviation": "the largest linearized_deviation of the run",
    "largest_test_linearized_deviation": "the largest test_linearized_deviation of the run",
    "largest_limit_closed_form_deviation": "the largest limit_closed_form_deviation of the run",
    "linearized_deviation": "root mean square over training points, and outputs, of f_t minus the linearised network",
    "closed_form_deviation": "root mean square over training points of f_t minus e^(-K_0 t)",
    "limit_closed_form_deviation": "root mean square over training points of f_t minus the same training with K_inf",
    "test_linearized_deviation": "the same over test points",
    "test_closed_form_deviation": "the same over test points",
    "test_limit_closed_form_deviation": "the same over test points",
    "status": "of the whole run: finished; overflow or nan: a value is infinite or NaN; eigensolver_failed; in training also "
    "diverged, or step_limit (see Trajectory)",
    "widths_fitted": "widths in the fit",
    "prefactor": "c in c x width^exponent, fitted to the root mean square over seeds",
    "prefactor_low": "95% interval of the prefactor, bootstrap over 5 seeds at least",
    "prefactor_high": "95% interval of the prefactor, bootstrap over 5 seeds at least",
    "exponent": "of the width, least squares in logarithms",
    "theory_exponent": "of the width, for this activation, depth and parameterization; NaN where theory gives none",
    "z_score": "(exponent - theory_exponent) / standard_error",
    "index": "0 for the largest eigenvalue; in training of k outputs there are n k",
    "limit_eigenvalue": "of K_inf, units of the kernel",
    "eigenvalue": "of K_0, as a rate of training (times n^(-c) in abc parameterizations, layer rates included)",
    "after_eigenvalue": "the eigenvalue of the same index of the kernel after training, as a rate",
    "decay_rate": "fitted to the residual along the eigenvector of K_0 while it is above the noise; NaN where it decays too "
    "little or too fast for the snapshots, or oscillates under momentum",
    "relative_rate_difference": "(decay_rate - eigenvalue) / eigenvalue: 0 under a constant kernel, but for finite steps of "
    "descent, and for batches, whose noise leaves a floor under the residual",
    "family": "name of the network in the configuration, without the output scale where several are given",
    "output_scale": "factor alpha of the output",
    "scaled_width": "sqrt(width) x output_scale, the variable of the crossover from rich to lazy in ntk and notes (Geiger et "
    "al. 2020); NaN in other parameterizations",
    "verdict": "lazy: kernel drift and distances from the linearised network (in units of the targets; not under batches) are "
    "all below 0.1, root mean squares over seeds; rich: kernel drift of 1 or more; else between; undecided: more than a quarter "
    "of the seeds did not finish; none: no seed did",
}
