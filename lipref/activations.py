"""Activations that do not expand any l2 distance."""

import torch
from torch import Tensor, nn


class _SortPairs(torch.autograd.Function):
    """Sort the channel pairs of ``x`` ``(N, 2C, ...)``; also which were exchanged, ``(N, C, ...)``.

    The gradient is exchanged back: a permutation also at ties, for one byte per pair. Autograd of maximum and minimum
    would halve it there, and keep both channels.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        one, other = x[:, 0::2], x[:, 1::2]
        return _interleaved(torch.maximum(one, other), torch.minimum(one, other), x), one <= other

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)  # no zeros for the gradient of what has none
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx, grad: Tensor | None, _: None) -> Tensor | None:
        if grad is None:
            return None
        (swap,) = ctx.saved_tensors
        one, other = grad[:, 0::2], grad[:, 1::2]
        return _interleaved(torch.where(swap, other, one), torch.where(swap, one, other), grad)


def _interleaved(one: Tensor, other: Tensor, like: Tensor) -> Tensor:
    """Their channels in turn, in the memory format of ``like``."""
    both = torch.empty_like(like)
    both[:, 0::2], both[:, 1::2] = one, other
    return both


class MaxMin(nn.Module):
    """Sort each channel pair: channels ``(2j, 2j+1)`` of ``(N, C, ...)`` become their maximum and minimum.

    1-Lipschitz and gradient-norm preserving: it permutes. An odd last channel is left as it is. For the backward pass
    one byte per pair is kept. Where one of a pair is NaN, at least one of the results is.
    Source: Anil, Lucas, Grosse, "Sorting out Lipschitz function approximation", ICML 2019.

    Example:
        >>> import torch
        >>> from lipref import MaxMin
        >>> MaxMin()(torch.tensor([[1.0, 2.0, 4.0, 3.0]]))
        tensor([[2., 1., 4., 3.]])
    """

    def forward(self, x: Tensor) -> Tensor:
        even = x.shape[1] // 2 * 2
        paired, _ = _SortPairs.apply(x[:, :even])
        return paired if even == x.shape[1] else torch.cat((paired, x[:, even:]), dim=1)
