"""A slow, obvious oracle in NumPy and SciPy: it shares no code with the package.

Networks are dictionaries of explicit multipliers; gradients are taken parameter by parameter.
"""

import math

import numpy as np
from scipy import integrate, linalg, special

PHI = {
    "relu": (lambda z: np.where(z > 0, z, 0.0), lambda z: np.where(z > 0, 1.0, 0.0)),
    "erf": (special.erf, lambda z: 2 / math.sqrt(math.pi) * np.exp(-z * z)),
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2),
    "leaky_relu": (lambda z: np.where(z > 0, z, 0.1 * z), lambda z: np.where(z > 0, 1.0, 0.1)),
    "abs": (np.abs, np.sign),
    "gelu": (lambda z: z * special.ndtr(z), lambda z: special.ndtr(z) + z * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)),
    "sin": (np.sin, np.cos),
    "linear": (lambda z: z + 0.0, lambda z: np.ones_like(z)),
    "sigmoid": (special.expit, lambda z: special.expit(z) * special.expit(-z)),
    "silu": (lambda z: z * special.expit(z), lambda z: special.expit(z) * (1 + z * special.expit(-z))),
    "softplus": (lambda z: np.logaddexp(0, z), special.expit),
    "gelu_tanh": (lambda z: z / 2 * (1 + np.tanh(_cubic(z))), lambda z: _gelu_tanh_slope(z)),
    "elu": (lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))), lambda z: np.exp(np.minimum(z, 0))),
    "selu": (
        lambda z: SELU[0] * np.where(z > 0, z, SELU[1] * np.expm1(np.minimum(z, 0))),
        lambda z: SELU[0] * np.where(z > 0, 1.0, SELU[1] * np.exp(np.minimum(z, 0))),
    ),
    "cos": (np.cos, lambda z: -np.sin(z)),
    "gaussian": (lambda z: np.exp(-z * z), lambda z: -2 * z * np.exp(-z * z)),
    "exp": (np.exp, np.exp),
    "monomial": (lambda z: z**2, lambda z: 2 * z),
    "rectified_monomial": (lambda z: np.maximum(z, 0) ** 2, lambda z: 2 * np.maximum(z, 0)),
    # with a number in brackets
    "leaky_relu(-0.3)": (lambda z: np.where(z > 0, z, -0.3 * z), lambda z: np.where(z > 0, 1.0, -0.3)),
    "elu(0.4)": (
        lambda z: np.where(z > 0, z, 0.4 * np.expm1(np.minimum(z, 0))),
        lambda z: np.where(z > 0, 1.0, 0.4 * np.exp(np.minimum(z, 0))),
    ),
    "monomial(3)": (lambda z: z**3, lambda z: 3 * z**2),
    "rectified_monomial(3)": (lambda z: np.maximum(z, 0) ** 3, lambda z: 3 * np.maximum(z, 0) ** 2),
    # a user's own, as tests/engine/cases.py makes them
    "mish": (lambda z: z * np.tanh(np.logaddexp(0, z)), lambda z: _mish_slope(z)),
    "cracked": (lambda z: np.where(z > 0, np.arctan(z), 0.5 * z), lambda z: np.where(z > 0, 1 / (1 + z * z), 0.5)),
}
SELU = 1.0507009873554805, 1.6732632423543772


def _cubic(z):
    return math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)


def _gelu_tanh_slope(z):
    t = np.tanh(_cubic(z))
    return (1 + t) / 2 + z / 2 * (1 - t * t) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * z**2)


def _mish_slope(z):
    t = np.tanh(np.logaddexp(0, z))
    return t + z * (1 - t * t) * special.expit(z)


# Powers of the width, (a_1, a_l, a_(L+1), b_1, b_l, b_(L+1), c) of Yang & Hu (2021).
POWERS = {"mup": (-1 / 2, 0, 1 / 2, 1 / 2, 1 / 2, 1 / 2, 0), "mean_field": (0, None, 1, 0, None, 0, -1)}


def multipliers(kind, d, widths, sigma_w, sigma_a, sigma_b, output_bias, alpha, powers=None):
    """Forward multipliers (weights of each layer, readout) and (biases, output bias)."""
    fan_in = [d, *widths]
    powers = POWERS.get(kind, powers)
    if kind == "ntk":
        g = [sigma_w / math.sqrt(n) for n in fan_in[:-1]] + [sigma_a / math.sqrt(fan_in[-1])]
        beta = sigma_b
    elif kind == "notes":
        g = [1.0] + [1 / math.sqrt(n) for n in fan_in[1:]]
        beta = 1.0
    elif powers is not None:
        n = widths[0]
        g = (
            [sigma_w / math.sqrt(d) / n ** powers[0]]
            + [sigma_w / n ** powers[1] for _ in widths[1:]]
            + [sigma_a / n ** powers[2]]
        )
        beta = None if sigma_b is None else sigma_b / n ** powers[0]
    else:
        g = [1.0] * len(fan_in)
        beta = 1.0
    g[-1] *= alpha
    hidden = 0.0 if sigma_b is None else beta
    return g, [hidden] * len(widths) + [hidden * alpha if output_bias else 0.0]


def rate_factor(kind, widths, powers=None):
    """What multiplies the gradient in training."""
    powers = POWERS.get(kind, powers)
    return 1.0 if powers is None else widths[0] ** -float(powers[6])


def initial_scales(kind, d, widths, sigma_w, sigma_a, powers=None):
    """Standard deviation of the stored weights of each layer, readout last."""
    fan_in = [d, *widths]
    powers = POWERS.get(kind, powers)
    if powers is not None:
        return [widths[0] ** -power for power in (powers[3], *[powers[4]] * (len(widths) - 1), powers[5])]
    if kind == "ntk":
        return [1.0] * len(fan_in)
    if kind == "notes":
        return [sigma_w / math.sqrt(d)] + [sigma_w] * (len(widths) - 1) + [sigma_a]
    return [sigma_w / math.sqrt(n) for n in fan_in[:-1]] + [sigma_a / math.sqrt(fan_in[-1])]


def output(phi, g, beta, weights, biases, a, c, x):
    """Outputs (n,); weights are lists of matrices, biases lists of vectors."""
    h = x
    for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
        h = phi(g[layer] * h @ w.T + beta[layer] * b)
    return g[-1] * h @ a + beta[-1] * c


def jacobian(activation, g, beta, weights, biases, a, c, x, with_biases, with_output_bias):
    """df/dtheta, (n, parameters), point by point and layer by layer."""
    phi, slope = PHI[activation]
    rows = []
    for point in x:
        h, z = [point], []
        for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
            z.append(g[layer] * w @ h[-1] + beta[layer] * b)
            h.append(phi(z[-1]))
        parts = [g[-1] * h[-1]]
        if with_output_bias:
            parts.append(np.array([beta[-1]]))
        upstream = g[-1] * a
        for layer in reversed(range(len(weights))):
            local = upstream * slope(z[layer])
            parts.append((g[layer] * np.outer(local, h[layer])).ravel())
            if with_biases:
                parts.append(beta[layer] * local)
            upstream = g[layer] * weights[layer].T @ local
        rows.append(np.concatenate(parts))
    return np.array(rows)


def ordered_factor(gram, cut):
    """Upper triangular R with R'R = gram, column by column; pivots up to ``cut`` times the diagonal entry give zero rows."""
    r = np.zeros_like(gram)
    for j in range(len(gram)):
        for i in range(j):
            if r[i, i] > 0:
                r[i, j] = (gram[i, j] - r[:i, i] @ r[:i, j]) / r[i, i]
        pivot = gram[j, j] - r[:j, j] @ r[:j, j]
        r[j, j] = math.sqrt(pivot) if pivot > cut * gram[j, j] else 0.0
    return r


def orthonormal(h, cut):
    """R and Q with H = Q R and orthonormal columns of Q, but zero ones where R has zero rows; and the condition of R'R."""
    r = ordered_factor(h.T @ h, cut)
    found = np.flatnonzero(np.diag(r))
    q = np.zeros_like(h)
    if not found.size:
        return r, q, 1.0
    inner = r[np.ix_(found, found)]
    q[:, found] = linalg.solve_triangular(inner, h[:, found].T, trans="T").T
    return r, q, np.linalg.cond(inner) ** 2


def matrix_of_draws(g, n, h, d, rest, cut):
    """A matrix W with W H = G R and W'D = N C where H does not reach, for H'H = R'R and D'D = C'C; and the worst condition."""
    _, q, below = orthonormal(h, cut)
    _, p, above = orthonormal(d, cut)
    return g @ q.T + _without(p @ n.T + rest - p @ (p.T @ rest), q), max(below, above)


def _without(w, q):
    """W (I - QQ')."""
    return w - (w @ q) @ q.T


def gaussian_pair(function, k11, k12, k22):
    """E[function(u, v)] by nested adaptive quadrature over independent normals."""
    s1 = math.sqrt(k11)
    slope = k12 / s1
    rest = math.sqrt(max(k22 - slope * slope, 0.0))

    def density(t):
        return math.exp(-t * t / 2) / math.sqrt(2 * math.pi)

    def inner(s):
        kink = [-slope * s / rest] if rest > 0 and abs(slope * s / rest) < 9 else []
        edges = [-9.0, *kink, 9.0]
        total = 0.0
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            total += integrate.quad(
                lambda t: function(s1 * s, slope * s + rest * t) * density(t), low, high, epsabs=1e-13, epsrel=1e-12, limit=200
            )[0]
        return total

    return sum(
        integrate.quad(lambda s: inner(s) * density(s), low, high, epsabs=1e-12, epsrel=1e-11, limit=200)[0]
        for low, high in ((-9.0, 0.0), (0.0, 9.0))
    )


def gaussian_trapezoid(function, s1, s2, angle):
    """E[f(u) f(v)] of an analytic f of arrays, points at an angle, by a trapezoidal sum; at 0 and pi a sum along the diagonal."""
    step = 0.12 / max(1.0, s1, s2)
    t = step * np.arange(-math.ceil(10 / step), math.ceil(10 / step) + 1)
    weight = np.exp(-t * t / 2) / math.sqrt(2 * math.pi) * step
    if angle in (0, math.pi):
        return float(np.sum(weight * function(s1 * t) * function(math.cos(angle) * s2 * t)))
    return sum(
        w * float(function(s1 * x)) * float(weight @ function(s2 * (math.cos(angle) * x + math.sin(angle) * t)))
        for x, w in zip(t, weight, strict=True)
    )


def infinite_kernels(activation, x, depth, sigma_w, sigma_b):
    """NNGP and NTK of the ``ntk`` parameterization, readout of variance 1, from their definitions and ``gaussian_trapezoid``."""
    phi, slope = PHI[activation]
    pair = x @ x.T / x.shape[1]
    theta = np.zeros_like(pair)
    for _ in range(depth):
        q = sigma_w**2 * pair + sigma_b**2
        theta = q + sigma_w**2 * theta
        s = np.sqrt(np.diag(q))
        for i, j in np.ndindex(q.shape):
            rho = q[i, j] / (s[i] * s[j]) if s[i] * s[j] > 0 else 0.0
            angle = 0.0 if i == j else math.acos(min(max(rho, -1.0), 1.0))
            pair[i, j] = gaussian_trapezoid(phi, s[i], s[j], angle)
            theta[i, j] *= gaussian_trapezoid(slope, s[i], s[j], angle)
    return pair, pair + theta


def parameter_rates(layer_rates, weights, with_biases, with_output_bias):
    """Rates of layers 1..L+1 as one number per parameter, in the order of :func:`jacobian`; ones for None."""
    rates = np.ones(len(weights) + 1) if layer_rates is None else np.asarray(layer_rates)
    parts = [np.full(weights[-1].shape[0] + with_output_bias, rates[-1])]
    for w, rate in zip(weights[::-1], rates[-2::-1], strict=True):
        parts.append(np.full(w.size + with_biases * len(w), rate))
    return np.concatenate(parts)


def descent(
    activation, g, beta, weights, biases, a, c, x, y, rate, steps, with_biases, with_output_bias, momentum=0.0, nesterov=False,
    batches=None, layer_rates=None,
):  # fmt: skip
    """Plain gradient descent with explicit Jacobians; yields (outputs, kernel, flat parameters) before each step.

    ``batches`` lists the points of each step; with ``layer_rates`` kernels are J diag(rates) J'.
    """
    rates = parameter_rates(layer_rates, weights, with_biases, with_output_bias)
    shapes = [w.shape for w in weights]
    weights, biases, a, c = [w.copy() for w in weights], [b.copy() for b in biases], a.copy(), float(c)
    history, velocity = [], 0.0
    for step in range(steps + 1):
        f = output(PHI[activation][0], g, beta, weights, biases, a, c, x)
        j = jacobian(activation, g, beta, weights, biases, a, c, x, with_biases, with_output_bias)
        flat = np.concatenate([*(w.ravel() for w in weights), a, *(b for b in biases if with_biases), [c] * with_output_bias])
        history.append((f, (rates * j) @ j.T, flat))
        chosen = np.arange(len(x)) if batches is None or step == steps else batches[step]
        gradient = len(x) / len(chosen) * j[chosen].T @ (f - y)[chosen]
        velocity = momentum * velocity + gradient
        update = -rate * rates * (gradient + momentum * velocity if nesterov else velocity)
        at = a.size
        a = a + update[:at]
        if with_output_bias:
            c += update[at]
            at += 1
        for layer in reversed(range(len(weights))):
            size = weights[layer].size
            weights[layer] = weights[layer] + update[at : at + size].reshape(shapes[layer])
            at += size
            if with_biases:
                biases[layer] = biases[layer] + update[at : at + biases[layer].size]
                at += biases[layer].size
    return history


def cosine(a, b):
    """<a, b> / (|a| |b|) of two matrices, entry by entry."""
    pairs = [(float(x), float(y)) for x, y in zip(np.ravel(a), np.ravel(b), strict=True)]
    inner, aa, bb = (math.fsum(p[i] * p[j] for p in pairs) for i, j in ((0, 1), (0, 0), (1, 1)))
    return inner / math.sqrt(aa * bb)


def centre(kernel):
    """H K H with the explicit matrix H."""
    h = np.eye(len(kernel)) - np.ones((len(kernel), len(kernel))) / len(kernel)
    return h @ kernel @ h


def entropy_rank(kernel):
    """exp of the entropy of normalised singular values."""
    s = np.linalg.svd(kernel, compute_uv=False)
    return math.exp(-sum(p * math.log(p) for p in s / s.sum() if p > 0))


def gaussian_training(ntk, nngp, y, t):
    """Mean and covariance of f_t on training points, then test points, by the inverse of the NTK (Lee et al. 2019, 14-16).

    ``ntk`` and ``nngp`` are of training points followed by test points.
    """
    n = len(y)
    gain = np.linalg.solve(ntk[:n, :n], np.eye(n) - linalg.expm(-ntk[:n, :n] * t)).T  # functions of one matrix commute
    parts = []
    for rows in (slice(0, n), slice(n, None)):
        a = ntk[rows, :n] @ gain
        mixed = a @ nngp[:n, rows]
        parts += [a @ y, nngp[rows, rows] + a @ nngp[:n, :n] @ a.T - mixed - mixed.T]
    return parts


def loss(name, f, y):
    """A loss of outputs and targets (n, k), each formula from its definition; softmax by logarithms of probabilities."""
    n, k = f.shape
    if name.endswith("squared"):
        return {"squared": 0.5, "mean_squared": 1 / (n * k), "half_mean_squared": 0.5 / n}[name] * np.sum((f - y) ** 2)
    if name.endswith("logistic"):
        return np.sum(np.log1p(np.exp(-y * f))) / (n * k if name.startswith("mean") else 1)
    p = np.exp(f) / np.exp(f).sum(axis=1, keepdims=True)
    return -np.sum(y * np.log(p)) / (n if name.startswith("mean") else 1)


def loss_gradient(name, f, y):
    """dL/df (n, k) by central differences of order 4 in numbers of 80 bits."""
    step, found = np.longdouble(1e-3), np.empty_like(f)
    for at in np.ndindex(f.shape):
        values = []
        for shift in (-2, -1, 1, 2):
            moved = f.astype(np.longdouble)
            moved[at] += shift * step
            values.append(loss(name, moved, y))
        found[at] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
    return found


def descent_on(name, activation, g, beta, layers, x, y, rule, steps):
    """Gradient descent of a network of k outputs on a loss: outputs (n, k) before each step.

    ``layers`` holds a list [W, b] for each layer, the readout's (k, m) last; ``rule`` is (eta, mu, nesterov, lambda, batches):
    ``batches`` lists the points of each step or is None.
    """
    (phi, slope), (rate, mu, nesterov, decay, batches) = PHI[activation], rule
    layers = [[part.copy() for part in layer] for layer in layers]
    velocity, history = [[np.zeros_like(part) for part in layer] for layer in layers], []

    def forward(points):
        h, z = [points], []
        for (w, b), scale, shift in zip(layers, g, beta, strict=True):
            z.append(scale * h[-1] @ w.T + shift * b)
            h.append(phi(z[-1]))
        return h, z

    for step in range(steps + 1):
        history.append(forward(x)[1][-1])
        chosen = np.arange(len(x)) if batches is None or step == steps else batches[step]
        h, z = forward(x[chosen])
        if name.startswith(("mean", "half")):  # of the batch, whose points are as many as it is divided by
            delta = loss_gradient(name, z[-1], y[chosen])
        else:
            delta = len(x) / len(chosen) * loss_gradient(name, z[-1], y[chosen])
        for layer in reversed(range(len(layers))):
            gradient = g[layer] * delta.T @ h[layer], beta[layer] * delta.sum(axis=0)
            if layer:
                delta = g[layer] * delta @ layers[layer][0] * slope(z[layer - 1])
            for part in range(2):
                own = gradient[part] + decay * layers[layer][part]
                velocity[layer][part] = mu * velocity[layer][part] + own
                move = own + mu * velocity[layer][part] if nesterov else velocity[layer][part]
                layers[layer][part] = layers[layer][part] - rate * move
    return history
