"""The inverse square root of Hermitian positive definite matrices in few products, which GPUs are good at."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lipref.linalg.asking import decide, places, recording
from lipref.linalg.constants import PROBES, probes
from lipref.linalg.minimax import Step, steps_to_inverse_root

NEAR = 2**-0.25  # distance from a multiple of I, relative to it, up to which that is what is known of the spectrum
LEAST = 0.003  # eigenvalue, relative to the largest, down to which the steps reach
MOST = 0.2  # above that they are not worth a look
POWER = 12  # of the test for small eigenvalues
PASSED = 4.0  # the sum of that power that passes
ROOM = 2.0  # while answers are recorded: how far the spectrum may move before they hold no more
SLACK = PASSED ** (-1 / POWER)  # so that one eigenvalue passes down to this times the limit


class Root(NamedTuple):
    """``inverse`` is S^(-1/2) ``(n, m, m)``, but for the matrices numbered ``missed``, whose eigenvalues are too small.

    S^(1/2) of the others has its eigenvalues between ``scale`` ``(n, 1, 1)`` times the two numbers of ``interval``.
    """

    inverse: Tensor
    scale: Tensor
    interval: tuple[float, float]
    missed: Tensor


def inverse_root(s: Tensor, least: Tensor) -> Root | None:
    """Of ``s`` ``(n, m, m)``, Hermitian, where all eigenvalues are above ``least`` ``(n, 1, 1)``; None: ask elsewhere.

    By coupled steps ``Y <- Y T``, ``Z <- T Z`` from ``Y = S / scale^2``, ``Z = I``, where T is a polynomial in
    ``E = I - Z Y`` (Higham, "Stable iterations for the matrix square root", 1997), here the minimax polynomial for what
    is known of the spectrum: from ``||(S - mean I)^2||_F`` near a multiple of I, else from ``least``.

    Products of matrices, with that norm's: 1 or 2 where S differs from a multiple of I by up to 0.08 of it, 5 up to 0.4
    and 7 up to 0.8, else 7 to 11. The device is asked once near a multiple of I, else twice.
    """
    mean = s.diagonal(dim1=-2, dim2=-1).real.mean(-1)[:, None, None]
    e = -s / mean
    e.diagonal(dim1=-2, dim2=-1).add_(1)
    square = e @ e
    radius = torch.linalg.matrix_norm(square, keepdim=True).sqrt()
    top = torch.minimum(1 + radius, torch.linalg.matrix_norm(s, keepdim=True) / mean)
    floor = (least / mean / top).clamp_min(LEAST / SLACK)
    distance, relative, lowest = radius.amax(), (least / mean).amax(), floor.amin()
    around, lowest = decide(
        (distance, relative, lowest),
        _spectrum,
        lambda answer: (
            (distance <= _roomy(answer[0])) & (relative <= 1 - distance)
            if answer[0]
            else lowest >= answer[1] / ROOM ** recording()
            if answer[1] <= MOST
            else None
        ),
    )
    if around:
        around = _roomy(around)
        low, high, scale = 1 - around, 1 + around, mean.sqrt()
        z = _by_steps(e, square, steps_to_inverse_root(low, high, 1.0))
        missed = torch.empty(0, dtype=torch.int64, device=s.device)
        return Root(z / scale, scale, (low**0.5, high**0.5), missed)
    if not lowest <= MOST:  # NaN too
        return None
    lowest = lowest / ROOM ** recording()
    low, scale = 1 / _upwards(1 / (SLACK * lowest)), (mean * top).sqrt()
    # Of X = S / top the polynomials are in F = I - 2 X.
    share, constant = 1 / top, 1 - 2 / top
    square = (4 * share.square()) * square
    square.add_((4 * share * constant) * e).diagonal(dim1=-2, dim2=-1).add_(constant.square()[..., 0])
    e = (2 * share) * e
    e.diagonal(dim1=-2, dim2=-1).add_(constant[..., 0])
    z = _by_steps(e, square, steps_to_inverse_root(low, 1.0, 0.5))
    return Root(z / scale, scale, (low**0.5, 1.0), places(_below(z, floor)))


def _by_steps(f: Tensor, square: Tensor, steps: tuple[Step, ...]) -> Tensor:
    """``X^(-1/2)`` from ``F = I - X / half`` and its square, half being the first step's."""
    eye = torch.eye(f.shape[-1], dtype=f.dtype, device=f.device)
    y = z = f
    for number, step in enumerate(steps):
        if number:
            f = torch.baddbmm(eye, z, y, alpha=-1)
            square = f @ f if step.degree > 1 else f
        t = _polynomial(f, square, step.coefficients)
        if number + 1 < len(steps):  # X = half (I - F)
            y = y @ t if number else torch.baddbmm(t, f, t, beta=step.half, alpha=-step.half)
        z = t @ z if number else t
    return z


def _polynomial(f: Tensor, square: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """``sum of coefficients[k] F^k``, of degree 1, 2 or 4."""
    constant, linear, *others = coefficients
    if len(others) == 3:
        inner = (others[1] * f).add_(square, alpha=others[2])
        t = torch.baddbmm(square, square, inner, beta=others[0]).add_(f, alpha=linear)
    else:
        t = linear * f
        if others:
            t.add_(square, alpha=others[0])
    t.diagonal(dim1=-2, dim2=-1).add_(constant)
    return t


def _below(z: Tensor, floor: Tensor) -> Tensor:
    """Which ``X = Z^-2`` have eigenvalues below ``floor``, ``(n,)``.

    From the sum of ``(floor / x)^POWER`` over the eigenvalues x, estimated by random vectors: the largest decides.
    """
    z = floor.sqrt() * z
    y = probes(z.shape[-1], z.dtype, str(z.device)).expand(len(z), -1, -1)
    for _ in range(POWER):
        y = z @ y
    return ~(torch.linalg.vector_norm(y, dim=(-2, -1)).square() <= PASSED * PROBES)


def _spectrum(found: list[float]) -> tuple[float, float]:
    """Of distance, relative limit and lowest floor: the distance to count with, 0 where it is too large; the floor."""
    distance, relative, lowest = found
    near = distance <= NEAR and relative <= 1 - distance
    return (_upwards(max(distance, 1e-3)) if near else 0.0), lowest


def _roomy(around: float) -> float:
    """A distance for other weights too, while that is recorded."""
    return min(ROOM ** recording() * around, NEAR)


def _upwards(number: float) -> float:
    """To a power of 2^(1/4), so that few polynomials are ever asked for; `NEAR` is one."""
    return 2 ** (math.ceil(4 * math.log2(number) - 1e-9) / 4)
