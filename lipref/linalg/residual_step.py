"""A residual layer's step, by operations that autograd knows."""

from torch import Tensor

from lipref.linalg.padding import conv2d_same, conv2d_same_adjoint


def residual_step(x: Tensor, weight: Tensor, step: Tensor, bias: Tensor | None, padding_mode: str) -> Tensor:
    """``x - K^T (step * relu(K x + bias))`` with the convolution K of ``weight`` ``(C, C, k, k)``, k odd.

    ``x`` ``(N, C, H, W)``, ``step`` ``()`` or ``(C,)``, ``bias`` ``(C,)`` or None; output as ``x``.
    """
    # In place: nobody else has what a convolution gives, and pages that were never written cost more than a pass.
    hidden = conv2d_same(x, weight, bias, padding_mode).relu_()
    # The step, and its sign, are the smaller factor's.
    step = -step if step.dim() == 0 else -step[:, None, None]
    if weight.numel() < hidden.numel():
        y = conv2d_same_adjoint(hidden, weight * step[..., None], padding_mode)
    else:
        y = conv2d_same_adjoint(hidden * step, weight, padding_mode)
    return y.add_(x) if y.dtype == x.dtype else x + y
