"""The kernel of a product of projector pairs under matrix convolution: BCOP's, as one operation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_COLUMNS, _ROWS = -2, -3  # the axes of taps


class _OneProjector(torch.autograd.Function):
    """Taps B_0 .. B_{r-1} along an axis to ``P B_t + (I - P) B_{t-1}``, of which there are r + 1, with P = F F^T.

    ``blocks`` ``(..., n, k_1, k_2, m)``: one product of matrices takes all taps.
    """

    @staticmethod
    def forward(ctx, blocks: Tensor, frame: Tensor, axis: int) -> Tensor:
        inner = frame.mT @ blocks.flatten(-3)
        projected = (frame @ inner).view(blocks.shape)
        rest = blocks - projected
        count, shape = blocks.shape[axis], [*blocks.shape]
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
        grad = grad.contiguous()
        count = blocks.shape[ctx.axis]
        later = grad.narrow(ctx.axis, 1, count)
        of_projected = (grad.narrow(ctx.axis, 0, count) - later).flatten(-3)
        of_inner = frame.mT @ of_projected
        of_frame = (of_projected @ inner.mT).add_(blocks.flatten(-3) @ of_inner.mT)
        return (frame @ of_inner).view(blocks.shape).add_(later), of_frame, None


def projector_products(matrix: Tensor, frames: Tensor) -> Tensor:
    """``(..., n, m, k, k)``: the kernel ``(M_1 * M_2 * ... * M_{k-1}) H``, * being the convolution of taps of matrices.

    ``M_i`` has the 2x2 taps ``[[P Q, (I - P) Q], [P (I - Q), (I - P)(I - Q)]]`` transposed, P and Q the projectors on
    the ranges of two frames: each projector doubles the taps along one axis, the first along the columns.

    Args:
        matrix: H, ``(..., n, m)``.
        frames: ``(..., 2 (k - 1), n, r)``, each with orthonormal columns.

    Returns:
        Differentiable once.
    """
    if not frames.shape[-3]:
        return matrix[..., None, None]
    blocks = matrix[..., None, None, :]
    for index, frame in enumerate(frames.unbind(-3)):
        blocks = _OneProjector.apply(blocks, frame, _ROWS if index % 2 else _COLUMNS)
    return blocks.movedim(-1, -3).contiguous()
