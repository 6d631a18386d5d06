"""Convolutions in the frequency domain.

The symbol of a circular convolution is the family of matrices, one per frequency, that its Fourier transform is
multiplied with. It is evaluated as a trigonometric sum over the taps, by two small dense products, so that it is
exact for every image size: odd ones, and ones smaller than the kernel, where taps wrap around.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor


def _phases(frequencies: Tensor, size: int, k: int) -> Tensor:
    """``exp(2 pi i f (d - (k-1)/2) / size)`` for all frequencies f and taps d: ``(F, k)``."""
    taps = torch.arange(k, device=frequencies.device, dtype=frequencies.dtype) - (k - 1) // 2
    angle = 2 * math.pi / size * (torch.outer(frequencies, taps) % size)
    return torch.polar(torch.ones_like(angle), angle)


def kernel_symbol(weight: Tensor, size: tuple[int, int]) -> Tensor:
    """Symbol of the centred circular cross-correlation with ``weight`` ``(O, I, k, k)``, real.

    Returns, for an image of ``size`` ``(H, W)``, the half spectrum ``(H, W//2 + 1, O, I)``, complex: the other half is
    its conjugate because the kernel is real. It equals the phase-centred conjugate of the kernel's FFT where the image
    is not smaller than the kernel.
    """
    height, width = size
    k = weight.shape[-1]
    # Phases in float64 whatever the weight: their error would be the symbol's. MPS has no float64.
    device = torch.device("cpu") if weight.device.type == "mps" else weight.device
    rows = _phases(torch.arange(height, device=device, dtype=torch.float64), height, k)
    columns = _phases(torch.arange(width // 2 + 1, device=device, dtype=torch.float64), width, k)
    complex_dtype = torch.complex128 if weight.dtype == torch.float64 else torch.complex64
    rows, columns = rows.to(weight.device, complex_dtype), columns.to(weight.device, complex_dtype)
    partial = torch.tensordot(weight.to(complex_dtype), columns, dims=([3], [1]))  # (O, I, k, W')
    return torch.einsum("oidw,hd->hwoi", partial, rows)


def map_symbol(symbol: Tensor, width: int, function: Callable[[Tensor], Tensor]) -> Tensor:
    """``function`` of every matrix of a half spectrum ``(H, W//2 + 1, O, I)`` of images ``width`` wide.

    From matrices ``(n, O, I)`` it makes others, and respects conjugation. It gets those that are real, where both
    frequencies are their own conjugates, as real numbers, and one of two that are conjugates of each other, as in the
    columns of frequency 0 and W/2.
    """
    alone, pairs, order = (
        torch.tensor(places, dtype=torch.int64, device=symbol.device) for places in _independent(symbol.shape[0], width)
    )
    flat = symbol.flatten(0, 1)
    real = function(flat[alone].real).to(symbol.dtype)
    if not len(pairs):
        return real[order].unflatten(0, symbol.shape[:2])
    other = function(flat[pairs])
    return torch.cat((real, other, other.conj()))[order].unflatten(0, symbol.shape[:2])


@functools.cache
def _independent(height: int, width: int) -> tuple[list[int], list[int], list[int]]:
    """Flat places in the half spectrum of the real matrices and of half of the others, and where each is then found.

    The last numbers the real ones, then the others, then the others' conjugates.
    """
    half = width // 2 + 1
    alone, pairs = [], []
    for row in range(height):
        for column in range(half):
            own = 2 * column % width == 0  # the column holds conjugate pairs
            if own and 2 * row % height == 0:
                alone.append(row * half + column)
            elif not own or 2 * row < height:
                pairs.append(row * half + column)
    where = {place: number for number, place in enumerate(alone + pairs)}
    order = []
    for row in range(height):
        for column in range(half):
            place = row * half + column
            mirrored = (height - row) % height * half + column
            order.append(where[place] if place in where else where[mirrored] + len(pairs))
    return alone, pairs, order


def apply_symbol(x: Tensor, symbol: Tensor) -> Tensor:
    """Multiply the spectrum of ``x`` ``(N, I, H, W)``, real, by ``symbol`` ``(H, W//2 + 1, O, I)``.

    In float64, which certificates are computed in, the Fourier transforms are dense products: the rounding of an inner
    product is known, that of a library's fast transform is not. Returns ``(N, O, H, W)``.
    """
    if x.dtype == torch.float64:
        return apply_symbol_densely(x, symbol)
    spectrum = torch.fft.rfft2(x).permute(2, 3, 1, 0)  # (H, W', I, N)
    product = symbol @ spectrum
    return torch.fft.irfft2(product.permute(3, 2, 0, 1), s=x.shape[-2:])


def apply_symbol_densely(x: Tensor, symbol: Tensor) -> Tensor:
    """`apply_symbol` with the transforms as products with dense matrices."""
    height, width = x.shape[-2:]
    half = width // 2 + 1
    precise = {"device": "cpu" if x.device.type == "mps" else x.device, "dtype": torch.float64}

    def waves(frequencies: int, points: int) -> Tensor:
        """``exp(-2 pi i f p / points)``, ``(frequencies, points)``."""
        product = torch.outer(torch.arange(frequencies, **precise), torch.arange(points, **precise)) % points
        angle = -2 * math.pi / points * product
        return torch.polar(torch.ones_like(angle), angle).to(x.device, symbol.dtype)

    rows, columns = waves(height, height), waves(half, width)
    spectrum = rows @ (x.to(symbol.dtype) @ columns.T)  # (N, I, H, W')
    product = symbol @ spectrum.permute(2, 3, 1, 0)  # (H, W', O, N)
    # Every column but the first, and the last of an even width, stands for its conjugate too.
    weights = torch.full((half, 1), 2.0, **precise)
    weights[0] = 1.0
    if width % 2 == 0:
        weights[-1] = 1.0
    weights = (weights / (height * width)).to(x.device, x.dtype)
    y = rows.conj() @ product.permute(3, 2, 0, 1)  # (N, O, H, W')
    return y.real @ (columns.real * weights) + y.imag @ (columns.imag * weights)
