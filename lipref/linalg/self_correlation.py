"""The row sums that bound a kernel's norm, with 13 matrix products in place of 45 for a 3x3 kernel (Toom and Cook).

Along one axis the kernel is a polynomial W(z) = W_0 + W_1 z + W_2 z^2 with matrices as coefficients, and its
self-correlation ``G_d = sum_p W_p^T W_{p+d}`` the Laurent polynomial ``D(z) = W(1/z)^T W(z)``, whose five coefficients
follow from its values at five points. Because ``D(1/z) = D(z)^T`` the points are taken in pairs z, 1/z: one product
gives two values. With two axes 25 points make 12 pairs and one point of its own.

The diagonal of the middle tap is left out, and what it adds is added entry by entry. Training starts from the identity:
what the products round is then as small as the distance from it.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lipref.linalg.constants import kept
from lipref.linalg.gram import input_gram
from lipref.linalg.long_products import small_times_long

# 0, infinity, 1, A, 1/A. This A keeps the rounding of the interpolation smallest.
A = -1.9
NEAR = 8  # units of roundoff of the largest entry: below that a sign may be wrong
NARROW = 64  # channels below which `absolute_gram` takes the sum over the taps, which is as quick
FEW = 1 / 32  # of a matrix's entries: from that many near 0 on all are summed anew, which is as quick
MOST = 2**12  # of them at any size: each is gathered with a kernel's column, twice
_PARTNER = (1, 0, 2, 4, 3)
_SHIFTS = [(0, 0), *((0, d) for d in (1, 2)), *((d, e) for d in (1, 2) for e in range(-2, 3))]  # the other half: -shift


def absolute_gram(weight: Tensor) -> Tensor:
    """``sum_delta |G[i, j, delta]|`` of `input_gram`, ``(I, I)``, symmetric and differentiable once.

    3x3 kernels in float32, which networks are trained in, take a way of fewer products; float64, which certificates
    rest on, always the sum over the taps.
    """
    if weight.shape[-1] == 1:
        return _AbsoluteProduct.apply(weight.flatten(1))
    if weight.shape[-1] == 3 and weight.dtype == torch.float32 and weight.is_cuda:
        return absolute_grams(weight[None])[0]
    if weight.shape[-1] == 3 and weight.dtype == torch.float32 and min(weight.shape[:2]) >= NARROW:
        return absolute_self_correlation(weight)
    return input_gram(weight).abs().sum((2, 3))


def absolute_grams(weights: Tensor) -> Tensor:
    """`absolute_gram` of several kernels ``(L, O, I, k, k)``, k = 1 or 3: ``(L, I, I)``. It waits for no device.

    Of 3x3 kernels by 45 products, of which zeros are exact, and by the 26 of `absolute_self_correlation` backward.
    """
    if weights.shape[-1] == 1:
        return _AbsoluteProduct.apply(weights.flatten(2))
    return _AbsoluteGrams.apply(weights)


class _AbsoluteProduct(torch.autograd.Function):
    """``|W^T W|`` of ``W`` ``(..., O, I)``: because it is symmetric, its gradient is one product, not two."""

    @staticmethod
    def forward(ctx, weight: Tensor) -> Tensor:
        product = weight.mT @ weight
        ctx.save_for_backward(weight, product.sign().to(torch.int8))
        return product.abs()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        weight, signs = ctx.saved_tensors
        return weight @ (signs * (grad + grad.mT))


class _AbsoluteGrams(torch.autograd.Function):
    """Saves the kernels and, as bytes, the signs of half of their self-correlations ``(L, I, 13, I)``."""

    @staticmethod
    def forward(ctx, weights: Tensor) -> Tensor:
        count, outputs, inputs = weights.shape[:3]
        taps = weights.movedim((3, 4), (2, 3)).reshape(count, outputs, 9 * inputs)
        products = [
            taps[:, :, tap * inputs : (tap + 1) * inputs].mT @ taps[:, :, tap * inputs :] for tap in range(9)
        ]  # a tap with itself and with all later ones
        products = torch.cat(products, -1).view(count * inputs, 45, inputs)
        half = (_like(_sums(), products) @ products).view(count, inputs, len(_SHIFTS), inputs)
        ctx.save_for_backward(weights, half.sign().to(torch.int8))
        half = half.abs()
        rest = half[:, :, 1:].sum(2)
        return half[:, :, 0] + rest + rest.mT

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        weights, signs = ctx.saved_tensors
        half = (signs * (grad + grad.mT)[:, :, None]).movedim(2, 0).contiguous()
        torch.mul(signs[:, :, 0], grad, out=half[0])
        products = _interpolated_adjoint(half)
        first, second = _values(weights)
        return _values_adjoint(torch.stack((second @ products, first @ products.mT)), weights)


@functools.cache
def _sums() -> np.ndarray:
    """``(13, 45)``: of the products of a tap with itself and all later ones, which have the same shift."""
    sums = np.zeros((len(_SHIFTS), 45))
    places = list(itertools.product(range(3), repeat=2))
    for number, ((row, column), (later, other)) in enumerate(itertools.combinations_with_replacement(places, 2)):
        sums[_SHIFTS.index((later - row, other - column)), number] = 1
    return sums


class _AbsoluteSelfCorrelation(torch.autograd.Function):
    """Saves the kernel and, as bytes, the signs of half of its self-correlation."""

    @staticmethod
    def forward(ctx, weight: Tensor) -> Tensor:
        diagonal = weight[:, :, 1, 1].diagonal()
        rest = weight.clone(memory_format=torch.contiguous_format)
        rest[:, :, 1, 1].diagonal().fill_(0)
        first, second = _values(rest)
        half = _interpolated(second.mT @ first)
        del first, second
        scale = half[0].diagonal().amax()
        _add_diagonal(half, rest, diagonal)
        half, sizes = _with_near_zeros(half, weight, NEAR * torch.finfo(half.dtype).eps * scale)
        ctx.save_for_backward(weight, half.sign_().to(torch.int8))
        rest = sizes[1:].sum(0)
        return sizes[0] + rest + rest.mT

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        weight, signs = ctx.saved_tensors
        half = signs * (grad + grad.mT)
        torch.mul(signs[0], grad, out=half[0])
        products = _interpolated_adjoint(half)
        del half
        first, second = _values(weight)
        gradient = first.new_empty(2, *first.shape)
        torch.bmm(second, products, out=gradient[0])
        torch.bmm(first, products.mT, out=gradient[1])
        del first, second
        return _values_adjoint(gradient, weight)


def absolute_self_correlation(weight: Tensor) -> Tensor:
    """``sum_delta | sum_{o, p} weight[o, i, p] weight[o, j, p + delta] |``, ``(I, I)``, of a kernel ``(O, I, 3, 3)``.

    Differentiable once. Rounding is some three times that of the sum over pairs of taps; entries so near to 0 that it
    could turn their signs, which are the gradient, are summed over the taps.
    """
    return _AbsoluteSelfCorrelation.apply(weight)


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


@functools.cache
def _evaluation() -> np.ndarray:
    """``(26, 9)``: from the taps of a 3x3 kernel its values at the 13 points, then at their partners."""
    finite = [[1, z, z * z] for z in (1.0, A, 1 / A)]
    one = np.array([[1, 0, 0], [0, 0, 1], *finite])
    first, second, _ = _pairs()
    return np.kron(one, one)[first + second]


@functools.cache
def _interpolation() -> np.ndarray:
    """``(26, 13)``: from the 13 products the part of half of the coefficients that is straight, then the transposed."""
    finite = [[z**d for d in range(-2, 3)] for z in (1.0, A, 1 / A)]
    one = np.linalg.inv(np.array([[1, 0, 0, 0, 0], [0, 0, 0, 0, 1], *finite]))
    both = np.kron(one, one)[[5 * (d + 2) + e + 2 for d, e in _SHIFTS]]
    parts = np.zeros((2, 13, 13))
    for point, place in enumerate(_pairs()[2]):
        parts[int(place < 0), :, abs(place)] += both[:, point]
    return parts.reshape(26, 13)


def _add_diagonal(half: Tensor, rest: Tensor, diagonal: Tensor) -> None:
    """What the diagonal D of the middle tap adds to the self-correlation of the rest E: ``D^T E + E^T D + D^T D``."""
    n = len(diagonal)
    column = diagonal[:, None]
    for number, (down, right) in enumerate(_SHIFTS):
        if max(abs(down), abs(right)) <= 1:
            half[number, :n].addcmul_(column, rest[:n, :, 1 + down, 1 + right])
            half[number, :, :n].addcmul_(rest[:n, :, 1 - down, 1 - right].T, diagonal)
    half[0].diagonal()[:n].addcmul_(diagonal, diagonal)


def _with_near_zeros(half: Tensor, weight: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
    """``half`` with the entries below ``least`` summed over the taps, and its absolute values."""
    sizes = half.abs()
    places = (sizes < least).nonzero(as_tuple=True)
    if len(places[0]) > min(FEW * half[0].numel(), MOST):
        whole = input_gram(weight)
        half = torch.stack([whole[:, :, 2 + down, 2 + right] for down, right in _SHIFTS])
        return half, half.abs()
    shifts, one, other = places
    taps = weight.flatten(2)
    products = taps[:, one].permute(1, 2, 0) @ taps[:, other].transpose(0, 1)  # of all pairs of taps
    values = (products * _like(_overlaps(), weight)[shifts]).sum((1, 2))
    half[places], sizes[places] = values, values.abs()
    return half, sizes


@functools.cache
def _overlaps() -> np.ndarray:
    """``(13, 9, 9)``: 1 where the second tap is the first one shifted."""
    taps = np.array(list(itertools.product(range(3), repeat=2)))
    shifts = np.array(_SHIFTS)
    return (taps[:, None] + shifts[:, None, None] == taps).all(-1).astype(float)


def _like(matrix: np.ndarray, tensor: Tensor) -> Tensor:
    return _constant(matrix.tobytes(), matrix.shape, str(tensor.device), tensor.dtype)


@kept
def _constant(values: bytes, shape: tuple[int, ...], device: str, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(np.frombuffer(values).reshape(shape).copy()).to(device, dtype)


def _values(weight: Tensor) -> Tensor:
    """``(2, 13, ..., O, I)`` of ``(..., O, I, 3, 3)``: at the points and at their partners."""
    taps = weight.movedim((-2, -1), (0, 1)).reshape(9, -1)
    return small_times_long(_like(_evaluation(), weight), taps).view(2, 13, *weight.shape[:-2])


def _values_adjoint(gradient: Tensor, weight: Tensor) -> Tensor:
    taps = _like(_evaluation(), gradient).T @ gradient.flatten(2).flatten(0, 1)
    return taps.view(3, 3, *weight.shape[:-2]).movedim((0, 1), (-2, -1))


def _interpolated(products: Tensor) -> Tensor:
    parts = small_times_long(_like(_interpolation(), products), products.flatten(1))
    straight, transposed = parts.view(2, *products.shape)
    return straight.add_(transposed.mT)


def _interpolated_adjoint(half: Tensor) -> Tensor:
    matrix = _like(_interpolation(), half).view(2, 13, 13).mT.reshape(26, 13)
    straight, transposed = small_times_long(matrix, half.flatten(1)).view(2, *half.shape)
    return straight.add_(transposed.mT)
