"""Inverses of many small matrices by elimination without pivoting, in products of matrices."""

import torch
from torch import Tensor

LEAF = 8  # a side up to which one column after the other is eliminated, of all matrices at once


def inverse_by_elimination(matrix: Tensor) -> Tensor:
    """Inverse of ``matrix`` ``(..., m, m)`` whose Hermitian part is positive definite, as that of ``I + A``, A skew.

    Of such matrices every block on the diagonal, and every Schur complement, has a positive definite Hermitian part
    too: no pivot is needed, and the entries grow by no more than the condition allows (George, Ikramov and Kucherov,
    "On the growth factor in Gaussian elimination for generalized Higham matrices", 2002). Blocks are halved: all but
    a few operations lie in batched products.
    """
    if matrix.dim() != 3:
        return inverse_by_elimination(matrix.reshape(-1, *matrix.shape[-2:])).view(matrix.shape)
    if matrix.shape[-1] <= LEAF:
        return _by_columns(matrix)
    half = matrix.shape[-1] // 2
    left, right = matrix[:, half:, :half], matrix[:, :half, half:]
    first = inverse_by_elimination(matrix[:, :half, :half])
    over = first @ right
    rest = inverse_by_elimination(torch.baddbmm(matrix[:, half:, half:], left, over, alpha=-1))
    under = left @ first
    inverse = torch.empty_like(matrix)
    corner = torch.bmm(over, rest)
    inverse[:, :half, :half] = torch.baddbmm(first, corner, under)
    torch.neg(corner, out=inverse[:, :half, half:])
    torch.neg(rest @ under, out=inverse[:, half:, :half])
    inverse[:, half:, half:] = rest
    return inverse


def _by_columns(matrix: Tensor) -> Tensor:
    """Gauss-Jordan elimination in place, the matrices' number innermost in memory."""
    a = matrix.permute(1, 2, 0).clone(memory_format=torch.contiguous_format)
    for index in range(len(a)):
        pivot = a[index, index].reciprocal()
        row, column = a[index] * pivot, a[:, index] * -pivot
        a.addcmul_(column[:, None], a[index].clone())
        a[index], a[:, index] = row, column
        a[index, index] = pivot
    return a.permute(2, 0, 1).contiguous()
