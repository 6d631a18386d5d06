"""Residual methods: a gradient step on a convex potential."""

from __future__ import annotations

import torch
from torch import Tensor

from lipref.errors import LiprefError
from lipref.layers.base import LipschitzConv2d, Operator, Size
from lipref.linalg.float_error import SAFETY, RoundingBound, absolute_conv_norm, conv_rounding, gamma
from lipref.linalg.padding import adjoint_kernel, conv2d_same


class ResidualConv2d(LipschitzConv2d):
    """``y = x - K^T ( step * relu(K x + b) )`` with a convolution K ``(C, C, k, k)`` and its adjoint.

    The step is positive, one number or one per channel. With ``V = step^(1/2) K`` the Jacobian is ``I - V^T D V``, D
    diagonal with entries in [0, 1], whose eigenvalues lie in ``[1 - ||V||^2, 1]``: the Lipschitz constant is at most
    ``max(1, ||V||^2 - 1)``, and 1 where ``||V||^2 <= 2``. The adjoint under the same padding is the convolution with
    the flipped, transposed kernel.
    """

    square_only = True
    default_padding = "zeros"

    def step(self, size: Size) -> Tensor:
        """The step, ``()`` or ``(C,)``, differentiable."""
        raise NotImplementedError

    def positive_step(self, size: Size) -> Tensor:
        """`step`, on which the bound of every residual method rests.

        Raises:
            LiprefError: it is not finite and positive.
        """
        step = self.step(size)
        if not bool((torch.isfinite(step) & (step > 0)).all()):
            raise LiprefError(
                f"{type(self).__name__}: a step of {float(step.min()):g} is not finite and positive, so that no bound "
                "holds; mend its settings or weights"
            )
        return step

    def prepare(self, size: Size) -> Operator:
        step = self.step(size)
        # The step multiplies the kernel, which is cheaper than multiplying the activations.
        stepped = self.weight * (step if step.dim() == 0 else step[:, None, None, None])
        return self.with_bias({"weight": self.weight, "adjoint": adjoint_kernel(stepped)})

    def transform(self, x: Tensor, operator: Operator) -> Tensor:
        hidden = torch.relu(conv2d_same(x, operator["weight"], operator.get("bias"), self.padding_mode))
        return x - conv2d_same(hidden, operator["adjoint"], None, self.padding_mode)

    def rounding_error(self, operator: Operator, size: Size, unit: float) -> RoundingBound:
        # The exact map is that of the stored K and step; the rounding of their product is one more error per entry.
        inner = conv_rounding(operator["weight"], operator.get("bias"), size, unit)
        norm, outer = absolute_conv_norm(operator["weight"]), absolute_conv_norm(operator["adjoint"])
        relative = gamma(operator["adjoint"][0].numel() + 4, unit) * SAFETY
        # x - A relu(h): the error of h goes through A; that of A's own sums is relative to ||h||; then a subtraction.
        slope = outer * (inner.slope + relative * norm) + unit * (1 + outer * norm)
        constant = outer * (inner.constant + relative * inner.at_zero) + unit * outer * inner.at_zero
        return RoundingBound(slope * SAFETY, constant * SAFETY, outer * inner.at_zero * SAFETY)
