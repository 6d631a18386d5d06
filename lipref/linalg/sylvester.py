"""The Sylvester equation ``H X + X H = S`` with H symmetric positive definite."""

import torch
from torch import Tensor

NEAR = 0.25  # of H to a multiple of I: root mean square deviation of its eigenvalues, relative to their mean
ITERATIONS = 12  # after which an eigendecomposition costs no more
RESIDUAL = 1e-5


def skew_sylvester(h: Tensor, s: Tensor) -> Tensor | None:
    """X with ``H X + X H = S``, skew, for ``h`` ``(..., m, m)`` symmetric and ``s`` skew; None where H is far from I.

    By conjugate gradients, one product of matrices per step: of X skew, ``X H = -(H X)^T``. The residual is at most
    `RESIDUAL` of S, or else the result is None.
    """
    count = h.shape[-1]
    mean = h.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    spread = (torch.linalg.matrix_norm(h, keepdim=True).square() / count - mean.square()).clamp_min(0).sqrt()
    if not bool((spread < NEAR * mean).all()):
        return None

    def dot(one: Tensor, other: Tensor) -> Tensor:
        return (one.flatten(-2).unsqueeze(-2) @ other.flatten(-2).unsqueeze(-1)).clamp_min(torch.finfo(h.dtype).tiny)

    x, residual, direction = torch.zeros_like(s), s.clone(), s.clone()
    square = dot(residual, residual)
    enough = (RESIDUAL**2 * square).clamp_min(torch.finfo(h.dtype).tiny)
    for _ in range(ITERATIONS):
        product = h @ direction
        product = product - product.mT
        length = square / dot(direction, product)
        x.addcmul_(length, direction)
        residual.addcmul_(length, product, value=-1)
        before, square = square, dot(residual, residual)
        if bool((square <= enough).all()):
            return x
        direction = torch.addcmul(residual, square / before, direction)
    return None
