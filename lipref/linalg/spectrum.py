"""Convolutions in the frequency domain.

The symbol of a circular convolution is the family of matrices, one per frequency, that its Fourier transform is
multiplied with. It is evaluated as a trigonometric sum over the taps, by two small dense products, so that it is
exact for every image size: odd ones, and ones smaller than the kernel, where taps wrap around.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lipref.linalg.constants import cached


def taps(k: int, device: torch.device | str = "cpu") -> Tensor:
    """Places of k centred taps along an axis, float64 ``(k,)``."""
    return torch.arange(k, device=device, dtype=torch.float64) - (k - 1) // 2


def _phases(frequencies: Tensor, size: int, places: Tensor) -> Tensor:
    """``exp(2 pi i f d / size)`` for all frequencies f and places d: ``(F, D)``."""
    angle = 2 * math.pi / size * (torch.outer(frequencies, places) % size)
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
    rows = _phases(torch.arange(height, device=device, dtype=torch.float64), height, taps(k, device))
    columns = _phases(torch.arange(width // 2 + 1, device=device, dtype=torch.float64), width, taps(k, device))
    complex_dtype = torch.complex128 if weight.dtype == torch.float64 else torch.complex64
    rows, columns = rows.to(weight.device, complex_dtype), columns.to(weight.device, complex_dtype)
    partial = torch.tensordot(weight.to(complex_dtype), columns, dims=([3], [1]))  # (O, I, k, W')
    return torch.einsum("oidw,hd->hwoi", partial, rows)


def constrained_symbol(weight: Tensor, size: tuple[int, int], function: Callable[[Tensor], Tensor]) -> Tensor:
    """``function`` of every matrix of `kernel_symbol`, ``(H, W//2 + 1, ..., O, I)``.

    ``weight`` is a kernel ``(O, I, k, k)``, or several of them ``(..., O, I, k, k)``. From matrices ``(n, ..., O, I)``
    the function makes others, and respects conjugation. It gets those that are real, where both frequencies are their
    own conjugates, as real numbers, and one of two that are conjugates of each other, as in the columns of frequency 0
    and W/2; the others are never made.
    """
    height, width = size
    k, shape = weight.shape[-1], weight.shape[:-2]
    constants = _constants(height, width, k, str(weight.device), weight.dtype)
    flat = weight.movedim((-2, -1), (0, 1)).reshape(k * k, -1)
    real = function((constants.real_waves @ flat).unflatten(1, shape))
    dtype = torch.complex128 if weight.dtype == torch.float64 else torch.complex64
    pairs = real.new_empty((0, *real.shape[1:]), dtype=dtype)
    if len(constants.waves):
        pairs = function((constants.waves @ flat.to(dtype)).unflatten(1, shape))
    mirrored = pairs.index_select(0, constants.sources).conj()
    whole = torch.cat((real.to(dtype), pairs, mirrored)).index_select(0, constants.order)
    return whole.unflatten(0, (height, width // 2 + 1))


@dataclass(frozen=True)
class Places:
    """Flat places in a half spectrum: of real matrices, of half of the others, and of their conjugates.

    ``mirrored[n]`` is where the conjugate of the matrix at ``pairs[sources[n]]`` belongs.
    """

    alone: list[int]
    pairs: list[int]
    mirrored: list[int]
    sources: list[int]


@functools.cache
def half_spectrum(height: int, width: int) -> Places:
    """Of images of ``(height, width)``."""
    half = width // 2 + 1
    places = Places([], [], [], [])
    for row in range(height):
        for column in range(half):
            own = 2 * column % width == 0  # the column holds conjugate pairs
            if own and 2 * row % height == 0:
                places.alone.append(row * half + column)
            elif not own or 2 * row < height:
                if own:
                    places.mirrored.append((height - row) * half + column)
                    places.sources.append(len(places.pairs))
                places.pairs.append(row * half + column)
    return places


class _Constants(NamedTuple):
    """What `constrained_symbol` uses at every call.

    ``sources`` of `Places`; in which ``order`` the half spectrum has the real matrices, the others and the conjugates,
    one after the other; `waves` of the first two.
    """

    sources: Tensor
    order: Tensor
    real_waves: Tensor
    waves: Tensor


@cached
def _constants(height: int, width: int, k: int, device: str, dtype: torch.dtype) -> _Constants:
    places, centred = half_spectrum(height, width), taps(k)
    complex_dtype = torch.complex128 if dtype == torch.float64 else torch.complex64
    with torch.no_grad():
        real_waves = waves(places.alone, (height, width), centred, centred).real.to(dtype)
        pair_waves = waves(places.pairs, (height, width), centred, centred).to(complex_dtype)
        sources = torch.tensor(places.sources, dtype=torch.int64)
        order = torch.empty(height * (width // 2 + 1), dtype=torch.int64)
        order[[*places.alone, *places.pairs, *places.mirrored]] = torch.arange(len(order))
        return _Constants(*(value.to(device) for value in (sources, order, real_waves, pair_waves)))


def waves(places: list[int], size: tuple[int, int], rows: Tensor, columns: Tensor) -> Tensor:
    """``exp(2 pi i (f d / H + g e / W))`` for the frequencies (f, g) at flat places, all rows d and all columns e.

    ``(places, D * E)``, in double precision: an error of the phases would be the symbol's.
    """
    (height, width), half = size, size[1] // 2 + 1
    flat = torch.tensor(places, dtype=torch.float64)
    along_rows = _phases(flat.div(half, rounding_mode="floor"), height, rows)
    return (along_rows[:, :, None] * _phases(flat % half, width, columns)[:, None, :]).flatten(1)


def apply_symbol(x: Tensor, symbol: Tensor) -> Tensor:
    """Multiply the spectrum of ``x`` ``(N, I, H, W)``, real, by ``symbol`` ``(H, W//2 + 1, O, I)``.

    In float64, which certificates are computed in, the Fourier transforms are dense products: the rounding of an inner
    product is known, that of a library's fast transform is not. Returns ``(N, O, H, W)``.
    """
    if x.dtype == torch.float64:
        return apply_symbol_densely(x, symbol)
    spectrum = torch.fft.rfft2(x).permute(2, 3, 1, 0).contiguous()  # (H, W', I, N), which alone is saved
    return torch.fft.irfft2((symbol @ spectrum).permute(3, 2, 0, 1), s=x.shape[-2:])


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
