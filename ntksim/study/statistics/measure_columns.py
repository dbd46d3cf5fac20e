"""The meaning of columns that stand only in the tables that a study asks for: `training.measures`, and keys of `initial`."""

MEASURE_COLUMNS = {
    "leading_eigenvalue": "eigenvalue of K_t as a rate of training (with layer rates, and times n^(-c) in abc parameterizations; "
    "of a mean loss times its factor)",
    "basis": "initial_eigenvectors (of K_0), current_eigenvectors (of K_t), fourier (cos k theta and sin k theta on the training "
    "points) or degree (all spherical harmonics of degree k on them)",
    "mode": "name of the mode: the index of an eigenvector, 0 for the largest eigenvalue; cos k or sin k; degree k",
    "order": "index of the eigenvector, or k",
    "residual": "norm of the projection of the residual f_t - y on the mode, whose vectors are orthonormal: the squares over an "
    "orthonormal basis add up to twice the squared loss",
    "mode_rate": "mean eigenvalue of K_t along the mode, tr(Q'K_tQ) / m for its orthonormal vectors Q (n, m), as a rate",
    "measured_rate": "minus the slope of the logarithm of `residual` from the snapshot before, in units of 1 / time, under "
    "momentum of the time of the flow that is as far on; missing at t = 0, and where the residual is not above the noise (the "
    "tolerance of a flow, the root of the precision in descent, times the norm of the residual at t = 0)",
    "leakage": "||(1 - QQ') K_t Q||_F / ||K_t Q||_F, between 0 and 1: the share of what the kernel makes of the mode that lies "
    "in other modes. Of current eigenvectors, which K_t does not mix, it is that of K_0. Missing where the kernel makes nothing "
    "of the mode, up to rounding",
    "other_mode": "name of the mode, of the same basis, that a share of what the kernel makes of the mode lies in; it may be the "
    "mode itself",
    "other_order": "index of that eigenvector, or its k",
    "coupling": "||Q_i' K_t Q_j||_F / ||K_t Q_j||_F, between 0 and 1, with j the mode and i the other mode: the share of what "
    "the kernel makes of the mode that lies in the other one. The squares over all modes of an orthonormal basis add up to 1. Of "
    "the mode itself it is what stays: its square and that of `leakage` add up to 1. Missing as leakage is",
    "theory_rate": "the rate of the mode under a constant kernel: of eigenvectors the eigenvalue of K_0 (also for those of K_t, "
    "which are then the same), of functions n lambda_k, with lambda_k the eigenvalue of K_inf as an operator with respect to the "
    "uniform distribution on the circle or sphere (`continuum_spectrum`), whatever the points of files and real data sets are; "
    "missing for functions with dataset.density, under which they are no eigenfunctions, and with weight decay, as "
    "theory_residual",
    "theory_residual": "the residual at t = 0 times the decay of theory_rate under the same training: e^(-rate t), or the steps "
    "of gradient descent",
    "sample_rate": "mean eigenvalue of K_inf on the training points along the mode, as a rate: n lambda_k but for the sample",
    "limit_residual": "norm of the projection on the mode of the residual of the same training with the constant kernel K_inf; "
    "missing with weight decay",
    "regression_test_loss": "test loss of kernel regression K_t(x*, X) (K_t + ridge)^-1 y with the kernel at this time; the "
    "ridge is training.ridge, or else 0",
    "regression_evaluation_loss": "regression_test_loss on the evaluation points; missing where there are none, or "
    "their targets are unknown",
    "evaluation_loss": "test_loss on the evaluation points; missing likewise",
    "freeze_share": "training.measures.freeze_share",
    "freeze_time": "time of the first snapshot from which on the speed of the normalised kernel K_t / ||K_t||_F, its distance "
    "from the snapshot before over the time between, sqrt(2 kernel_velocity / time between), is at most freeze_share times its "
    "first value; missing if it never is",
    "relative_freeze_time": "freeze_time times lambda_max(K_inf)",
    "freeze_status": "frozen; never, if the speed at the last snapshot is still above; or unknown, if the run did not finish",
    "point": "index of the evaluation point, or of the test point where a data set has no evaluation points",
    "separation": "angle between the first training point x_0 and the point, as seen from 0, in radians: from -pi to pi in the "
    "plane, elsewhere from 0 to pi",
    "limit_profile": "K_inf(x_0, x), in units of the kernel (with layer rates)",
    "output": "index of the output",
    "angle": "angle of the point in the plane, from -pi to pi; missing where points have other than two features",
    "target": "the point's target; missing where it is unknown",
    "limit_prediction": "mean of f_t(x) over infinitely wide networks under the same training (Lee et al. 2019); missing under "
    "logistic and softmax losses, and with weight decay",
    "limit_deviation": "standard deviation of f_t(x) over infinitely wide networks; 0 if f - f_0 is trained, missing likewise",
    "beta": "depth over width: the sum over hidden layers of 1 / width",
    "value": "kernel_dispersion: E[K(x,x)^2] / E[K(x,x)]^2 over networks at initialisation, the mean over training points; "
    "first_step_change: the mean over networks of ||K_1 - K_0||_F / ||K_0||_F after one step of gradient descent on the squared "
    "loss, whose learning rate is initial.dispersion.relative_learning_rate / lambda_max(K_inf). Dead networks, whose kernel is "
    "0, count",
    "value_low": "lower end of the 95% interval of the value, with at least 5 seeds, for heavy tails (docs/statistics.md)",
    "value_high": "upper end of the 95% interval of the value, with at least 5 seeds, for heavy tails (docs/statistics.md)",
    "effective_seeds": "how many seeds carry the value: (sum w)^2 / sum w^2, with w = K^2 or the change; below 50 the interval "
    "takes the tail of a lognormal distribution too",
    "leading_order": "the value by theory to leading order in depth over width (Hanin & Nica 2020), for ntk, ReLU without biases "
    "at sigma_w = sqrt(2); missing elsewhere",
    "limit": "the value in the limit of infinite width at fixed depth; missing where the kernel moves at any width",
    "dimension": "features of a point: d of the sphere S^(d-1), the circle for 2",
    "radius": "root mean square length of the training points, at which the kernel is taken",
    "degree": "degree k of the spherical harmonics; on the circle the frequency",
    "multiplicity": "number of independent harmonics of the degree",
    "ntk_eigenvalue": "eigenvalue of the infinite-width NTK as an operator with respect to the uniform distribution on the "
    "sphere (`continuum_spectrum`), in units of the kernel: times n it is that of the Gram matrix of n uniform "
    "points, up to sampling",
    "nngp_eigenvalue": "the same of the NNGP kernel",
    "regression_prediction_mean": "mean over seeds of kernel regression K_t(x, X) (K_t + ridge)^-1 y at the point, with the "
    "kernel at this time; the ridge is training.ridge, or else 0. Of the seeds that finished and whose regression is finite",
    "regression_prediction_quantile_05": "0.05 quantile over seeds of the same",
    "regression_prediction_quantile_25": "lower quartile over seeds of the same",
    "regression_prediction_median": "median over seeds of the same",
    "regression_prediction_quantile_75": "upper quartile over seeds of the same",
    "regression_prediction_quantile_95": "0.95 quantile over seeds of the same",
    "quantile_05": "0.05 quantile over seeds",
    "quantile_25": "lower quartile over seeds",
    "median": "median over seeds",
    "quantile_75": "upper quartile over seeds",
    "quantile_95": "0.95 quantile over seeds",
}
