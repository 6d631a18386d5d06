"""Dense matrices and Jacobians of small maps, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lipref.linalg.norms import norm_bound

Shape = tuple[int, ...]

# Entries of a dense matrix: 160 MB, and an eigenvalue problem of side 4472 at most.
DENSE_ENTRIES = 20_000_000
CHUNK = 4_000_000  # entries of the unit impulses that are applied at once
PROBES = 3


def dense_matrix(apply: Callable[[Tensor], Tensor], shape: Shape, out: Shape) -> Tensor | None:
    """``apply(impulse) - apply(0)`` for every unit impulse: ``(inputs, outputs)``; None above `DENSE_ENTRIES`."""
    inputs, outputs = math.prod(shape), math.prod(out)
    if inputs * outputs > DENSE_ENTRIES:
        return None
    with torch.no_grad():
        zero = apply(torch.zeros(1, *shape, dtype=torch.float64)).flatten(1)
        matrix, step = torch.empty(inputs, outputs, dtype=torch.float64), max(1, CHUNK // inputs)
        for start in range(0, inputs, step):
            rows = min(step, inputs - start)
            impulses = torch.zeros(rows, inputs, dtype=torch.float64)
            impulses[torch.arange(rows), torch.arange(start, start + rows)] = 1
            matrix[start : start + rows] = apply(impulses.reshape(rows, *shape)).flatten(1) - zero
    return matrix


def measured_norm(apply: Callable[[Tensor], Tensor], shape: Shape, out: Shape) -> float | None:
    """Spectral norm of a map that looks affine: its dense matrix predicts its values at random points.

    A measurement, no proof: a map may be affine at all probes and expand elsewhere. None where the map is too large
    or not affine.
    """
    matrix = dense_matrix(apply, shape, out)
    if matrix is None or not torch.isfinite(matrix).all():
        return None
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        zero = apply(torch.zeros(1, *shape, dtype=torch.float64)).flatten(1)
        for scale in (0.1, 1.0, 10.0):
            x = scale * torch.randn(PROBES, *shape, dtype=torch.float64, generator=generator)
            expected = x.flatten(1) @ matrix + zero
            if not torch.allclose(apply(x.clone()).flatten(1), expected, rtol=1e-9, atol=1e-9 * scale):
                return None
    return norm_bound(matrix)


def steepest(apply: Callable[[Tensor], Tensor], shape: Shape, out: Shape) -> float | None:
    """Largest singular value of the Jacobian at a few random points: a lower bound of the Lipschitz constant.

    None where the Jacobian has more than `DENSE_ENTRIES` entries.
    """
    if math.prod(shape) * math.prod(out) > DENSE_ENTRIES:
        return None
    generator, largest = torch.Generator().manual_seed(0), 0.0
    for scale in (0.1, 1.0, 10.0):
        x = scale * torch.randn(1, *shape, dtype=torch.float64, generator=generator)
        with torch.enable_grad():
            jacobian = torch.autograd.functional.jacobian(lambda x: apply(x.clone()), x)
        largest = max(largest, float(torch.linalg.matrix_norm(jacobian.reshape(math.prod(out), -1), 2)))
    return largest
