"""Convolutions of small images by few products of matrices, for training on a CPU.

In the real Fourier basis of a torus of n places a convolution is one matrix per frequency: real where the frequency is
its own conjugate, else complex, and then it stands for two, and three real products make it (Gauss). Those are some
1.5 n products in place of the 9 n of a 3x3 kernel. Zero padding is a torus larger by half a kernel. All of it is one
bilinear map ``C^T [ (A w) (B x) ]`` of taps w and image x with constant matrices A, B and C; the maps that give its
gradients are of the same kind. A third of the rows of B and C are sums of two others: there images are added, and
products added to two others, in place of transforming them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lipref.linalg.by_hand import trains_on_cpu
from lipref.linalg.constants import kept
from lipref.linalg.long_products import small_times_long
from lipref.linalg.spectrum import half_spectrum, taps, waves

# Of multiply-accumulates in a time, relative to a direct convolution; measured on two cores with AVX-512.
PRODUCT = 0.6
SKINNY = 0.12  # of a kernel's matrices from its few taps: a pass over memory
# Of the largest torus, that of 8x8 with zero padding: beyond, the transforms and what they make in between take more
# memory than is won.
PLACES = 81
PARTS = 8  # of the outputs, in `gradient_of_taps`: an even number, for an even number of cores
BORDER = 0.55  # what a direct convolution spends on the border of circular padding, in places of the image


def pays(x: Tensor, weight: Tensor, padding_mode: str, convolutions: int = 1) -> bool:
    """Whether this is the quicker way to convolve ``x`` ``(N, I, H, W)`` with ``weight`` ``(O, I, k, k)`` and train.

    So many ``convolutions`` with the same kernel, one after the other (`lipref.linalg.torus_chains`).

    In float32 on a CPU. The libraries of other devices know such ways themselves, and evaluation, of whose rounding
    certificates give account, is direct.
    """
    outputs, inputs, k, _ = weight.shape
    if k == 1 or not trains_on_cpu(x) or x.dtype != torch.float32 or weight.dtype != x.dtype:
        return False
    (count, _, height, width), half = x.shape, k // 2
    places, bordered, matrices = height * width, (height + 2 * half) * (width + 2 * half), outputs * inputs
    margin = 0 if padding_mode == "circular" else half
    torus = (height + margin) * (width + margin)
    if torus > PLACES:
        return False
    rank = 1.5 * torus
    products = rank * count * (matrices + places * (outputs + inputs))
    here = convolutions * products / PRODUCT + rank * k * k * matrices / SKINNY
    border = 0 if padding_mode == "zeros" else BORDER * (bordered - places)
    return here < convolutions * k * k * (places + border) * count * matrices


class Way(NamedTuple):
    """The matrices of ``C^T [ (A w) (B x) ]``: A ``(Q + P, k k)`` of taps, B and C ``(Q, H W)`` of images.

    Q = ``alone`` + 2 P are the places of the torus: rows of so many frequencies, and of P others two groups. Those of B
    and C that belong to the last P rows of A would be sums of the two groups, see `sums`. ``through`` is ``B C^T``,
    ``(Q, Q)``: out of the basis and into it again.
    """

    of_taps: Tensor
    of_input: Tensor
    of_output: Tensor
    through: Tensor
    alone: int


@kept
def _way(height: int, width: int, k: int, padding_mode: str, device: str, dtype: torch.dtype) -> Way:
    margin = 0 if padding_mode == "circular" else k // 2
    torus = height + margin, width + margin
    frequencies = half_spectrum(*torus)

    def parts(rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the frequencies that are their own conjugates, and real and imaginary part of the others."""
        others = waves(frequencies.pairs, torus, rows, columns)
        return waves(frequencies.alone, torus, rows, columns).real, others.real, others.imag

    # (p + iq)(r - is) = (u + w) + i(u + v) with u = p(r - s), v = (q - p)r, w = (p + q)s; its real part times the wave
    # r + is counts twice, because the conjugate is left out: 2(r(u + w) - s(u + v)).
    own, p, q = parts(taps(k), taps(k))
    of_taps = torch.cat((own, q - p, -p - q, p))
    own, r, s = parts(*(torch.arange(side, dtype=torch.float64) for side in (height, width)))
    of_input = torch.cat((own, r, -s))
    of_output = torch.cat((own, -2 * s, 2 * r)) / (torus[0] * torus[1])
    matrices = (value.to(device, dtype) for value in (of_taps, of_input, of_output, of_input @ of_output.mT))
    return Way(*matrices, len(frequencies.alone))


def way_of(x: Tensor, weight: Tensor, padding_mode: str) -> Way:
    """For images ``(N, I, H, W)`` and a kernel ``(O, I, k, k)``."""
    return _way(*x.shape[-2:], weight.shape[-1], padding_mode, str(x.device), x.dtype)


def _into(basis: Tensor, x: Tensor) -> Tensor:
    """``(Q, N, C)`` from images ``(N, C, H, W)`` or ``(N, C, H W)``; each image by one core."""
    return torch.bmm(basis.expand(len(x), -1, -1), x.flatten(2).mT).transpose(0, 1)


def sums(way: Way, y: Tensor, out: Tensor | None = None) -> Tensor:
    """The P rows ``(P, N, C)`` that are missing in ``y`` ``(Q, N, C)``."""
    return torch.add(*y[way.alone :].unflatten(0, (2, -1)), out=out)


def sums_in_place(way: Way, y: Tensor) -> Tensor:
    """`sums`, where nobody needs ``y`` any more: the first of its two groups."""
    first, second = y[way.alone :].unflatten(0, (2, -1))
    return first.add_(second)


def add_sums(way: Way, products: Tensor, last: Tensor) -> None:
    """To both groups of ``products`` ``(Q, N, C)``, in place, those of `sums`: then C transforms them."""
    products[way.alone :].unflatten(0, (2, -1)).add_(last)


def _products(way: Way, y: Tensor, matrices: Tensor) -> Tensor:
    """``(Q, N, C')``."""
    products = y @ matrices[: len(y)]
    add_sums(way, products, sums(way, y) @ matrices[len(y) :])
    return products


def _from(basis: Tensor, y: Tensor) -> Tensor:
    """``(N C, H W)``."""
    return y.flatten(1).mT @ basis


def matrices_of(way: Way, weight: Tensor) -> Tensor:
    """``(R, O, I)``."""
    flat = weight.flatten(2).flatten(0, 1).mT
    return small_times_long(way.of_taps, flat).unflatten(1, weight.shape[:2])


def gradient_of_taps(way: Way, first: Tensor, last: Tensor, shape: torch.Size) -> Tensor:
    """Of a kernel of ``shape`` ``(O, I, k, k)`` from the gradient of its matrices, ``(Q, O, I)`` and ``(P, O, I)``.

    Some outputs at a time, by one core without waiting for another.
    """
    outputs, inputs, *taps = shape
    parts = PARTS if outputs % PARTS == 0 else 1
    rows = way.of_taps.mT.expand(parts, -1, -1)
    first, last = (each.reshape(len(each), parts, outputs // parts * inputs).transpose(0, 1) for each in (first, last))
    flat = torch.baddbmm(rows[..., : len(way.of_input)] @ first, rows[..., len(way.of_input) :], last)
    return flat.view(parts, *taps, outputs // parts, inputs).permute(0, 3, 4, 1, 2).reshape(shape)


class _Convolution(torch.autograd.Function):
    """Keeps x and weight alone: the matrices are made again. Differentiable as often as one likes."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, padding_mode: str) -> Tensor:
        way = way_of(x, weight, padding_mode)
        products = _products(way, _into(way.of_input, x), matrices_of(way, weight).mT)
        return _from(way.of_output, products)  # no view, which nobody could change in place

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, Tensor, str], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.padding_mode = inputs[2]

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        way, of_x, of_weight = way_of(x, weight, ctx.padding_mode), None, None
        grad = _into(way.of_output, grad.unflatten(0, (len(x), len(weight))))
        if ctx.needs_input_grad[0]:
            of_x = _from(way.of_input, _products(way, grad, matrices_of(way, weight))).view(x.shape)
        if ctx.needs_input_grad[1]:
            inputs = _into(way.of_input, x)
            outer = grad.mT @ inputs, sums(way, grad).mT @ sums(way, inputs)
            of_weight = gradient_of_taps(way, *outer, weight.shape)
        return of_x, of_weight, None


def convolve(x: Tensor, weight: Tensor, padding_mode: str) -> Tensor:
    """`lipref.linalg.padding.conv2d_same` without a bias.

    ``x`` ``(N, I, H, W)`` and ``weight`` ``(O, I, k, k)``, k odd; output ``(N, O, H, W)``.
    """
    y = _Convolution.apply(x, weight, padding_mode)
    return y.view(len(x), len(weight), *x.shape[2:])
