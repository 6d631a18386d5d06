"""Rigorous upper bounds of spectral norms, computed in float64 with their own rounding error added."""

import math

import torch
from torch import Tensor

from lipref.errors import LiprefError
from lipref.linalg.eigenvalues import UNIT_ROUNDOFF, largest_eigenvalue_bound, nan_max
from lipref.linalg.spectrum import kernel_symbol


def norm_bound(matrices: Tensor, entry_error: float = 0.0) -> float:
    """Upper bound of the largest spectral norm in a batch ``(..., m, n)``, float64 or complex128.

    From a bound of the largest eigenvalue of the smaller Gram matrix (`largest_eigenvalue_bound`), plus bounds for the
    rounding of the Gram product (gamma_n times the squared Frobenius norm) and of the entries themselves, whose error
    matrix has a Frobenius norm of at most ``entry_error``.
    """
    if matrices.shape[-2] < matrices.shape[-1]:
        matrices = matrices.mH
    # By a power of two, so that squares neither overflow nor underflow and nothing is rounded.
    parts = torch.view_as_real(matrices.resolve_conj()) if matrices.is_complex() else matrices
    largest_entry = float(parts.abs().max()) if matrices.numel() else 0.0
    if largest_entry == 0 or not math.isfinite(largest_entry):
        return largest_entry + entry_error
    scale = 2.0 ** (math.frexp(largest_entry)[1] - 1)  # the largest number has the exponent 1024, which overflows
    matrices = matrices / scale
    rows = matrices.shape[-2]
    gram = matrices.mH @ matrices
    # The factor 16 covers the constants of complex products.
    frobenius = float(gram.diagonal(dim1=-2, dim2=-1).real.sum(-1).max())
    largest = largest_eigenvalue_bound(gram) + 16 * UNIT_ROUNDOFF * rows * frobenius
    return math.nextafter((math.sqrt(largest) * scale + entry_error) * (1 + 4 * UNIT_ROUNDOFF), math.inf)


def torus_margin(k: int, padding_mode: str) -> int:
    """By how much the torus whose convolution bounds a same-padded one on an image is larger than the image."""
    return k - 1 if padding_mode == "zeros" else 0


def conv_norm_bound(weight: Tensor, size: tuple[int, int], padding_mode: str) -> float:
    """Upper bound of the spectral norm of `conv2d_same` with ``weight`` ``(O, I, k, k)``.

    It holds on images of ``size`` ``(H, W)``. For circular padding it is the exact norm plus a rounding allowance,
    relative about 1e-12 for narrow layers and 1e-8 for 4096 channels. A zero-padded convolution is a part of the
    circular one on the grid of side ``size + k - 1`` (embed with zeros, convolve, crop), so that one's norm bounds it.
    """
    k = weight.shape[-1]
    if weight.dim() != 4 or weight.shape[-2] != k or k % 2 == 0 or not weight.is_floating_point():
        raise LiprefError(
            f"a kernel of shape {tuple(weight.shape)} and {weight.dtype} has no bound here: give real numbers, "
            "(O, I, k, k) with odd k"
        )
    weight = weight.detach().to(torch.float64)
    largest = float(weight.abs().max()) if weight.numel() else 0.0
    if 0 < largest < 2.0**-480:  # squares underflow
        scale = 2.0 ** math.frexp(largest)[1]
        return math.nextafter(conv_norm_bound(weight / scale, size, padding_mode) * scale, math.inf)
    if k == 1:  # one tap: the same matrix at every frequency
        return norm_bound(weight[:, :, 0, 0])
    more = torus_margin(k, padding_mode)
    size = (size[0] + more, size[1] + more)
    # A sum of k*k products with phases; their angles are below 2 pi, so they are off by some units of roundoff each.
    entry_error = 32 * (k * k + 4) * UNIT_ROUNDOFF * float(weight.abs().sum((2, 3)).norm())
    symbol = kernel_symbol(weight, size)
    # Where both frequencies are their own conjugates the matrix is real; real products are four times cheaper.
    alone = [0, size[0] // 2] if size[0] % 2 == 0 and size[0] > 1 else [0]
    across = [0, size[1] // 2] if size[1] % 2 == 0 and size[1] > 1 else [0]
    rest = torch.ones(symbol.shape[:2], dtype=torch.bool)
    rest[torch.tensor(alone)[:, None], torch.tensor(across)] = False
    bound = norm_bound(symbol[~rest].real, entry_error)
    return nan_max(bound, norm_bound(symbol[rest], entry_error)) if rest.any() else bound
