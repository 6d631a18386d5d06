"""Activations that do not expand any l2 distance."""

import torch
from torch import Tensor, nn

from lipref.linalg import cuda_kernels

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes


class _Exchange(torch.autograd.Function):
    """Exchange the two channels of each pair of ``x`` ``(N, 2C, ...)`` where ``swap`` ``(N, C, ...)`` holds.

    On the bits, as integers: exact, and on a CPU six times as quick as torch.where. Its own inverse and transpose.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, swap: Tensor) -> Tensor:
        if cuda_kernels.serves(x, swap):
            return cuda_kernels.exchanged(x, swap)
        bits = x.view(_INTEGERS[x.element_size()])
        one, other = bits[:, 0::2], bits[:, 1::2]
        difference = (one ^ other).mul_(swap)
        if _is_plain(x):
            result = torch.empty_like(bits)
            torch.bitwise_xor(one, difference, out=result[:, 0::2])
            torch.bitwise_xor(other, difference, out=result[:, 1::2])
        else:  # which some do not take
            result = bits.clone()
            result[:, 0::2] ^= difference
            result[:, 1::2] ^= difference
        return result.view(x.dtype)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (swap,) = ctx.saved_tensors
        return _Exchange.apply(grad, swap), None


def _is_plain(x: Tensor) -> bool:
    """Whether results can be written into a part of memory, which some tensors do not take."""
    return type(x) is Tensor and not (torch.compiler.is_compiling() or cuda_kernels.stands_for_others(x))


def _in_order(x: Tensor) -> Tensor:
    one, other = x[:, 0::2], x[:, 1::2]
    result = torch.empty_like(x)
    torch.maximum(one, other, out=result[:, 0::2])
    torch.minimum(one, other, out=result[:, 1::2])
    return result


class _Sort(torch.autograd.Function):
    """Sort the channel pairs of ``x`` ``(N, 2C, ...)``; also which were exchanged, ``(N, C, ...)``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        if cuda_kernels.serves(x):
            return cuda_kernels.sorted_pairs(x)
        return _in_order(x), x[:, 0::2] <= x[:, 1::2]

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)  # no zeros for the gradient of what has none
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx, grad: Tensor | None, _: None) -> Tensor | None:
        (swap,) = ctx.saved_tensors
        return None if grad is None else _Exchange.apply(grad, swap)


class MaxMin(nn.Module):
    """Sort each channel pair: channels ``(2j, 2j+1)`` of ``(N, C, ...)`` become their maximum and minimum.

    1-Lipschitz and gradient-norm preserving: it permutes. An odd last channel is left as it is. For the backward pass
    one byte per pair is kept. Where one of a pair is NaN, at least one of the results is.
    Source: Anil, Lucas, Grosse, "Sorting out Lipschitz function approximation", ICML 2019.
    """

    def forward(self, x: Tensor) -> Tensor:
        even = x.shape[1] // 2 * 2
        paired = x[:, :even]
        graded = torch.is_grad_enabled()  # without, nothing has to be kept, and calls cost half as much
        if cuda_kernels.serves(paired):
            sorted_, _ = (_Sort.apply if graded else _Sort.forward)(paired)
        elif paired.device.type == "cpu" and _is_plain(paired):
            sorted_ = _Sort.apply(paired)[0] if graded else _in_order(paired)
        else:
            swap = (paired[:, 0::2] <= paired[:, 1::2]).detach()
            sorted_ = (_Exchange.apply if graded else _Exchange.forward)(paired, swap)
        return sorted_ if even == x.shape[1] else torch.cat((sorted_, x[:, even:]), dim=1)
