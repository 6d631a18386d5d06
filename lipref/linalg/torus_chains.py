"""Several convolutions with one kernel on small images, by few products of matrices, for training on a CPU.

As in `lipref.linalg.torus_convolution`, but the kernel's matrices are made once for all of them, memory that was
written once is written again, images in the Fourier basis are kept for the backward pass, and the gradient of the
matrices is one product for all convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lipref.linalg import torus_convolution
from lipref.linalg.by_hand import again, asked_otherwise, derives_backwards, in_full
from lipref.linalg.padding import conv2d_same
from lipref.linalg.residual_step import residual_step
from lipref.linalg.torus_convolution import add_sums, gradient_of_taps, matrices_of, sums, way_of

ENOUGH = 160  # images, of all terms, for one product

Room = tuple[Tensor, Tensor]  # ``(N, Q, C)`` and ``(N, P, C)``


def pays(x: Tensor, weight: Tensor, padding_mode: str, convolutions: int) -> bool:
    """Whether so many convolutions of ``x`` with the square kernel ``weight`` are quicker here."""
    return derives_backwards() and torus_convolution.pays(x, weight, padding_mode, convolutions)


class _Chain:
    """A kernel ``(C, C, k, k)`` in the real Fourier basis, for images ``x`` ``(N, C, H, W)``, here ``(N, C, H W)``.

    In the basis they are ``(Q, N, C)``, in memory image by image: one core makes an image without waiting for another.
    """

    def __init__(self, x: Tensor, weight: Tensor, padding_mode: str) -> None:
        self.way, self.shape, self.count = way_of(x, weight, padding_mode), weight.shape, len(x)
        self.matrices = matrices_of(self.way, weight)
        self.one, self.product = self.room(1), weight.new_empty(len(self.way.of_taps), len(x), len(weight))
        self.first, self.last = self.product.tensor_split([len(self.way.of_input)])
        self.outer: Room | None = None

    def room(self, convolutions: int) -> Room:
        """For images in the basis on one side of so many convolutions, and for their `sums`."""
        rows, images = len(self.way.of_input), convolutions * self.count
        sizes = rows, len(self.way.of_taps) - rows
        return tuple(self.matrices.new_empty(images, size, self.shape[1]) for size in sizes)

    def slot(self, room: Room, place: int) -> Room:
        """Of one convolution in a `room` of several."""
        return tuple(each[place * self.count : (place + 1) * self.count] for each in room)

    def into(self, basis: Tensor, y: Tensor, room: Room) -> tuple[Tensor, Tensor]:
        images = torch.bmm(basis.expand(self.count, -1, -1), y.mT, out=room[0]).transpose(0, 1)
        return images, sums(self.way, images, room[1].transpose(0, 1))

    def plus(self, x: Tensor, basis: Tensor, alpha: float) -> Tensor:
        """``x`` and so much of what the last product is out of the basis."""
        return torch.baddbmm(x, self.first.permute(1, 2, 0), basis.expand(self.count, -1, -1), alpha=alpha)

    def out_of(self, basis: Tensor) -> Tensor:
        return torch.bmm(self.first.permute(1, 2, 0), basis.expand(self.count, -1, -1))

    def convolve(self, y: Tensor, room: Room | None = None) -> None:
        """The product becomes what ``way.of_output`` makes the convolution of ``y``."""
        self._multiply(self.into(self.way.of_input, y, room or self.one), self.matrices.mT)

    def adjoint(self, y: Tensor, room: Room | None = None) -> None:
        """The product becomes what ``way.of_input`` makes the adjoint of the convolution of ``y``."""
        self._multiply(self.into(self.way.of_output, y, room or self.one), self.matrices)

    def _multiply(self, images: Room, matrices: Tensor) -> None:
        rows = len(self.first)
        torch.bmm(images[0], matrices[:rows], out=self.first)
        torch.bmm(images[1], matrices[rows:], out=self.last)
        add_sums(self.way, self.first, self.last)

    def add_gradient(self, outputs: Room, inputs: Room, last: bool = True) -> None:
        """Of the matrices, from images in the basis on both sides of some convolutions."""
        if last:
            del self.matrices, self.one, self.product, self.first, self.last
        pairs = [(y.permute(1, 2, 0), x.transpose(0, 1)) for y, x in zip(outputs, inputs, strict=True)]
        if self.outer is None:
            self.outer = tuple(torch.bmm(*pair) for pair in pairs)
        else:
            self.outer = tuple(outer.baddbmm_(*pair) for outer, pair in zip(self.outer, pairs, strict=True))

    def gradient(self) -> Tensor:
        """Of the kernel."""
        return gradient_of_taps(self.way, *self.outer, self.shape)


class _Polynomial(torch.autograd.Function):
    """Keeps the partial sums in the basis."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, ratios: Sequence[float], padding_mode: str) -> Tensor:
        chain = _Chain(x, weight, padding_mode)
        y = flat = x.flatten(2)
        images = weight.new_empty(len(ratios) * len(x), *chain.one[0].shape[1:])
        for kept, ratio in zip(images.split(len(x)), reversed(ratios), strict=True):
            chain.convolve(y, (kept, chain.one[1]))
            y = chain.plus(flat, chain.way.of_output, ratio)
        ctx.save_for_backward(x, weight, images)
        ctx.ratios, ctx.padding_mode = ratios, padding_mode
        return y

    @staticmethod
    @in_full
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, images = ctx.saved_tensors
        ratios, mode = ctx.ratios, ctx.padding_mode
        if asked_otherwise(grad):
            gradients = again(ctx, grad, lambda *given: _horner(*given, ratios, mode).flatten(2), x, weight)
            return *gradients, None, None
        chain = _Chain(x, weight, mode)
        wanted, terms = ctx.needs_input_grad[1], len(ratios)
        # Of so many terms at once, which saves passes over the gradient of the matrices; many images do by themselves.
        together = min(terms, -(-ENOUGH // len(x))) if wanted else 1
        outputs = chain.room(together)
        each = total = grad
        for ratio, place in zip(ratios, reversed(range(terms)), strict=True):
            chain.adjoint(each * ratio, chain.slot(outputs, place % together))
            each = chain.out_of(chain.way.of_input)
            total = total + each
            if wanted and place % together == 0:
                filled = min(together, terms - place) * len(x)
                inputs = images[place * len(x) :][:filled]
                inputs = inputs, sums(chain.way, inputs.transpose(0, 1)).transpose(0, 1)
                chain.add_gradient(tuple(room[:filled] for room in outputs), inputs, place == 0)
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
        into, out_of, factor = chain.way.of_input, chain.way.of_output, _of_channels(step)
        wanted = ctx.needs_input_grad[1]
        outputs, inputs = (chain.room(2 if wanted else 1) for _ in range(2))
        chain.convolve(-grad, chain.slot(inputs, 0))
        of_scaled = chain.out_of(out_of)
        of_step = (of_scaled * hidden).sum(0)
        of_step = of_step.sum(1) if step.dim() else of_step.sum()
        of_hidden = (of_scaled * factor).mul_(hidden > 0)
        chain.adjoint(of_hidden, chain.slot(outputs, 1 if wanted else 0))
        of_x = chain.plus(grad, into, 1).view(x.shape)
        if wanted:
            chain.into(out_of, hidden * factor, chain.slot(outputs, 0))
            chain.into(into, x.flatten(2), chain.slot(inputs, 1))
            chain.add_gradient(outputs, inputs)
        of_bias = None if bias is None else of_hidden.sum((0, 2))
        return of_x, chain.gradient() if wanted else None, of_step, of_bias, None


def _of_channels(step: Tensor) -> Tensor:
    """To multiply ``(N, C, H W)`` with."""
    return step[:, None] if step.dim() else step


def residual(x: Tensor, weight: Tensor, step: Tensor, bias: Tensor | None, padding_mode: str) -> Tensor:
    """`lipref.linalg.residual_step.residual_step`."""
    return _Residual.apply(x, weight, step, bias, padding_mode).view(x.shape)
