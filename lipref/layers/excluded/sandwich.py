"""Sandwich: a ReLU between a frequency-wise map and the adjoint of another, the two orthogonal together."""

from __future__ import annotations

import math

import torch
from torch import Tensor, empty, nn

from lipref.layers.base import LipschitzConv2d, Operator, Size
from lipref.layers.frequency import symbol_rounding
from lipref.linalg.cayley import cayley_transform, of_norm
from lipref.linalg.float_error import SAFETY, RoundingBound, absolute_conv_norm, absolute_norm, conv_rounding
from lipref.linalg.norms import nan_max, norm_bound
from lipref.linalg.padding import conv2d_same
from lipref.linalg.spectrum import apply_symbol, kernel_symbol


class SandwichConv2d(LipschitzConv2d):
    """Sandwich layer: ``y = sqrt(2) A^H Psi relu( sqrt(2) Psi^-1 B x + b )``, 1-Lipschitz and nonlinear.

    Source: Wang and Manchester, "Direct Parameterization of Lipschitz-Bounded Deep Networks", ICML 2023.

    Parameters: ``weight`` K ``(C_out, C_out + C_in, k, k)``, ``scale`` ``(1,)``, ``bias``, and ``psi`` ``(C_out,)``,
    ``Psi = diag(exp(psi))``, which is not trained without a bias. At each frequency of the image the symbol of
    ``scale K / ||K||_F`` goes through the Cayley transform of a wide matrix (`lipref.linalg.cayley.cayley_transform`),
    which gives ``[A B]`` with orthonormal rows. Psi is positive, so it passes through the ReLU: executed is
    ``sqrt(2) A^H relu( sqrt(2) B x + exp(psi) b )``. Circular padding, any image size. Training and evaluation are the
    same function.

    1-Lipschitz: the Jacobian is ``2 A^H D B``, D diagonal with entries in [0, 1]. It is an off-diagonal block of
    ``2 P - I`` with ``P = [A B]^H D [A B]``, and ``0 <= P <= ||[A B]||^2 I``; so its norm is at most ``||[A B]||^2``,
    which is 1 up to rounding.

    Differences from the authors' code: ``scale`` is a trained parameter from the start and does not depend on the image
    size (as in `lipref.layers.CayleyConv2d`); the form without quotients is the only one; psi counts within
    ``[-PSI, PSI]``, so that its exponential neither overflows nor drowns the image in rounding. As a network's head it
    is the same layer, with one tap.

    Initialisation: PyTorch's default for convolutions, psi 0.
    """

    padding_modes = ("circular",)
    PSI = 10.0

    def make_parameters(self) -> None:
        shape = (self.out_channels, self.out_channels + self.in_channels, self.kernel_size, self.kernel_size)
        self.weight = nn.Parameter(empty(shape, **self._factory))
        self.scale = nn.Parameter(empty((1,), **self._factory))
        # Not trained without a bias: distributed training refuses a parameter without a gradient.
        trained = self.bias is not None
        self.psi = nn.Parameter(empty((self.out_channels,), **self._factory), requires_grad=trained)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        with torch.no_grad():
            self.scale.copy_(torch.linalg.vector_norm(self.weight))
        nn.init.zeros_(self.psi)
        self._uniform_bias(self.weight[0].numel())

    def prepare(self, size: Size) -> Operator:
        kernel = of_norm(self.weight, self.scale)
        one_tap = self.kernel_size == 1
        rows = cayley_transform(kernel[:, :, 0, 0] if one_tap else kernel_symbol(kernel, size)) * math.sqrt(2)
        leave, enter = rows[..., : self.out_channels].mH.resolve_conj(), rows[..., self.out_channels :]
        if one_tap:
            leave, enter = leave[:, :, None, None], enter[:, :, None, None]
        operator = {"enter": enter, "leave": leave}
        if self.bias is None:
            return operator
        return operator | {"bias": self.bias * self.psi.clamp(-self.PSI, self.PSI).exp()}

    def transform(self, x: Tensor, operator: Operator) -> Tensor:
        enter, leave, bias = operator["enter"], operator["leave"], operator.get("bias")
        if not enter.is_complex():
            return conv2d_same(torch.relu(conv2d_same(x, enter, bias, "circular")), leave, None, "circular")
        hidden = apply_symbol(x, enter)
        return apply_symbol(torch.relu(hidden if bias is None else hidden + bias[:, None, None]), leave)

    def lipschitz_bound(self, size: Size) -> float:
        return self.operator_bound(self.float64_twin().prepare(size), size)

    def operator_bound(self, operator: Operator, size: Size) -> float:
        """``||[A B]||^2`` of the executed matrices, of which the operator holds ``sqrt(2)`` times each; at least 1."""
        enter, leave = operator["enter"], operator["leave"]
        if not enter.is_complex():
            enter, leave = enter[:, :, 0, 0], leave[:, :, 0, 0]
        # At most 1 in real arithmetic; the executed matrices' own norm covers the rounding of their preparation.
        return nan_max(1.0, norm_bound(torch.cat((leave.mH, enter), -1)) ** 2 / 2 * (1 + 1e-15))

    def rounding_error(self, operator: Operator, size: Size, unit: float) -> RoundingBound:
        enter, leave, bias = operator["enter"], operator["leave"], operator.get("bias")
        if enter.is_complex():
            inner, outer = symbol_rounding(enter, bias, size, unit), symbol_rounding(leave, None, size, unit)
            first, second = absolute_norm(enter), absolute_norm(leave)
        else:
            inner, outer = conv_rounding(enter, bias, size, unit), conv_rounding(leave, None, size, unit)
            first, second = absolute_conv_norm(enter), absolute_conv_norm(leave)
        # The ReLU rounds nothing: the error before it grows by the second map, which adds its own.
        slope = second * inner.slope + outer.slope * (first + inner.slope)
        constant = second * inner.constant + outer.slope * (inner.at_zero + inner.constant)
        return RoundingBound(slope * SAFETY, constant * SAFETY, second * inner.at_zero * SAFETY)
