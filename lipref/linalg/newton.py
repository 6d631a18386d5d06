"""The inverse square root of positive semidefinite matrices by coupled Newton steps."""

import torch
from torch import Tensor


def inverse_root(gram: Tensor, terms: int, ridge: float = 1e-4) -> Tensor:
    """``(G + ridge I)^(-1/2)`` for Hermitian positive semidefinite ``gram`` G ``(..., m, m)``.

    Computed by ``terms`` coupled Newton steps. With ``S = G + ridge I`` and ``nu = ||S||_F + ridge``: ``Y = S / nu``,
    ``Z = I``; repeat ``T = (3 I - Z Y) / 2``, ``Y <- Y T``, ``Z <- T Z``. Y tends to the root and Z to the inverse root
    of ``S / nu``; returns ``Z / sqrt(nu)``. Not converged for eigenvalues far below nu, where the result is too small,
    never too large.

    Source: Xu, Li, Li, NeurIPS 2022 (Denman-Beavers / Newton-Schulz).
    """
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    shifted = gram + ridge * eye
    nu = torch.linalg.matrix_norm(shifted, keepdim=True) + ridge
    y = shifted / nu
    t = z = 1.5 * eye - 0.5 * y  # the first step, where Z = I
    for _ in range(terms - 1):
        y = y @ t
        t = 1.5 * eye - 0.5 * (z @ y)
        z = t @ z
    return z / nu.sqrt()
