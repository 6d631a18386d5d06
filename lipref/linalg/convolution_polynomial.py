"""A polynomial of a convolution, by Horner's scheme."""

from torch import Tensor

from lipref.linalg.padding import conv2d_same


def convolution_polynomial(x: Tensor, weight: Tensor, ratios: Tensor, padding_mode: str) -> Tensor:
    """``sum_j c_j L^j x``, ``c_0 = 1``, for the convolution L with ``weight`` ``(C, C, k, k)``; x ``(N, C, H, W)``.

    Args:
        ratios: ``c_j / c_{j-1}`` of the polynomial, ``(T,)``, without gradient: 1, 1/2, ..., 1/T for the exponential.
        padding_mode: of `conv2d_same`.
    """
    y = x
    for ratio in ratios.flip(0):
        y = x + conv2d_same(y, weight * ratio, None, padding_mode)
    return y
