"""The Sylvester equation ``H X + X H = S`` with H symmetric positive definite."""

import torch
from torch import Tensor

from lipref.linalg.asking import decide, recording, require

NEAR = 0.25  # of H to a multiple of I: root mean square deviation of its eigenvalues, relative to their mean
ITERATIONS = 12  # after which an eigendecomposition costs no more
RESIDUAL = 1e-5

# Elsewhere than on a CPU eigendecompositions are slow, and so is every question to the device.
MANY_ITERATIONS = 60
EVERY = 3  # iterations between two questions
SMALLER_RESIDUAL = 1e-6  # far from the identity the error is a multiple of it


def skew_sylvester(h: Tensor, s: Tensor) -> Tensor | None:
    """X with ``H X + X H = S``, skew, for ``h`` ``(..., m, m)`` symmetric and ``s`` skew; None where H is far from I.

    By conjugate gradients, one product of matrices per step: of X skew, ``X H = -(H X)^T``. The residual is at most
    `RESIDUAL` of S, or else the result is None. On a GPU H may be farther from I: more steps are allowed.
    """
    if h.device.type == "cpu":
        return _solved(h, s, ITERATIONS, 1, RESIDUAL) if _is_near(h) else None
    return _solved(h, s, MANY_ITERATIONS, EVERY, SMALLER_RESIDUAL)


def _is_near(h: Tensor) -> bool:
    count = h.shape[-1]
    mean = h.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    spread = (torch.linalg.matrix_norm(h, keepdim=True).square() / count - mean.square()).clamp_min(0).sqrt()
    return bool((spread < NEAR * mean).all())


def _solved(h: Tensor, s: Tensor, iterations: int, every: int, allowed: float) -> Tensor | None:
    """By that many iterations at most, asking for the residual that is allowed after every ``every`` of them."""

    def dot(one: Tensor, other: Tensor) -> Tensor:
        if h.device.type == "cpu":
            product = one.flatten(-2).unsqueeze(-2) @ other.flatten(-2).unsqueeze(-1)
        else:
            product = (one * other).sum((-2, -1), keepdim=True)
        return product.clamp_min(torch.finfo(h.dtype).tiny)

    x, residual, direction = torch.zeros_like(s), s.clone(), s.clone()
    square = dot(residual, residual)
    enough = (allowed**2 * square).clamp_min(torch.finfo(h.dtype).tiny)
    last, most = 0, iterations + every * recording()
    for number in range(1, most + 1):
        product = h @ direction
        product = product - product.mT
        length = square / dot(direction, product)
        x.addcmul_(length, direction)
        residual.addcmul_(length, product, value=-1)
        before, square = square, dot(residual, residual)
        if number == last:
            require((square <= enough).all())
            return x
        look = not last and number % every == 0 and number <= iterations
        if look and decide([(square <= enough).all()], lambda found: bool(found[0])):
            if not recording():
                return x
            last = number + every * recording()  # room for other weights that will go the same way
        direction = torch.addcmul(residual, square / before, direction)
    return None
