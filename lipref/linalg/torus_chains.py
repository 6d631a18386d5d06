"""Several convolutions with one kernel on small images, by few products of matrices, for training on a CPU.

As in `lipref.linalg.torus_convolution`, but the kernel's matrices are made once for all of them, memory that was
written once is written again, images in the Fourier basis are kept for the backward pass, or made again in it, and the
gradient of the matrices is one product for all convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lipref.linalg import torus_convolution
from lipref.linalg.by_hand import again, asked_otherwise, derives_backwards, in_full
from lipref.linalg.padding import conv2d_same
from lipref.linalg.residual_step import residual_step
from lipref.linalg.torus_convolution import add_sums, gradient_of_taps, matrices_of, sums, sums_in_place, way_of

ENOUGH = 160  # images, of all terms, for one product


def pays(x: Tensor, weight: Tensor, padding_mode: str, convolutions: int) -> bool:
    """Whether so many convolutions of ``x`` with the square kernel ``weight`` are quicker here."""
    return derives_backwards() and torus_convolution.pays(x, weight, padding_mode, convolutions)


class _Chain:
    """A kernel ``(C, C, k, k)`` in the real Fourier basis, for images ``x`` ``(N, C, H, W)``, here ``(N, C, H W)``.

    In the basis images are ``(N, Q, C)``, so that one core makes an image without waiting for another. There is one
    product at a time, of what is in the basis with the kernel; then it is taken out of the basis.
    """

    def __init__(self, x: Tensor, weight: Tensor, padding_mode: str) -> None:
        self.way, self.shape, self.count = way_of(x, weight, padding_mode), weight.shape, len(x)
        self.matrices = matrices_of(self.way, weight)
        self.rows = len(self.way.of_input)
        product = weight.new_empty(len(self.way.of_taps), len(x), len(weight))
        self.product, self.of_sums = product.tensor_split([self.rows])
        self.sums = weight.new_empty(len(x), len(self.of_sums), len(weight)).transpose(0, 1)
        self.outer: list[Tensor | None] = [None, None]

    def room(self, convolutions: int = 1) -> Tensor:
        """For images in the basis on one side of so many convolutions, ``(N convolutions, Q, C)``."""
        return self.matrices.new_empty(convolutions * self.count, self.rows, self.shape[1])

    def place(self, room: Tensor, number: int) -> Tensor:
        """Of one convolution in a `room` of several."""
        return room[number * self.count : (number + 1) * self.count]

    def into(self, basis: Tensor, y: Tensor, images: Tensor) -> None:
        torch.bmm(self._of_each(basis), y.mT, out=images)

    def through(self, matrix: Tensor, images: Tensor, alpha: float, plus: Tensor | None = None) -> None:
        """Out of the basis and into it again: so much of the product, and ``plus``."""
        given, beta = (images, 0) if plus is None else (plus, 1)  # with 0 it is not read
        product = self.product.transpose(0, 1)
        torch.baddbmm(given, self._of_each(matrix), product, beta=beta, alpha=alpha, out=images)

    def out_of(
        self, basis: Tensor, plus: Tensor | None = None, alpha: float = 1.0, product: Tensor | None = None
    ) -> Tensor:
        """So much of the product, or of that ``product``, and ``plus``."""
        product = (self.product if product is None else product).permute(1, 2, 0)
        basis = self._of_each(basis)
        return torch.bmm(product, basis) if plus is None else torch.baddbmm(plus, product, basis, alpha=alpha)

    def _of_each(self, matrix: Tensor) -> Tensor:
        return matrix.expand(self.count, -1, -1)

    def convolve(self, images: Tensor) -> None:
        """Of what ``way.of_input`` took into the basis; ``way.of_output`` takes the product out of it."""
        self._multiply(images, self.matrices.mT)

    def adjoint(self, images: Tensor) -> None:
        """Of what ``way.of_output`` took into the basis; ``way.of_input`` takes the product out of it."""
        self._multiply(images, self.matrices)

    def _multiply(self, images: Tensor, matrices: Tensor) -> None:
        images = images.transpose(0, 1)
        torch.bmm(images, matrices[: self.rows], out=self.product)
        torch.bmm(sums(self.way, images, self.sums), matrices[self.rows :], out=self.of_sums)
        add_sums(self.way, self.product, self.of_sums)

    def drop_kernel(self) -> None:
        """Before the last `add_gradient`, which takes as much memory."""
        del self.matrices, self.product, self.of_sums, self.sums

    def add_gradient(self, outputs: Tensor, inputs: Tensor, keep_inputs: bool = False) -> None:
        """Of the matrices, from what is in the basis on both sides of some convolutions.

        ``outputs``, and ``inputs`` unless they are to be kept, are not what they were then: their sums are in place.
        """
        outputs, inputs = outputs.transpose(0, 1), inputs.transpose(0, 1)
        self._add_outer(0, outputs, inputs)
        outputs = sums_in_place(self.way, outputs)
        self._add_outer(1, outputs, sums(self.way, inputs) if keep_inputs else sums_in_place(self.way, inputs))

    def _add_outer(self, number: int, outputs: Tensor, inputs: Tensor) -> None:
        if self.outer[number] is None:
            self.outer[number] = torch.bmm(outputs.mT, inputs)
        else:
            self.outer[number].baddbmm_(outputs.mT, inputs)

    def gradient(self) -> Tensor:
        """Of the kernel."""
        return gradient_of_taps(self.way, *self.outer, self.shape)


def _partial_sums(chain: _Chain, x: Tensor, ratios: Sequence[float], keep: bool = True) -> Tensor:
    """In the basis, ``(T N, Q, C)``, one term after the other; `_Chain.convolve` follows the last.

    Unless they are to be kept, there is memory for the first and one other.
    """
    terms = len(ratios)
    images = chain.room(terms if keep else min(terms, 2))
    places = images.split(len(x))
    chain.into(chain.way.of_input, x.flatten(2), places[0])
    for term in range(1, terms):
        chain.convolve(places[min(term, len(places)) - 1])
        chain.through(chain.way.through, places[min(term, len(places) - 1)], ratios[-term], plus=places[0])
    return images


class _Polynomial(torch.autograd.Function):
    """Its partial sums are in the basis, and kept there, or made again."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, ratios: Sequence[float], padding_mode: str, recompute: bool) -> Tensor:
        chain = _Chain(x, weight, padding_mode)
        images = _partial_sums(chain, x, ratios, keep=not recompute)
        chain.convolve(images[-len(x) :])
        ctx.save_for_backward(x, weight, None if recompute else images)
        ctx.ratios, ctx.padding_mode = ratios, padding_mode
        return chain.out_of(chain.way.of_output, x.flatten(2), ratios[0])

    @staticmethod
    @in_full
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, images = ctx.saved_tensors
        ratios, mode = ctx.ratios, ctx.padding_mode
        if asked_otherwise(grad):
            gradients = again(ctx, grad, lambda *given: _horner(*given, ratios, mode).flatten(2), x, weight)
            return *gradients, None, None, None
        chain, count = _Chain(x, weight, mode), len(x)
        way, wanted, terms, keep = chain.way, ctx.needs_input_grad[1], len(ratios), images is not None
        if wanted and not keep:
            images = _partial_sums(chain, x, ratios)
        # Of so many terms at once, which saves passes over the gradient of the matrices; many images do by themselves.
        together = min(terms, -(-ENOUGH // count)) if wanted else 1
        outputs, total = chain.room(together), None
        for ratio, place in zip(ratios, reversed(range(terms)), strict=True):
            here = chain.place(outputs, place % together)
            if place + 1 == terms:
                chain.into(way.of_output, grad * ratio, here)
            else:
                chain.through(way.through.mT, here, ratio)
            chain.adjoint(here)
            total = chain.product.clone() if total is None else total.add_(chain.product)
            if wanted and place and place % together == 0:
                among = min(together, terms - place)
                chain.add_gradient(outputs[: among * count], images[place * count : (place + among) * count], keep)
        chain.drop_kernel()
        of_x = chain.out_of(way.of_input, grad, product=total).view(x.shape)
        if not wanted:
            return of_x, None, None, None, None
        del total
        chain.add_gradient(outputs, images[: len(outputs)], keep)
        del images, outputs, here  # what follows takes memory of its own
        return of_x, chain.gradient(), None, None, None


def _horner(x: Tensor, weight: Tensor, ratios: Sequence[float], padding_mode: str) -> Tensor:
    y = x
    for ratio in reversed(ratios):
        y = x + ratio * conv2d_same(y, weight, None, padding_mode)
    return y


def polynomial(
    x: Tensor, weight: Tensor, ratios: Sequence[float], padding_mode: str, recompute: bool = False
) -> Tensor:
    """`lipref.linalg.convolution_polynomial.convolution_polynomial`.

    Unless ``recompute``, one tensor is kept for each term, of the torus's size: for a 3x3 kernel and zero padding
    (H + 1)(W + 1) places.
    """
    return _Polynomial.apply(x, weight, ratios, padding_mode, recompute).view(x.shape)


class _Residual(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, step: Tensor, bias: Tensor | None, padding_mode: str) -> Tensor:
        chain, flat = _Chain(x, weight, padding_mode), x.flatten(2)
        way, room = chain.way, chain.room()
        chain.into(way.of_input, flat, room)
        chain.convolve(room)
        hidden = chain.out_of(way.of_output)
        hidden = (hidden if bias is None else hidden.add_(bias[:, None])).relu_()
        ctx.save_for_backward(x, weight, step, bias, hidden)
        ctx.padding_mode = padding_mode
        chain.into(way.of_output, hidden * _of_channels(step), room)
        chain.adjoint(room)
        return chain.out_of(way.of_input, flat, -1)

    @staticmethod
    @in_full
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, step, bias, hidden = ctx.saved_tensors
        mode = ctx.padding_mode
        if asked_otherwise(grad):
            given = (x, weight, step, bias)
            return *again(ctx, grad, lambda *given: residual_step(*given, mode).flatten(2), *given), None
        chain, factor = _Chain(x, weight, mode), _of_channels(step)
        way, wanted = chain.way, ctx.needs_input_grad[1]
        outputs, inputs = (chain.room(2 if wanted else 1) for _ in range(2))
        room = chain.place(inputs, 0)
        chain.into(way.of_input, -grad, room)
        chain.convolve(room)
        of_scaled = chain.out_of(way.of_output)
        of_step = (of_scaled * hidden).sum(0)
        of_step = of_step.sum(1) if step.dim() else of_step.sum()
        of_hidden = (of_scaled * factor).mul_(hidden > 0)
        room = chain.place(outputs, 1 if wanted else 0)
        chain.into(way.of_output, of_hidden, room)
        chain.adjoint(room)
        of_x = chain.out_of(way.of_input, grad).view(x.shape)
        if wanted:
            chain.drop_kernel()
            chain.into(way.of_output, hidden * factor, chain.place(outputs, 0))
            chain.into(way.of_input, x.flatten(2), chain.place(inputs, 1))
            chain.add_gradient(outputs, inputs)
            del outputs, inputs, room  # what follows takes memory of its own
        of_bias = None if bias is None else of_hidden.sum((0, 2))
        return of_x, chain.gradient() if wanted else None, of_step, of_bias, None


def _of_channels(step: Tensor) -> Tensor:
    """To multiply ``(N, C, H W)`` with."""
    return step[:, None] if step.dim() else step


def residual(x: Tensor, weight: Tensor, step: Tensor, bias: Tensor | None, padding_mode: str) -> Tensor:
    """`lipref.linalg.residual_step.residual_step`."""
    return _Residual.apply(x, weight, step, bias, padding_mode).view(x.shape)
