"""Several convolutions with one kernel on small images, by few products of matrices, for training on a CPU.

As in `lipref.linalg.torus_convolution`, but the kernel's matrices are made once for all of them, memory that was
written once is written again, and the gradient of the matrices is one product for all convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lipref.linalg import torus_convolution
from lipref.linalg.padding import conv2d_same
from lipref.linalg.residual_step import residual_step
from lipref.linalg.second_derivatives import again, in_full
from lipref.linalg.torus_convolution import gradient_of_taps, matrices_of, way_of


def pays(x: Tensor, weight: Tensor, padding_mode: str, convolutions: int) -> bool:
    """Whether so many convolutions of ``x`` with the square kernel ``weight`` are quicker here.

    Not under transformations of functions and forward-mode differentiation, which need the direct way.
    """
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return False
    return torus_convolution.pays(x, weight, padding_mode, convolutions)


class _Chain:
    """A kernel ``(C, C, k, k)`` in the real Fourier basis, for images ``x`` ``(N, C, H, W)``, here ``(N, C, H W)``.

    In the basis they are ``(R, N, C)``, in memory image by image: one core makes an image without waiting for another.
    """

    def __init__(self, x: Tensor, weight: Tensor, padding_mode: str) -> None:
        self.way, self.shape = way_of(x, weight, padding_mode), weight.shape
        self.matrices = matrices_of(self.way, weight)
        self.count, rows = len(x), len(self.way.of_taps)
        self.one, self.product = self.room(1), weight.new_empty(rows, len(x), len(weight))

    def room(self, convolutions: int) -> Tensor:
        """For images in the basis on one side of so many convolutions."""
        return self.matrices.new_empty(convolutions * self.count, *self.matrices.shape[:2])

    def into(self, basis: Tensor, y: Tensor, room: Tensor, place: int = 0) -> Tensor:
        room = room[place * self.count : (place + 1) * self.count]
        return torch.bmm(basis.expand(self.count, -1, -1), y.mT, out=room).transpose(0, 1)

    def plus(self, x: Tensor, basis: Tensor, alpha: float) -> Tensor:
        """``x`` and so much of what `product` is out of the basis."""
        return torch.baddbmm(x, self.product.permute(1, 2, 0), basis.expand(self.count, -1, -1), alpha=alpha)

    def out_of(self, basis: Tensor) -> Tensor:
        return torch.bmm(self.product.permute(1, 2, 0), basis.expand(self.count, -1, -1))

    def convolve(self, y: Tensor) -> None:
        """`product` becomes what ``way.of_output`` makes the convolution of ``y``."""
        torch.bmm(self.into(self.way.of_input, y, self.one), self.matrices.mT, out=self.product)

    def adjoint(self, y: Tensor, room: Tensor | None = None, place: int = 0) -> None:
        """`product` becomes what ``way.of_input`` makes the adjoint of the convolution of ``y``."""
        room = self.one if room is None else room
        torch.bmm(self.into(self.way.of_output, y, room, place), self.matrices, out=self.product)

    def gradient(self, outputs: Tensor, inputs: Tensor) -> Tensor:
        """Of the kernel, from the images in the basis on both sides of all convolutions; the last that is asked for."""
        del self.matrices, self.one, self.product  # the largest of what is there, next to this gradient
        outer = torch.bmm(outputs.permute(1, 2, 0), inputs.transpose(0, 1))
        return gradient_of_taps(self.way, outer, self.shape)


class _Polynomial(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, ratios: Sequence[float], padding_mode: str) -> Tensor:
        chain = _Chain(x, weight, padding_mode)
        y = flat = x.flatten(2)
        sums = []
        for ratio in reversed(ratios):
            chain.convolve(y)
            y = chain.plus(flat, chain.way.of_output, ratio)
            sums.append(y)
        ctx.save_for_backward(x, weight, *sums[:-1])
        ctx.ratios, ctx.padding_mode = ratios, padding_mode
        return y.view(x.shape)

    @staticmethod
    @in_full
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *sums = ctx.saved_tensors
        ratios, mode = ctx.ratios, ctx.padding_mode
        if torch.is_grad_enabled():
            return *again(ctx, grad, lambda x, weight: _horner(x, weight, ratios, mode), x, weight), None, None
        chain = _Chain(x, weight, mode)
        wanted = ctx.needs_input_grad[1]
        outputs, inputs = (chain.room(len(ratios) if wanted else 1) for _ in range(2))
        each = total = grad.flatten(2)
        for place, (ratio, y) in enumerate(zip(ratios, [*reversed(sums), x.flatten(2)], strict=True)):
            chain.adjoint(each * ratio, outputs, place if wanted else 0)
            if wanted:
                chain.into(chain.way.of_input, y, inputs, place)
            each = chain.out_of(chain.way.of_input)
            total = total + each
        of_weight = chain.gradient(outputs, inputs) if wanted else None
        return total.view(x.shape), of_weight, None, None


def _horner(x: Tensor, weight: Tensor, ratios: Sequence[float], padding_mode: str) -> Tensor:
    y = x
    for ratio in reversed(ratios):
        y = x + ratio * conv2d_same(y, weight, None, padding_mode)
    return y


def polynomial(x: Tensor, weight: Tensor, ratios: Sequence[float], padding_mode: str) -> Tensor:
    """`lipref.linalg.convolution_polynomial.convolution_polynomial`, keeping one tensor for each term."""
    return _Polynomial.apply(x, weight, ratios, padding_mode)


class _Residual(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, step: Tensor, bias: Tensor | None, padding_mode: str) -> Tensor:
        chain = _Chain(x, weight, padding_mode)
        chain.convolve(x.flatten(2))
        hidden = chain.out_of(chain.way.of_output)
        hidden = (hidden if bias is None else hidden.add_(bias[:, None])).relu_()
        ctx.save_for_backward(x, weight, step, bias, hidden)
        ctx.padding_mode = padding_mode
        chain.adjoint(hidden * _of_channels(step))
        return chain.plus(x.flatten(2), chain.way.of_input, -1).view(x.shape)

    @staticmethod
    @in_full
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, step, bias, hidden = ctx.saved_tensors
        mode = ctx.padding_mode
        if torch.is_grad_enabled():
            return *again(ctx, grad, lambda *given: residual_step(*given, mode), x, weight, step, bias), None
        chain = _Chain(x, weight, mode)
        (_, into, out_of), factor = chain.way, _of_channels(step)
        outputs, inputs = chain.room(2), chain.room(2)
        grad = grad.flatten(2)
        torch.bmm(chain.into(into, -grad, inputs, 0), chain.matrices.mT, out=chain.product)
        of_scaled = chain.out_of(out_of)
        of_step = (of_scaled * hidden).sum(0)
        of_step = of_step.sum(1) if step.dim() else of_step.sum()
        of_hidden = (of_scaled * factor).mul_(hidden > 0)
        chain.adjoint(of_hidden, outputs, 1)
        of_x = chain.plus(grad, into, 1).view(x.shape)
        of_weight = None
        if ctx.needs_input_grad[1]:
            chain.into(out_of, hidden * factor, outputs, 0)
            chain.into(into, x.flatten(2), inputs, 1)
            of_weight = chain.gradient(outputs, inputs)
        of_bias = None if bias is None else of_hidden.sum((0, 2))
        return of_x, of_weight, of_step, of_bias, None


def _of_channels(step: Tensor) -> Tensor:
    """To multiply ``(N, C, H W)`` with."""
    return step[:, None] if step.dim() else step


def residual(x: Tensor, weight: Tensor, step: Tensor, bias: Tensor | None, padding_mode: str) -> Tensor:
    """`lipref.linalg.residual_step.residual_step`."""
    return _Residual.apply(x, weight, step, bias, padding_mode)
