"""Several convolutions with one kernel on small images, by few products of matrices, for training on a CPU.

As in `lipref.linalg.torus_convolution`, but the kernel's matrices are made once for all of them, images lie with their
places outermost from the first convolution to the last, and memory that was written once is written again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lipref.linalg import torus_convolution
from lipref.linalg.padding import conv2d_same, conv2d_same_adjoint
from lipref.linalg.torus_convolution import Way, gradient_of_taps, way_of


def pays(x: Tensor, weight: Tensor, padding_mode: str, convolutions: int) -> bool:
    """Whether so many convolutions of ``x`` with the square kernel ``weight`` are quicker here.

    Not under transformations of functions and forward-mode differentiation, which need the direct way.
    """
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return False
    return torus_convolution.pays(x, weight, padding_mode, convolutions)


class _Chain:
    """A kernel ``(C, C, k, k)`` in the real Fourier basis, for images ``(H W, N C)`` of ``size`` ``(N, C, H, W)``."""

    def __init__(self, way: Way, weight: Tensor, size: torch.Size) -> None:
        self.way, self.size = way, size
        taps, flat = way.of_taps, weight.flatten(2).flatten(0, 1).mT
        matrices = weight.new_empty(len(taps), flat.shape[1])
        # Each core makes some rows without waiting for another.
        cores = torch.get_num_threads()
        rows = len(taps) // cores
        some = taps[: rows * cores].unflatten(0, (cores, rows))
        torch.bmm(some, flat.expand(cores, -1, -1), out=matrices[: rows * cores].unflatten(0, (cores, rows)))
        torch.mm(taps[rows * cores :], flat, out=matrices[rows * cores :])
        self.matrices = matrices.unflatten(1, weight.shape[:2])
        self.into, self.product = (weight.new_empty(len(taps), *size[:2]) for _ in range(2))
        self.outer: Tensor | None = None

    def image(self, x: Tensor) -> Tensor:
        return x.flatten(2).flatten(0, 1).mT.contiguous()

    def batch(self, y: Tensor) -> Tensor:
        return y.mT.reshape(self.size)

    def _times(self, basis: Tensor, y: Tensor, matrices: Tensor) -> Tensor:
        torch.mm(basis, y, out=self.into.flatten(1))
        return torch.bmm(self.into, matrices, out=self.product).flatten(1)

    def convolved(self, y: Tensor) -> Tensor:
        """What ``way.of_output.mT`` makes the convolution of; it and `into` last until the next call."""
        return self._times(self.way.of_input, y, self.matrices.mT)

    def adjoint(self, y: Tensor) -> Tensor:
        """What ``way.of_input.mT`` makes the adjoint of the convolution of."""
        return self._times(self.way.of_output, y, self.matrices)

    def add_gradient(self, output: Tensor, inputs: Tensor) -> None:
        """Of the matrices, from images in the basis on both sides of a convolution."""
        if self.outer is None:
            self.outer = torch.bmm(output.mT, inputs)
        else:
            self.outer.baddbmm_(output.mT, inputs)


def _again(ctx, grad: Tensor, function: Callable[..., Tensor], *given: Tensor | None) -> list[Tensor | None]:
    """Gradients with a graph of their own, by the direct way ``function``."""
    places = [place for place, value in enumerate(given) if value is not None and ctx.needs_input_grad[place]]
    found: list[Tensor | None] = [None] * len(given)
    # By other names: one of them may be made of another, as a step of its kernel, and that way is not this function's.
    names = [None if value is None else value.view_as(value) for value in given]
    gradients = torch.autograd.grad(function(*names), [names[place] for place in places], grad, create_graph=True)
    for place, gradient in zip(places, gradients, strict=True):
        found[place] = gradient
    return found


def _in_full(backward: Callable[..., tuple[Tensor | None, ...]]) -> Callable[..., tuple[Tensor | None, ...]]:
    """In the dtype of the forward pass, also where an autocast is on when the backward pass is asked for."""

    @functools.wraps(backward)
    def full(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast("cpu", enabled=False):
            return backward(ctx, grad)

    return full


class _Polynomial(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, ratios: Sequence[float], padding_mode: str) -> Tensor:
        chain = _Chain(way_of(x, weight, padding_mode), weight, x.shape)
        sums = [chain.image(x)]
        for ratio in reversed(ratios):
            product = chain.convolved(sums[-1])
            sums.append(torch.addmm(sums[0], chain.way.of_output.mT, product, alpha=ratio))
        ctx.save_for_backward(x, weight, *sums[1:-1])
        ctx.ratios, ctx.padding_mode = ratios, padding_mode
        return chain.batch(sums[-1])

    @staticmethod
    @_in_full
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *sums = ctx.saved_tensors
        ratios, mode = ctx.ratios, ctx.padding_mode
        if torch.is_grad_enabled():
            return *_again(ctx, grad, lambda x, weight: _horner(x, weight, ratios, mode), x, weight), None, None
        chain = _Chain(way_of(x, weight, mode), weight, x.shape)
        basis = chain.way.of_input
        each = total = chain.image(grad)
        for ratio, y in zip(ratios, [*reversed(sums), chain.image(x)], strict=True):
            product = chain.adjoint(each * ratio)
            each = basis.mT @ product
            total = total + each
            if ctx.needs_input_grad[1]:
                # The product is not needed any more.
                inputs = torch.mm(basis, y, out=product).view_as(chain.product)
                chain.add_gradient(chain.into, inputs)
        of_weight = gradient_of_taps(chain.way, chain.outer, weight.shape) if ctx.needs_input_grad[1] else None
        return chain.batch(total), of_weight, None, None


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
        chain = _Chain(way_of(x, weight, padding_mode), weight, x.shape)
        image = chain.image(x)
        hidden = (chain.way.of_output.mT @ chain.convolved(image)).unflatten(1, x.shape[:2])
        hidden = (hidden if bias is None else hidden.add_(bias)).relu_()
        ctx.save_for_backward(x, weight, step, bias, hidden)
        ctx.padding_mode = padding_mode
        return chain.batch(
            torch.addmm(image, chain.way.of_input.mT, chain.adjoint((hidden * step).flatten(1)), alpha=-1)
        )

    @staticmethod
    @_in_full
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, step, bias, hidden = ctx.saved_tensors
        mode = ctx.padding_mode
        if torch.is_grad_enabled():
            return *_again(ctx, grad, lambda *given: _step(*given, mode), x, weight, step, bias), None
        wants_weight = ctx.needs_input_grad[1]
        chain = _Chain(way_of(x, weight, mode), weight, x.shape)
        into, out_of = chain.way.of_input, chain.way.of_output
        grad = chain.image(grad)
        product = chain.convolved(-grad)
        of_scaled = (out_of.mT @ product).view_as(hidden)
        if wants_weight:
            scaled = torch.mm(out_of, (hidden * step).flatten(1), out=product).view_as(chain.product)
            chain.add_gradient(scaled, chain.into)
        of_step = (of_scaled * hidden).flatten(0, 1)
        of_step = of_step.sum(0) if step.dim() else of_step.sum()
        of_hidden = (of_scaled * step).mul_(hidden > 0)
        product = chain.adjoint(of_hidden.flatten(1))
        of_x = torch.addmm(grad, into.mT, product)
        if wants_weight:
            chain.add_gradient(chain.into, torch.mm(into, chain.image(x), out=product).view_as(chain.product))
        of_weight = gradient_of_taps(chain.way, chain.outer, weight.shape) if wants_weight else None
        of_bias = None if bias is None else of_hidden.flatten(0, 1).sum(0)
        return chain.batch(of_x), of_weight, of_step, of_bias, None


def _step(x: Tensor, weight: Tensor, step: Tensor, bias: Tensor | None, padding_mode: str) -> Tensor:
    hidden = conv2d_same(x, weight, bias, padding_mode).relu()
    return x - conv2d_same_adjoint(hidden * (step[:, None, None] if step.dim() else step), weight, padding_mode)


def residual(x: Tensor, weight: Tensor, step: Tensor, bias: Tensor | None, padding_mode: str) -> Tensor:
    """``x - K^T (step * relu(K x + bias))`` with the convolution K of ``weight`` ``(C, C, k, k)``.

    ``x`` ``(N, C, H, W)``, ``step`` ``()`` or ``(C,)``, ``bias`` ``(C,)`` or None; output as ``x``.
    """
    return _Residual.apply(x, weight, step, bias, padding_mode)
