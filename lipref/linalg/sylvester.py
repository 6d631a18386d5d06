"""The Sylvester equation ``H X + X H = S`` with H symmetric positive definite."""

import torch
from torch import Tensor

from lipref.linalg.asking import allows, decide, recording, require
from lipref.linalg.constants import probes
from lipref.linalg.device_inverse import inverse_of_positive

NEAR = 0.25  # of H to a multiple of I: root mean square deviation of its eigenvalues, relative to their mean
ITERATIONS = 12  # after which an eigendecomposition costs no more
RESIDUAL = 1e-5

# Elsewhere than on a CPU eigendecompositions are slow, and so is every question to the device.
MANY_ITERATIONS = 60
EVERY = 3  # iterations between two questions
SMALLER_RESIDUAL = 2e-6
FARTHEST = 1000.0  # condition of H up to which its inverse in float32 does
POWERS = 4  # of matrices on some vectors, by which norms are estimated


def skew_sylvester(h: Tensor, s: Tensor) -> Tensor | None:
    """X with ``H X + X H = S``, skew, for ``h`` ``(..., m, m)`` symmetric and ``s`` skew; None where H is far from I.

    By conjugate gradients, one product of matrices per step: of X skew, ``X H = -(H X)^T``. The residual is at most
    `RESIDUAL` of S, or else the result is None. On a GPU H may be farther from I (`skew_sylvester_on_device`).
    """
    if h.device.type == "cpu":
        return _solved(h, s, ITERATIONS, 1, RESIDUAL) if bool(_is_near(h)) else None
    return skew_sylvester_on_device(h, s)[0]


def skew_sylvester_on_device(h: Tensor, s: Tensor, invert: bool = False) -> tuple[Tensor | None, Tensor | None]:
    """X as of `skew_sylvester`, and H^-1 where it was needed, or asked for by ``invert``; both None: ask elsewhere.

    Far from the identity of ``N X + X N = (S / m + m H^-1 S H^-1) / 2`` with ``N = (H / m + m H^-1) / 2``, which is
    the sum of the given equation and of that multiplied by H^-1 from both sides. With m the middle of H's eigenvalues,
    the condition of N is half the root of H's: 3 in place of 40. (N is H after a scaled Newton step towards its sign:
    Roberts, "Linear model reduction and solution of the algebraic Riccati equation by use of the sign function", 1980.)
    """
    near = allows(_is_near(h))
    inverse = None if near and not invert else inverse_of_positive(h)
    if inverse is not None:
        largest, smallest = _norm(h), 1 / _norm(inverse)
        if not allows((largest < FARTHEST * smallest).all()):  # NaN too
            return None, None
        if not near:
            middle = (largest * smallest).sqrt()
            both = inverse @ s @ inverse
            h = (0.5 / middle) * h + (0.5 * middle) * inverse
            s = (0.5 / middle) * s + (0.25 * middle) * (both - both.mT)
    x = _solved(h, s, MANY_ITERATIONS, EVERY, SMALLER_RESIDUAL)
    return (None, None) if x is None else (x, inverse)


def _norm(h: Tensor) -> Tensor:
    """The norm of symmetric ``h`` ``(..., m, m)`` from below, nearly: ``(..., 1, 1)``."""
    y = probes(h.shape[-1], h.dtype, str(h.device))
    for _ in range(POWERS):
        y = h @ y
        y = y / torch.linalg.matrix_norm(y, keepdim=True)
    return torch.linalg.matrix_norm(h @ y, keepdim=True)


def _is_near(h: Tensor) -> Tensor:
    count = h.shape[-1]
    mean = h.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    spread = (torch.linalg.matrix_norm(h, keepdim=True).square() / count - mean.square()).clamp_min(0).sqrt()
    return (spread < NEAR * mean).all()


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
