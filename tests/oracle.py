"""The formulas of every method a second time: NumPy, float64, the most obvious slow way.

Nothing here knows of the library. A layer is given as a dict of float64 arrays under the names of its state dict, an
image as an array of shape (N, C, H, W). The formulas are those of the methods' own papers in the form compared by Prach
et al. (CVPR 2024, arXiv 2311.16833).
"""

import math
from fractions import Fraction

import numpy as np

# --- convolution ----------------------------------------------------------------------------------------------------


def links(size, k, padding_mode):
    """All links (output row and column, input row and column, tap row and column) of a centred cross-correlation."""
    height, width = size
    centre = (k - 1) // 2
    for h in range(height):
        for w in range(width):
            for a in range(k):
                for b in range(k):
                    row, column = h + a - centre, w + b - centre
                    if padding_mode == "circular":
                        yield h, w, row % height, column % width, a, b
                    elif 0 <= row < height and 0 <= column < width:
                        yield h, w, row, column, a, b


def convolve(x, kernel, padding_mode):
    """Cross-correlation of (N, i, H, W) with (o, i, k, k), same size."""
    y = np.zeros((x.shape[0], kernel.shape[0], *x.shape[2:]))
    for h, w, row, column, a, b in links(x.shape[2:], kernel.shape[-1], padding_mode):
        y[:, :, h, w] += x[:, :, row, column] @ kernel[:, :, a, b].T
    return y


def convolve_adjoint(y, kernel, padding_mode):
    """The adjoint of `convolve`: (N, o, H, W) to (N, i, H, W)."""
    x = np.zeros((y.shape[0], kernel.shape[1], *y.shape[2:]))
    for h, w, row, column, a, b in links(y.shape[2:], kernel.shape[-1], padding_mode):
        x[:, :, row, column] += y[:, :, h, w] @ kernel[:, :, a, b]
    return x


def convolution_matrix(kernel, size, padding_mode):
    """The (o H W) x (i H W) matrix of `convolve`."""
    out_channels, in_channels, k, _ = kernel.shape
    matrix = np.zeros((out_channels, *size, in_channels, *size))
    for h, w, row, column, a, b in links(size, k, padding_mode):
        matrix[:, h, w, :, row, column] += kernel[:, :, a, b]
    return matrix.reshape(out_channels * size[0] * size[1], -1)


def convolution_norm(kernel, size, padding_mode):
    """Spectral norm of that matrix."""
    return np.linalg.norm(convolution_matrix(kernel, size, padding_mode), 2)


def symbol(kernel, size):
    """V(f)[o, i] of the circular convolution, shape (H, W, o, i): the sum over taps, written out."""
    height, width = size
    k = kernel.shape[-1]
    centre = (k - 1) // 2
    v = np.zeros((height, width, *kernel.shape[:2]), dtype=complex)
    for f1 in range(height):
        for f2 in range(width):
            for a in range(k):
                for b in range(k):
                    angle = 2 * math.pi * (f1 * (a - centre) / height + f2 * (b - centre) / width)
                    v[f1, f2] += kernel[:, :, a, b] * complex(math.cos(angle), math.sin(angle))
    return v


def apply_symbol(x, v):
    """The circular map whose frequency response is v (H, W, o, i), on a real (N, i, H, W)."""
    x_hat = np.fft.fft2(x)
    y_hat = np.zeros((x.shape[0], v.shape[2], *x.shape[2:]), dtype=complex)
    for f1 in range(x.shape[2]):
        for f2 in range(x.shape[3]):
            y_hat[:, :, f1, f2] = x_hat[:, :, f1, f2] @ v[f1, f2].T
    y = np.fft.ifft2(y_hat)
    assert np.abs(y.imag).max() <= 1e-9 * (1 + np.abs(y.real).max()), "the frequency response is not that of a real map"
    return y.real


def per_frequency(v, function):
    """function(V(f)) at every frequency."""
    return np.array([[function(v[f1, f2]) for f2 in range(v.shape[1])] for f1 in range(v.shape[0])])


def padded(x, margin):
    return np.pad(x, ((0, 0), (0, 0), (margin, margin), (margin, margin)))


def cropped(x, margin):
    return x[:, :, margin : x.shape[2] - margin, margin : x.shape[3] - margin]


def apply_frequencywise(x, kernel, padding_mode, function):
    """function at every frequency; zero padding: on a grid larger by k // 2 on each side, then cropped."""
    margin = kernel.shape[-1] // 2 if padding_mode == "zeros" else 0
    x = padded(x, margin)
    return cropped(apply_symbol(x, per_frequency(symbol(kernel, x.shape[2:]), function)), margin)


def with_bias(y, p):
    return y + p["bias"].reshape(1, -1, 1, 1) if "bias" in p else y


def row_gram_sums(kernel):
    """G[m, n] = sum over shifts of | sum_i sum_p K[m, i, p] K[n, i, p + shift] |."""
    rows, _, k, _ = kernel.shape
    total = np.zeros((rows, rows))
    for m in range(rows):
        for n in range(rows):
            for s1 in range(-(k - 1), k):
                for s2 in range(-(k - 1), k):
                    inner = 0.0
                    for a in range(k):
                        for b in range(k):
                            if 0 <= a + s1 < k and 0 <= b + s2 < k:
                                inner += float(kernel[m, :, a, b] @ kernel[n, :, a + s1, b + s2])
                    total[m, n] += abs(inner)
    return total


def polar_factor(matrix):
    """The nearest matrix with orthonormal rows or columns."""
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    return left @ right


# --- the methods ----------------------------------------------------------------------------------------------------


def standard(x, p, padding_mode):
    return with_bias(convolve(x, p["weight"], padding_mode), p)


def aol_kernel(weight):
    """Prach and Lampert, 2022, Theorem 2: one rescaling per input channel."""
    sums = row_gram_sums(weight.transpose(1, 0, 2, 3)).sum(axis=1)
    return weight * (1 / np.sqrt(sums + 1e-6)).reshape(1, -1, 1, 1)


def aol(x, p, padding_mode):
    return with_bias(convolve(x, aol_kernel(p["weight"]), padding_mode), p)


def bcop_kernel(matrix, frames, out_channels, in_channels):
    """Li et al., 2019: products of 2 x 2 block kernels made of pairs of projectors."""
    n = max(out_channels, in_channels)
    h = polar_factor(matrix)
    projectors = []
    for frame in frames:
        u = polar_factor(frame)
        projectors.append(u @ u.T)
    one = np.eye(n)
    product = {(0, 0): one}
    for pair in range(len(projectors) // 2):
        p, q = projectors[2 * pair], projectors[2 * pair + 1]
        block = {(0, 0): p @ q, (0, 1): p @ (one - q), (1, 0): (one - p) @ q, (1, 1): (one - p) @ (one - q)}
        longer = {}
        for (a1, b1), left in product.items():
            for (a2, b2), right in block.items():
                place = (a1 + a2, b1 + b2)
                longer[place] = longer.get(place, np.zeros((n, n))) + left @ right
        product = longer
    k = len(projectors) // 2 + 1
    weight = np.zeros((out_channels, in_channels, k, k))
    for a in range(k):
        for b in range(k):
            block = h @ product[b, a]
            weight[:, :, a, b] = block.T if in_channels <= out_channels else block
    return weight


def bcop(x, p, padding_mode):
    in_channels = x.shape[1]
    small, large = p["matrix"].shape
    out_channels = large if in_channels == small else small
    return with_bias(convolve(x, bcop_kernel(p["matrix"], p["frames"], out_channels, in_channels), padding_mode), p)


def cayley_transform(v):
    """Trockman and Kolter, 2021: square, tall [U; W], and wide as the transpose of tall."""
    rows, columns = v.shape
    if rows < columns:
        return cayley_transform(v.T).T
    u, w = v[:columns], v[columns:]
    a = u - u.conj().T + w.conj().T @ w
    one = np.eye(columns)
    inverse = np.linalg.inv(one + a)
    return np.concatenate([inverse @ (one - a), -2 * w @ inverse])


def cayley(x, p, padding_mode):
    kernel = p["weight"] * p["scale"] / np.sqrt((p["weight"] ** 2).sum())
    return with_bias(apply_frequencywise(x, kernel, padding_mode, cayley_transform), p)


def lot_factor(v):
    """Xu et al., 2022: ten coupled Newton steps for the inverse square root of V V^H (of V^H V when V is tall)."""
    rows, columns = v.shape
    one = np.eye(min(rows, columns))
    s = (v @ v.conj().T if rows <= columns else v.conj().T @ v) + 1e-4 * one
    nu = np.sqrt((np.abs(s) ** 2).sum()) + 1e-4
    y, z = s / nu, one
    for _ in range(10):
        g = 0.5 * (3 * one - z @ y)
        y, z = y @ g, g @ z
    return (z @ v if rows <= columns else v @ z) / np.sqrt(nu)


def lot(x, p, padding_mode):
    return with_bias(apply_frequencywise(x, p["weight"], padding_mode, lot_factor), p)


def relu(x):
    return np.maximum(x, 0)


def cpl(x, p, padding_mode, squared_norm):
    """Meunier et al., 2022: a gradient step on a convex potential."""
    hidden = relu(with_bias(convolve(x, p["weight"], padding_mode), p))
    return x - 2 / (squared_norm + 1e-6) * convolve_adjoint(hidden, p["weight"], padding_mode)


def cpl_squared_norm(kernel, size, padding_mode):
    """What evaluation divides by: the squared norm of the circular map, on a grid larger by k - 1 for zero padding."""
    margin = kernel.shape[-1] - 1 if padding_mode == "zeros" else 0
    return convolution_norm(kernel, (size[0] + margin, size[1] + margin), "circular") ** 2


def cpl_corner(u, size, k, padding_mode):
    """The part of u that training moves on images of this size: as large as that grid, and at most all of u."""
    margin = k - 1 if padding_mode == "zeros" and k > 1 else 0
    return u[..., : size[0] + margin, : size[1] + margin]


def cpl_power_iteration(kernel, u, iterations):
    """The power method on a circular map: the estimate of the norm and the vector after it."""
    v = None
    for _ in range(iterations):
        v = convolve(u, kernel, "circular")
        v = v / np.sqrt((v**2).sum())
        u = convolve_adjoint(v, kernel, "circular")
        u = u / np.sqrt((u**2).sum())
    return float((convolve(u, kernel, "circular") * v).sum()), u


def sll(x, p, padding_mode):
    """Araujo et al., 2023."""
    q = np.abs(p["r"]) + 1e-6
    sums = row_gram_sums(p["weight"])
    t = np.array([2 / (sum(sums[o, j] * q[j] for j in range(len(q))) / q[o] + 1e-6) for o in range(len(q))])
    hidden = t.reshape(1, -1, 1, 1) * relu(with_bias(convolve(x, p["weight"], padding_mode), p))
    return x - convolve_adjoint(hidden, p["weight"], padding_mode)


def skew_kernel(m):
    return 0.5 * (m - m.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1])


def unfoldings(kernel):
    """The four matrices of Singla and Feizi, 2021 (Fantastic Four): (o h, i w), (o w, i h), (o, i h w), (i, o h w)."""
    o, i, h, w = kernel.shape
    return (
        kernel.transpose(0, 2, 1, 3).reshape(o * h, i * w),
        kernel.transpose(0, 3, 1, 2).reshape(o * w, i * h),
        kernel.reshape(o, i * h * w),
        kernel.transpose(1, 0, 2, 3).reshape(i, o * h * w),
    )


def soc_kernel(m):
    """The kernel that evaluation exponentiates: scaled by the smallest of the four unfoldings' norms."""
    kernel = skew_kernel(m)
    return soc_scaled(kernel, min(np.linalg.norm(unfolding, 2) for unfolding in unfoldings(kernel)))


def soc_training_kernel(m, vectors, iterations):
    """The same with tracked norms of two unfoldings (the others are their transposes); moves u1 v1 u2 v2 in vectors."""
    kernel = skew_kernel(m)
    by_rows, _, by_channel, _ = unfoldings(kernel)
    estimates = []
    for matrix, u, v in ((by_rows, "u1", "v1"), (by_channel, "u2", "v2")):
        for _ in range(iterations):
            vectors[v] = matrix @ vectors[u] / np.linalg.norm(matrix @ vectors[u])
            vectors[u] = matrix.T @ vectors[v] / np.linalg.norm(matrix.T @ vectors[v])
        estimates.append(float(vectors[v] @ matrix @ vectors[u]))
    return soc_scaled(kernel, min(estimates))


def soc_scaled(kernel, sigma):
    kappa = 1.0 if kernel.shape[-1] == 1 else 0.7
    return kernel if sigma == 0 else kappa * kernel / sigma


def truncated_exponential_excess(terms):
    """|sum_{j <= terms} (i t)^j / j!|^2 - 1 as the exact coefficients of powers of t^2, lowest first."""
    real = [Fraction(0)] * (2 * terms + 1)
    for m in range(terms + 1):
        for n in range(terms + 1):
            if (m - n) % 2 == 0:  # the rest of the products is imaginary and cancels
                real[m + n] += Fraction(1 if (m - n) % 4 == 0 else -1, math.factorial(m) * math.factorial(n))
    coefficients = real[::2]
    coefficients[0] -= 1
    return coefficients


def soc_terms(radius, tolerance=1e-9):
    """The fewest terms, at least 12, whose truncated exponential keeps |.| <= 1 + tolerance on i [-radius, radius]."""
    squares = np.linspace(0, radius**2, 20001)
    terms = 12
    while True:
        excess = [float(value) for value in truncated_exponential_excess(terms)]
        if np.polynomial.polynomial.polyval(squares, excess).max() <= (1 + tolerance) ** 2 - 1:
            return terms
        terms += 1


def exponential(x, kernel, padding_mode, terms):
    y, term = x, x
    for j in range(1, terms + 1):
        term = convolve(term, kernel, padding_mode) / j
        y = y + term
    return y


def bessel(order, radius, points=400):
    """J_order(radius) by its integral, of which the trapezoidal rule is exact to rounding."""
    t = np.arange(points) * 2 * np.pi / points
    return float(np.cos(order * t - radius * np.sin(t)).mean())


def economised_coefficients(radius, greatest_error=1e-5):
    """Jacobi-Anger: exp(i t) = J_0(r) + 2 sum_j i^j J_j(r) T_j(t / r), cut where the rest is below Taylor's error."""
    terms = soc_terms(radius)
    error = min(greatest_error, radius ** (terms + 1) / math.factorial(terms + 1))
    series = [bessel(j, radius) * (1 if j == 0 else 2) for j in range(60)]
    degree = next(d for d in range(60) if sum(abs(c) for c in series[d + 1 :]) <= error)
    return series[: degree + 1]


def economised_exponential(x, kernel, padding_mode, radius):
    series = economised_coefficients(radius)
    grid = np.linspace(-1, 1, 20001)
    values = sum(c * 1j**j * np.cos(j * np.arccos(grid)) for j, c in enumerate(series))
    # i^j T_j(L / (i r)) by the recurrence of Chebyshev, in real arithmetic.
    before, term = x, convolve(x, kernel, padding_mode) / radius
    y = series[0] * before + series[1] * term
    for coefficient in series[2:]:
        before, term = term, 2 * convolve(term, kernel, padding_mode) / radius + before
        y = y + coefficient * term
    return y / np.abs(values).max()


def soc(x, p, padding_mode, out_channels, kernel, terms=None):
    """Singla and Feizi, 2021: the exponential of a skew-symmetric convolution, channels padded or dropped."""
    x = np.concatenate([x, np.zeros((x.shape[0], kernel.shape[0] - x.shape[1], *x.shape[2:]))], axis=1)
    k = kernel.shape[-1]
    if terms is None:
        y = economised_exponential(x, kernel, padding_mode, 1.0 if k == 1 else 0.7 * k)
    else:
        y = exponential(x, kernel, padding_mode, terms)
    return with_bias(y[:, :out_channels], p)
