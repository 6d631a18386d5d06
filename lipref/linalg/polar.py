"""The polar factor of a matrix: the nearest matrix with orthonormal columns (or rows)."""

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lipref.linalg import polar_eigen
from lipref.linalg.asking import decide, recording, require
from lipref.linalg.minimax import cubic_steps
from lipref.linalg.sylvester import skew_sylvester, skew_sylvester_on_device

MAX_STEPS = 100
ORDINARY = 2.0**20  # squared norms below this and above its inverse: their squares neither overflow nor underflow
WIDE = 40.0  # largest square over the mean one, from which on cubics of least error are quicker, on a GPU
ENOUGH = 0.75  # up to which they go: Bjorck and Bowie's do the rest
ROOM = 2.0  # squares up to here converge fast: 3 is the limit, and what is near it is thrown back to 0


def _norm_scale(gram: Tensor, rows: int) -> Tensor:
    """A rigorous upper bound of the squared spectral norms of A from ``gram`` = A^T A ``(..., m, m)``: ``(..., 1, 1)``.

    Exact where the columns are orthogonal: the smaller of the largest row sum (Gershgorin) and the Frobenius norm.
    """
    row_sum = torch.linalg.vector_norm(gram, 1, -1).amax(-1)
    frobenius = torch.linalg.matrix_norm(gram)
    slack = 1 + 4 * rows * torch.finfo(gram.dtype).eps  # the products' own rounding
    return (torch.minimum(row_sum, frobenius) * slack)[..., None, None]


def _norm_scale_by_squares(gram: Tensor, mean: Tensor, rows: int) -> Tensor:
    """`_norm_scale` by one more product, sharper where many differ: mean + ||E^2||^(1/2) of the Gram matrix mean I + E.

    ``mean`` is any number per matrix, ``(..., 1, 1)``.
    """
    rest = gram - mean * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    slack = 1 + 4 * rows * torch.finfo(gram.dtype).eps
    return (mean + torch.linalg.matrix_norm(rest @ rest, keepdim=True).sqrt()) * slack


def _magnitude(a: Tensor) -> Tensor:
    """Largest entry, ``(..., 1, 1)``: of a / magnitude squares neither overflow nor underflow."""
    return torch.linalg.vector_norm(a, math.inf, (-2, -1), keepdim=True).clamp_min(torch.finfo(a.dtype).tiny)


def _measured(a: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """``a``, its Gram matrix, the bound of the squared norm, and what they were divided by; None: by nothing.

    Divided by their `_magnitude` are matrices of which one has entries that are very large or small.
    """
    gram = a.mT @ a
    bound = _norm_scale(gram, a.shape[-2])
    if bool(((bound < ORDINARY) & (bound > 1 / ORDINARY)).all()):
        return a, gram, bound, None
    return _divided(a)


def _divided(a: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`_measured` of matrices that have to be divided."""
    magnitude = _magnitude(a)
    a = a / magnitude
    gram = a.mT @ a
    return a, gram, _norm_scale(gram, a.shape[-2]).clamp_min(torch.finfo(a.dtype).tiny), magnitude


def _scaled(a: Tensor) -> Tensor:
    """``a`` ``(..., n, m)``, n >= m, divided by a constant so that no spectral norm exceeds 1."""
    with torch.no_grad():
        _, _, bound, magnitude = _measured(a)
    return (a if magnitude is None else a / magnitude) / bound.sqrt()


def _found(a: Tensor) -> tuple[Tensor, polar_eigen.Basis | None, Tensor | None]:
    """The polar factor of ``a`` ``(..., n, m)``, n >= m, and H's eigenvectors where they were needed.

    They are of ``a`` divided by the third value, where there is one.

    Iterates ``Q <- Q (3 I - Q^T Q) / 2`` to convergence. A singular value t in [0, sqrt(3)) moves to t (3 - t^2) / 2,
    which lies in [0, 1]: from a start of proved norm the iteration can neither diverge nor exceed 1. Zero singular
    values stay zero. It begins with the mean square at 1, or as near below as the proof allows, since what is near 1
    arrives first. Where singular values differ much, on the CPU, eigenvectors of the Gram matrix are quicker.
    """
    if not _on_cpu(a):
        return _found_on_device(a), None, None
    a, gram, bound, magnitude = _measured(a)
    mean = _mean(gram)
    if not bool((bound <= ROOM * mean).all()):
        use = a.dtype != torch.float64 and bool(torch.isfinite(bound).all())
        found = polar_eigen.polar_factor(a, gram) if use else None
        if found is not None:
            return *found, magnitude
        bound = torch.minimum(bound, _norm_scale_by_squares(gram, mean, a.shape[-2]))
    square = torch.maximum(mean, bound / ROOM).clamp_min(torch.finfo(a.dtype).tiny)
    return _iterated(a / square.sqrt(), gram / square), None, None


def _on_cpu(a: Tensor) -> bool:
    return a.device.type == "cpu"


def _found_on_device(a: Tensor) -> Tensor:
    """`_found` with one question to the device in place of two."""
    gram = a.mT @ a
    bound, mean = _norm_scale(gram, a.shape[-2]), _mean(gram)
    ordinary, alike = ((bound < ORDINARY) & (bound > 1 / ORDINARY)).all(), (bound <= ROOM * mean).all()
    is_ordinary, are_alike, halvings = decide(
        (ordinary, alike, (bound / mean).amax()),
        lambda found: (bool(found[0]), bool(found[1]), _halvings(found[2])),
        lambda answer: None if not answer[0] else ordinary & alike if answer[1] and recording() == 1 else ordinary,
    )
    are_alike = are_alike and recording() <= 1  # where there should be more room, the way that is always right
    if not is_ordinary:
        a, gram, bound, _ = _divided(a)
        mean, are_alike = _mean(gram), False
    if not are_alike:
        bound = torch.minimum(bound, _norm_scale_by_squares(gram, mean, a.shape[-2]))
    if is_ordinary and halvings:
        q, gram = a / bound.sqrt(), gram / bound
        for linear, cubic in cubic_steps(2.0**-halvings, ENOUGH):
            q = torch.add(linear * q, q @ gram, alpha=-cubic)
            gram = q.mT @ q
        return _iterated(q, gram, pause=2)
    square = torch.maximum(mean, bound / ROOM).clamp_min(torch.finfo(a.dtype).tiny)
    return _iterated(a / square.sqrt(), gram / square, pause=2)


def _halvings(spread: float) -> int:
    """How often 1 is halved to where the small singular values should begin, the largest being 1; 0: not worth it.

    ``spread``: the largest square over the mean one. Where it is not right more or fewer steps are left to `_iterated`.
    """
    return math.ceil(math.log2(4 * spread**0.5)) if WIDE <= spread < ORDINARY else 0


def _mean(gram: Tensor) -> Tensor:
    return gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]


def _iterated(q: Tensor, gram: Tensor, pause: int = 1) -> Tensor:
    """To convergence from ``q`` of norm below sqrt(3) and its Gram matrix.

    The device is asked after the first step, and then after every ``pause`` steps, unless one is expected to do.
    Singular values that steps do not move are 0, and stay so.
    """
    # From a distance d of the Gram matrix to I, halved, a step leaves an error of at most 1.5 d^2.
    eps = torch.finfo(q.dtype).eps * q.shape[-1] ** 0.5
    enough = (4 * eps / 1.5) ** 0.5
    look = 1
    for number in range(1, MAX_STEPS + 1):
        step = torch.add(q, q @ gram, alpha=-1).mul_(0.5)
        if number == look:
            more = decide(
                (_distance(gram), torch.linalg.matrix_norm(step).amax()),
                # Written so that a NaN ends it.
                lambda found: (
                    0 if not (found[0] > enough and found[1] > eps) else 1 if 1.5 * found[0] ** 2 <= enough else pause
                ),
            )
            look += more
        q = q + step
        if number == look:
            return _with_room(q, enough, eps) if recording() else q
        gram = q.mT @ q
    return q


def _distance(gram: Tensor) -> Tensor:
    """Half the largest of the matrices' distances to I, ``()``."""
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return 0.5 * torch.linalg.matrix_norm(gram - eye).amax()


def _with_room(q: Tensor, enough: float, eps: float) -> Tensor:
    """Some steps more, for other weights that will go the same way."""
    for _ in range(recording()):
        gram = q.mT @ q
        step = torch.add(q, q @ gram, alpha=-1).mul_(0.5)
        q = q + step
    require((_distance(gram) <= enough) | (torch.linalg.matrix_norm(step).amax() <= eps))
    return q


class _PolarFactor(torch.autograd.Function):
    """Exact derivative of the polar factor, whatever the number of iterations; saves Q and A, or H's eigenvectors."""

    @staticmethod
    def forward(ctx, a: Tensor) -> Tensor:
        q, basis, ctx.magnitude = _found(a)
        ctx.save_for_backward(*((q, a) if basis is None else basis))
        return q

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        saved = ctx.saved_tensors  # once: activation checkpointing gives them no second time
        if len(saved) == 2:
            return _gradient(*saved, grad)
        found = polar_eigen.gradient(polar_eigen.Basis(*saved), grad)
        return found if ctx.magnitude is None else found / ctx.magnitude


def _gradient(q: Tensor, a: Tensor, grad: Tensor) -> Tensor:
    """Of the loss with respect to A = Q H, from that with respect to Q.

    With Omega = Q^T dQ: H Omega + Omega H = Q^T dA - dA^T Q, and the part of dQ outside range(Q) is
    (I - Q Q^T) dA H^-1.
    """
    h = q.mT @ a
    h = 0.5 * (h + h.mT)
    near = _gradient_near_identity(h, q.mT @ grad, grad, q)
    if near is not None:
        return near
    if not bool(torch.isfinite(h).all()):  # which some devices report in ways of their own
        raise torch.linalg.LinAlgError("the polar factor has no gradient: its matrix is not finite")
    values, vectors = torch.linalg.eigh(h)
    floor = values.amax(-1, keepdim=True).clamp_min(torch.finfo(q.dtype).tiny) * torch.finfo(q.dtype).eps
    return polar_eigen.gradient(polar_eigen.Basis(q @ vectors, values.clamp_min(floor), vectors), grad)


def _gradient_near_identity(h: Tensor, inner: Tensor, grad: Tensor, q: Tensor) -> Tensor | None:
    """`_gradient` by products, in float32; None where H is not near a multiple of the identity, on a GPU very far."""
    if h.dtype == torch.float64:  # to its last digits conjugate gradients take longer
        return None
    skew, square = inner - inner.mT, q.shape[-2] == q.shape[-1]
    if not _on_cpu(h):
        omega, inverse = skew_sylvester_on_device(h, skew, invert=not square)
        if omega is None:
            return None
        return q @ omega if square else q @ omega + (grad - q @ inner) @ inverse
    omega = skew_sylvester(h, skew)
    if omega is None or square:
        return None if omega is None else q @ omega
    factor, failed = torch.linalg.cholesky_ex(h)
    if bool(failed.any()):
        return None
    # The inverse, H being near the identity, and a product: twice as quick as a solution for so many right sides.
    return q @ omega + (grad - q @ inner) @ torch.cholesky_inverse(factor)


def polar_factor(a: Tensor, steps: int | None = None) -> Tensor:
    """Polar factor of ``a`` ``(..., n, m)``, real: orthonormal columns (n >= m) or rows (n < m).

    Differentiable once. Computed by the Bjorck-Bowie iteration ("An iterative algorithm for computing the best estimate
    of an orthogonal matrix", 1971) from a rigorously scaled start; where ``a`` has a zero singular value the result is
    not orthonormal, but its norm is still at most 1.

    Args:
        a: the matrices.
        steps: None iterates to convergence, with the exact derivative; a number does that many steps and differentiates
            through them, the scale constant.
    """
    if a.numel() == 0:
        return a.clone()
    if a.shape[-2] < a.shape[-1]:
        return polar_factor(a.mT, steps).mT
    if steps is None:
        return _PolarFactor.apply(a)
    q = _scaled(a)
    for _ in range(steps):
        q = 1.5 * q - 0.5 * q @ (q.mT @ q)
    return q
