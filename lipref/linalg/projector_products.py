"""The kernel of a product of projector pairs under matrix convolution: BCOP's, as one operation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _OneProjector(torch.autograd.Function):
    """Taps B_0 .. B_{r-1} along an axis to ``P B_t + (I - P) B_{t-1}``, of which there are r + 1, with P = F F^T."""

    @staticmethod
    def forward(ctx, blocks: Tensor, frame: Tensor, axis: int) -> Tensor:
        inner = frame.mT @ blocks
        projected = frame @ inner
        rest = blocks - projected
        count = blocks.shape[axis]
        shape = [*blocks.shape]
        shape[axis] += 1
        out = blocks.new_empty(shape)
        out.narrow(axis, 0, 1).copy_(projected.narrow(axis, 0, 1))
        torch.add(projected.narrow(axis, 1, count - 1), rest.narrow(axis, 0, count - 1),
                  out=out.narrow(axis, 1, count - 1))  # fmt: skip
        out.narrow(axis, count, 1).copy_(rest.narrow(axis, count - 1, 1))
        ctx.save_for_backward(blocks, frame, inner)
        ctx.axis = axis
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        blocks, frame, inner = ctx.saved_tensors
        count = blocks.shape[ctx.axis]
        later = grad.narrow(ctx.axis, 1, count)
        of_projected = grad.narrow(ctx.axis, 0, count) - later
        of_inner = frame.mT @ of_projected
        of_frame = (of_projected @ inner.mT + blocks @ of_inner.mT).sum((0, 1))
        return (frame @ of_inner).add_(later), of_frame, None


class _TapsLast(torch.autograd.Function):
    """``(k, k, n, m)`` to ``(n, m, k, k)``, contiguous both ways, tap by tap: quicker than a general permutation."""

    @staticmethod
    def forward(ctx, blocks: Tensor) -> Tensor:
        k, _, n, m = blocks.shape
        return torch.stack(blocks.flatten(0, 1).unbind(), -1).view(n, m, k, k)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad.permute(2, 3, 0, 1).contiguous()


def projector_products(matrix: Tensor, frames: Tensor) -> Tensor:
    """``(n, m, k, k)``: the kernel ``(M_1 * M_2 * ... * M_{k-1}) H``, * being the convolution of taps of matrices.

    ``M_i`` has the 2x2 taps ``[[P Q, (I - P) Q], [P (I - Q), (I - P)(I - Q)]]`` transposed, P and Q the projectors on
    the ranges of two frames: each projector doubles the taps along one axis, the first along the columns.

    Args:
        matrix: H, ``(n, m)``.
        frames: ``(2 (k - 1), n, r)``, each with orthonormal columns.

    Returns:
        Differentiable once.
    """
    blocks = matrix[None, None]
    for index, frame in enumerate(frames):
        blocks = _OneProjector.apply(blocks, frame, 1 - index % 2)
    return _TapsLast.apply(blocks) if len(frames) else matrix[:, :, None, None]
