"""Rigorous upper bounds of the largest eigenvalue of positive semidefinite matrices, without solving for eigenvalues.

A candidate from below, by Lanczos, then one Cholesky factorisation that proves it: if that of ``t I - G`` runs to its
end in floating point, ``t I - G`` is positive definite up to a multiple of its trace (Rump, Verification of positive
definiteness, BIT 2006). It costs a tenth of an eigenvalue solver's time, and half a spectrum is one batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

UNIT_ROUNDOFF = 2.0**-53
SOLVED = 64  # columns up to which the solver is as quick
FLAT = 1e-9  # relative deviation from a multiple of the identity that needs no closer look
POWER_STEPS = 6
LANCZOS_STEPS = 50
TRIED = 8  # matrices of a batch that Lanczos looks at
SLACKS = (1e-9, 3e-7)
CHUNK = 2**24  # entries of one batch: 256 MB of complex128


def largest_eigenvalue_bound(gram: Tensor) -> float:
    """Upper bound of all eigenvalues of Hermitian, positive semidefinite ``(..., n, n)``, float64 or complex128.

    Its own rounding is included, that of ``gram`` is not. The relative slack is 1e-9, or 3e-7 where Lanczos has not
    converged well, plus the rounding of the proof, 4e-16 n trace(t I - G). What is not proved then is solved, as are
    matrices of up to 64 columns.
    """
    columns = gram.shape[-1]
    gram = gram.reshape(-1, columns, columns)
    if columns <= SOLVED:
        return _solved(gram)
    mean, deviation = _deviation(gram)
    if deviation <= FLAT * mean:
        return (mean + deviation) * (1 + 4 * UNIT_ROUNDOFF)
    estimates = torch.cat([_estimate(part) for part in _chunks(gram)])
    candidate = _ritz(gram[estimates.topk(min(TRIED, len(gram))).indices])
    slacks = iter(SLACKS)
    slack = next(slacks)
    while slack is not None:
        gram, bound = _not_below(gram, candidate * (1 + slack))
        if not len(gram):
            return bound
        larger = _ritz(gram[:TRIED])
        if larger <= candidate:
            slack = next(slacks, None)
        candidate = max(candidate, larger)
    return max(bound, _solved(gram))


def _chunks(matrices: Tensor) -> tuple[Tensor, ...]:
    return matrices.split(max(1, CHUNK // matrices.shape[-1] ** 2))


def _solved(gram: Tensor) -> float:
    """By the solver, which is backward stable: off by a small multiple of its side times the unit roundoff."""
    largest = max(float(torch.linalg.eigvalsh(gram).max()), 0.0)
    return largest * (1 + 16 * gram.shape[-1] * UNIT_ROUNDOFF)


def _deviation(gram: Tensor) -> tuple[float, float]:
    """``(s, r)``: all eigenvalues lie within r of s, the mean of the diagonal: ``||G - s I|| <= ||G - s I||_F``."""
    diagonal = gram.diagonal(dim1=-2, dim2=-1).real
    mean, largest = float(diagonal.mean()), 0.0
    for part in _chunks(gram):
        rest = part.clone()
        rest.diagonal(dim1=-2, dim2=-1).sub_(mean)
        largest = max(largest, float(rest.abs().square().sum((-2, -1)).max()) ** 0.5)
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
    """The largest Ritz value after some Lanczos steps on each: the largest eigenvalue, estimated from below."""
    basis = [_start(gram)]
    for _ in range(LANCZOS_STEPS):
        known = torch.cat(basis, -1)
        new = gram @ basis[-1]
        for _ in range(2):  # twice is enough (Kahan, Parlett)
            new = new - known @ (known.mH @ new)
        basis.append(new / new.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny))
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
