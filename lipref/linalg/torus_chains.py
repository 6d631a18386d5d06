"""Several convolutions with one kernel on small images, by few products of matrices, for training on a CPU.

As in `lipref.linalg.torus_convolution`, but the kernel's matrices are made once for all of them, memory that was
written once is written again, and the gradient of the matrices is one product for all convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lipref.linalg import torus_convolution
from lipref.linalg.by_hand import again, asked_otherwise, derives_backwards, in_full
from lipref.linalg.padding import conv2d_same
from lipref.linalg.residual_step import residual_step
from lipref.linalg.torus_convolution import gradient_of_taps, matrices_of, way_of

ENOUGH = 160  # images, of all terms, for one product


def pays(x: Tensor, weight: Tensor, padding_mode: str, convolutions: int) -> bool:
    """Whether so many convolutions of ``x`` with the square kernel ``weight`` are quicker here."""
    return derives_backwards() and torus_convolution.pays(x, weight, padding_mode, convolutions)


class _Chain:
    """A kernel ``(C, C, k, k)`` in the real Fourier basis, for images ``x`` ``(N, C, H, W)``, here ``(N, C, H W)``.

    In the basis they are ``(R, N, C)``, in memory image by image: one core makes an image without waiting for another.
    """

    def __init__(self, x: Tensor, weight: Tensor, padding_mode: str) -> None:
        self.way, self.shape = way_of(x, weight, padding_mode), weight.shape
        self.matrices = matrices_of(self.way, weight)
        self.count, rows = len(x), len(self.way.of_taps)
        self.one, self.product = self.room(1), weight.new_empty(rows, len(x), len(weight))
        self.outer: Tensor | None = None

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

    def convolve(self, y: Tensor, room: Tensor | None = None) -> None:
        """`product` becomes what ``way.of_output`` makes the convolution of ``y``."""
        room = self.one if room is None else room
        torch.bmm(self.into(self.way.of_input, y, room), self.matrices.mT, out=self.product)

    def adjoint(self, y: Tensor, room: Tensor | None = None, place: int = 0) -> None:
        """`product` becomes what ``way.of_input`` makes the adjoint of the convolution of ``y``."""
        room = self.one if room is None else room
        torch.bmm(self.into(self.way.of_output, y, room, place), self.matrices, out=self.product)

    def add_gradient(self, outputs: Tensor, inputs: Tensor, last: bool = True) -> None:
        """Of the matrices, from images in the basis on both sides of some convolutions."""
        if last:
            del self.matrices, self.one, self.product
        outputs, inputs = outputs.permute(1, 2, 0), inputs.transpose(0, 1)
        self.outer = torch.bmm(outputs, inputs) if self.outer is None else self.outer.baddbmm_(outputs, inputs)

    def gradient(self) -> Tensor:
        """Of the kernel."""
        return gradient_of_taps(self.way, self.outer, self.shape)


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
        return y

    @staticmethod
    @in_full
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *sums = ctx.saved_tensors
        ratios, mode = ctx.ratios, ctx.padding_mode
        if asked_otherwise(grad):
            gradients = again(ctx, grad, lambda *given: _horner(*given, ratios, mode).flatten(2), x, weight)
            return *gradients, None, None
        chain = _Chain(x, weight, mode)
        wanted, terms = ctx.needs_input_grad[1], len(ratios)
        # Of so many terms at once, which saves passes over the gradient of the matrices; many images do by themselves.
        together = min(terms, -(-ENOUGH // len(x))) if wanted else 1
        outputs, inputs = (chain.room(together) for _ in range(2))
        each = total = grad
        for term, (ratio, y) in enumerate(zip(ratios, [*reversed(sums), x.flatten(2)], strict=True), 1):
            place = (term - 1) % together
            chain.adjoint(each * ratio, outputs, place)
            each = chain.out_of(chain.way.of_input)
            total = total + each
            if wanted:
                chain.into(chain.way.of_input, y, inputs, place)
                if place + 1 == together or term == terms:
                    filled = (place + 1) * len(x)
                    chain.add_gradient(outputs[:filled], inputs[:filled], term == terms)
        return total.view(x.shape), chain.gradient() if wanted else None, None, None


def _horner(x: Tensor, weight: Tensor, ratios: Sequence[float], padding_mode: str) -> Tensor:
    y = x
    for ratio in reversed(ratios):
        y = x + ratio * conv2d_same(y, weight, None, padding_mode)
    return y


def polynomial(x: Tensor, weight: Tensor, ratios: Sequence[float], padding_mode: str) -> Tensor:
    """`lipref.linalg.convolution_polynomial.convolution_polynomial`, keeping one tensor for each term."""
    return _Polynomial.apply(x, weight, ratios, padding_mode).view(x.shape)


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
        return chain.plus(x.flatten(2), chain.way.of_input, -1)

    @staticmethod
    @in_full
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, step, bias, hidden = ctx.saved_tensors
        mode = ctx.padding_mode
        if asked_otherwise(grad):
            given = (x, weight, step, bias)
            return *again(ctx, grad, lambda *given: residual_step(*given, mode).flatten(2), *given), None
        chain = _Chain(x, weight, mode)
        (_, into, out_of), factor = chain.way, _of_channels(step)
        wanted = ctx.needs_input_grad[1]
        outputs, inputs = (chain.room(2 if wanted else 1) for _ in range(2))
        chain.convolve(-grad, inputs)
        of_scaled = chain.out_of(out_of)
        of_step = (of_scaled * hidden).sum(0)
        of_step = of_step.sum(1) if step.dim() else of_step.sum()
        of_hidden = (of_scaled * factor).mul_(hidden > 0)
        chain.adjoint(of_hidden, outputs, 1 if wanted else 0)
        of_x = chain.plus(grad, into, 1).view(x.shape)
        if wanted:
            chain.into(out_of, hidden * factor, outputs)
            chain.into(into, x.flatten(2), inputs, 1)
            chain.add_gradient(outputs, inputs)
        of_bias = None if bias is None else of_hidden.sum((0, 2))
        return of_x, chain.gradient() if wanted else None, of_step, of_bias, None


def _of_channels(step: Tensor) -> Tensor:
    """To multiply ``(N, C, H W)`` with."""
    return step[:, None] if step.dim() else step


def residual(x: Tensor, weight: Tensor, step: Tensor, bias: Tensor | None, padding_mode: str) -> Tensor:
    """`lipref.linalg.residual_step.residual_step`."""
    return _Residual.apply(x, weight, step, bias, padding_mode).view(x.shape)
