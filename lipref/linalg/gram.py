"""The self-correlation of a kernel, and the row sums of its absolute values."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import torch
from torch import Tensor

from lipref.linalg.constants import cached

WIDE = 64  # channels from which the backward pass in fewer products pays
# Half of the shifts of a 3x3 kernel; of -shift it is the transpose.
_SHIFTS = [(0, 0), *((0, d) for d in (1, 2)), *((d, e) for d in (1, 2) for e in range(-2, 3))]
# Points 0, infinity, 1, A, 1/A. This A keeps the rounding of the interpolation smallest.
A = -1.9
_PARTNER = (1, 0, 2, 4, 3)


def absolute_gram(weight: Tensor) -> Tensor:
    """``sum_delta | sum_o sum_p weight[o, i, p] weight[o, j, p + delta] |`` of kernels ``(..., O, I, k, k)``.

    The kernel inside the absolute values is that of (adjoint convolution) o (convolution), over all shifts delta where
    the taps overlap. Returns ``(..., I, I)``, symmetric. Wide 3x3 kernels in float32, which networks are trained in,
    have a backward pass of fewer products.
    """
    wide = min(weight.shape[-4:-2]) >= WIDE and weight.shape[-1] == 3 and weight.dtype == torch.float32
    return _AbsoluteGram.apply(weight)[0] if wide else _sum(self_correlation(weight).abs())


def self_correlation(weight: Tensor) -> Tensor:
    """Half of the self-correlation, ``(S, ..., I, I)``, the shift 0 first, by one product for each pair of taps."""
    k = weight.shape[-1]
    taps = weight.movedim((-2, -1), (0, 1)).contiguous()
    half: dict[tuple[int, int], Tensor] = {}
    for one, other in itertools.combinations_with_replacement(itertools.product(range(k), repeat=2), 2):
        shift = (other[0] - one[0], other[1] - one[1])
        product = taps[one].mT @ taps[other]
        half[shift] = half[shift] + product if shift in half else product
    return torch.stack([half[shift] for shift in sorted(half)])


def _sum(half: Tensor) -> Tensor:
    """Over all shifts, from half of them."""
    rest = half[1:].sum(0)
    return half[0] + rest + rest.mT


class _AbsoluteGram(torch.autograd.Function):
    """`absolute_gram` whose backward pass takes 26 products in place of 90, and saves signs as bytes (Toom and Cook).

    Along one axis the kernel is a polynomial W(z) = W_0 + W_1 z + W_2 z^2 with matrices as coefficients, and its
    self-correlation ``G_d = sum_p W_p^T W_{p+d}`` the Laurent polynomial ``D(z) = W(1/z)^T W(z)``, whose five
    coefficients follow from its values at five points: a linear map, whose adjoint is taken here. Because
    ``D(1/z) = D(z)^T`` the points are taken in pairs z, 1/z; with two axes 25 points make 12 pairs and one of its own.
    The forward pass is not done so: its rounding could turn signs, which are the gradient.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor) -> tuple[Tensor, Tensor]:
        half = self_correlation(weight)
        return _sum(half.abs()), half.sign().to(torch.int8)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(inputs[0], output[1])

    @staticmethod
    def backward(ctx, grad: Tensor, _: Tensor) -> Tensor:
        weight, signs = ctx.saved_tensors
        half = torch.cat((signs[:1] * grad, signs[1:] * (grad + grad.mT)))
        straight, transposed = _interpolation(weight.dtype, str(weight.device)).mT @ half.flatten(1)[None]
        products = straight.view_as(half) + transposed.view_as(half).mT
        evaluation = _evaluation(weight.dtype, str(weight.device))
        taps = weight.movedim((-2, -1), (0, 1)).reshape(9, -1)
        first, second = (evaluation @ taps).view(2, 13, *weight.shape[:-2])
        values = torch.cat((second @ products, first @ products.mT))
        return (evaluation.mT @ values.flatten(1)).view(3, 3, *weight.shape[:-2]).movedim((0, 1), (-2, -1))


@functools.cache
def _pairs() -> tuple[list[int], list[int], list[int]]:
    """Flat indices of 13 points, of their partners, and for each of the 25 points its place (negative: transposed)."""
    first, second, places = [12], [12], [0] * 25
    for point in range(25):
        partner = 5 * _PARTNER[point // 5] + _PARTNER[point % 5]
        if point < partner:
            places[point], places[partner] = len(first), -len(first)
            first.append(point)
            second.append(partner)
    return first, second, places


@cached
def _evaluation(dtype: torch.dtype, device: str) -> Tensor:
    """``(26, 9)``: from the taps of a 3x3 kernel its values at the 13 points, then at their partners."""
    finite = [[1, z, z * z] for z in (1.0, A, 1 / A)]
    one = np.array([[1, 0, 0], [0, 0, 1], *finite])
    first, second, _ = _pairs()
    return torch.from_numpy(np.kron(one, one)[first + second]).to(device, dtype)


@cached
def _interpolation(dtype: torch.dtype, device: str) -> Tensor:
    """``(2, 13, 13)``: from the 13 products half of the coefficients: the straight part, and the transposed."""
    finite = [[z**d for d in range(-2, 3)] for z in (1.0, A, 1 / A)]
    one = np.linalg.inv(np.array([[1, 0, 0, 0, 0], [0, 0, 0, 0, 1], *finite]))
    both = np.kron(one, one)[[5 * (d + 2) + e + 2 for d, e in _SHIFTS]]
    parts = np.zeros((2, 13, 13))
    for point, place in enumerate(_pairs()[2]):
        parts[int(place < 0), :, abs(place)] += both[:, point]
    return torch.from_numpy(parts).to(device, dtype)
