"""Rigorous upper bounds of the largest eigenvalue of positive semidefinite matrices, without trust in a solver.

A candidate, by Lanczos or for narrow matrices by the eigenvalue solver, then a Cholesky factorisation that proves it:
if that of ``t I - G`` runs to its end in floating point, ``t I - G`` is positive definite up to a multiple of its trace
(Rump, Verification of positive definiteness, BIT 2006). Half a spectrum is one batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

UNIT_ROUNDOFF = 2.0**-53
SOLVED = 64  # columns up to which the solver's candidate is as cheap as Lanczos'
FLAT = 1e-9  # relative deviation from a multiple of the identity that needs no closer look
POWER_STEPS = 6
LANCZOS_STEPS = 50
BREAKDOWN = 1e-10  # of the matrix: a Lanczos vector shorter than that is rounding
TRIED = 8  # matrices of a batch that Lanczos looks at
SLACKS = {"solver": (1e-13, 1e-12, 1e-11, 1e-9, 1e-7), "lanczos": (1e-9, 3e-7)}
CHUNK = 2**24  # entries of one batch: 256 MB of complex128


def nan_max(*values: float) -> float:
    """The largest, or NaN where one is NaN: Python's ``max(1.0, nan)`` is 1."""
    return math.nan if any(math.isnan(value) for value in values) else max(values)


def largest_eigenvalue_bound(gram: Tensor) -> float:
    """Upper bound of all eigenvalues of Hermitian, positive semidefinite ``(..., n, n)``, float64 or complex128.

    Its own rounding is included, that of ``gram`` is not. The relative slack is some 1e-13 for up to 64 columns and
    1e-9, or 3e-7 where Lanczos has not converged well, for more, plus the rounding of the proof, 4e-16 n
    trace(t I - G). What no candidate proves is bounded by its row sums (Gershgorin).
    """
    columns = gram.shape[-1]
    gram = gram.reshape(-1, columns, columns)
    if columns > SOLVED:
        mean, deviation = _deviation(gram)
        if deviation <= FLAT * mean:
            return (mean + deviation) * (1 + 4 * UNIT_ROUNDOFF)
    gram, bound = (gram, 0.0) if columns <= SOLVED else _proved(gram, "lanczos")
    if len(gram):
        gram, more = _proved(gram, "solver")
        bound = nan_max(bound, more)
    return nan_max(bound, _row_sums(gram)) if len(gram) else bound


def _proved(gram: Tensor, candidates: str) -> tuple[Tensor, float]:
    """What of ``gram`` is left over, and a bound of all that is not."""
    bound, slacks = 0.0, iter(SLACKS[candidates])
    if candidates == "solver":
        candidate = float(torch.linalg.eigvalsh(gram).max())
    else:
        estimates = torch.cat([_estimate(part) for part in _chunks(gram)])
        candidate = _ritz(gram[estimates.topk(min(TRIED, len(gram))).indices])
    slack = next(slacks)
    while slack is not None and len(gram):
        gram, proved = _not_below(gram, candidate * (1 + slack))
        bound = nan_max(bound, proved)
        larger = _ritz(gram[:TRIED]) if candidates == "lanczos" and len(gram) else candidate
        if not larger > candidate:  # NaN ends the search too
            slack = next(slacks, None)
        candidate = max(candidate, larger)
    return gram, bound


def _row_sums(gram: Tensor) -> float:
    """Gershgorin's bound."""
    return float(gram.abs().sum(-1).max()) * (1 + 4 * gram.shape[-1] * UNIT_ROUNDOFF)


def _chunks(matrices: Tensor) -> tuple[Tensor, ...]:
    return matrices.split(max(1, CHUNK // matrices.shape[-1] ** 2))


def _deviation(gram: Tensor) -> tuple[float, float]:
    """``(s, r)``: all eigenvalues lie within r of s, the mean of the diagonal: ``||G - s I|| <= ||G - s I||_F``."""
    diagonal = gram.diagonal(dim1=-2, dim2=-1).real
    mean, squares = float(diagonal.mean()), []
    for part in _chunks(gram):
        rest = part.clone()
        rest.diagonal(dim1=-2, dim2=-1).sub_(mean)
        squares.append(rest.abs().square().sum((-2, -1)).max())
    largest = float(torch.stack(squares).max()) ** 0.5  # NaN stays NaN
    # The differences on the diagonal are rounded, each by a unit of the larger term; so is the sum, of n^2 terms.
    entries = gram.shape[-1] ** 2
    rounding = 2 * UNIT_ROUNDOFF * gram.shape[-1] ** 0.5 * max(mean, float(diagonal.max()))
    return mean, largest * (1 + 2 * entries * UNIT_ROUNDOFF) + rounding


def _start(gram: Tensor) -> Tensor:
    generator = torch.Generator(device="cpu").manual_seed(0)
    start = torch.randn(*gram.shape[:2], 1, generator=generator, dtype=torch.float64).to(gram)
    return start / start.norm(dim=1, keepdim=True)


def _estimate(gram: Tensor) -> Tensor:
    """``(B,)``: roughly the largest eigenvalues, to choose where to look closer."""
    vector = _start(gram)
    for _ in range(POWER_STEPS):
        vector = gram @ vector
    return vector.norm(dim=(1, 2))


def _ritz(gram: Tensor) -> float:
    """The largest Ritz value after some Lanczos steps on each: the largest eigenvalue, estimated from below.

    Where the vectors span all that the start can reach, what is left is rounding and is left out.
    """
    basis = [_start(gram)]
    scale = _row_sums(gram)
    for _ in range(LANCZOS_STEPS):
        known = torch.cat(basis, -1)
        new = gram @ basis[-1]
        for _ in range(2):  # twice is enough (Kahan, Parlett)
            new = new - known @ (known.mH @ new)
        length = new.norm(dim=1, keepdim=True)
        basis.append(torch.where(length > BREAKDOWN * scale, new / length, torch.zeros_like(new)))
    known = torch.cat(basis, -1)
    return float(torch.linalg.eigvalsh(known.mH @ (gram @ known))[:, -1].max())


def _not_below(gram: Tensor, shift: float) -> tuple[Tensor, float]:
    """The matrices that have not been proved to lie below ``shift``, and what that proof bounds the others by."""
    columns, failed, trace = gram.shape[-1], [], 0.0
    for part in _chunks(gram):
        rest = -part
        diagonal = rest.diagonal(dim1=-2, dim2=-1)
        diagonal.add_(shift)
        trace = max(trace, float(diagonal.real.clamp_min(0).sum(-1).max()))
        _, info = torch.linalg.cholesky_ex(rest)
        failed.append(part[info != 0])
    # Factor 4: complex products, and the sum of the trace. Two units more for the subtraction on the diagonal.
    error = 4 * (columns + 2) * UNIT_ROUNDOFF * trace + 2 * UNIT_ROUNDOFF * shift
    return torch.cat(failed), (shift + error) * (1 + 4 * UNIT_ROUNDOFF)
