"""Activations that do not expand any l2 distance."""

import torch
from torch import Tensor, nn


class MaxMin(nn.Module):
    """Sort each channel pair: channels ``(2j, 2j+1)`` of ``(N, C, ...)`` become their maximum and minimum.

    1-Lipschitz and gradient-norm preserving: it permutes. An odd last channel is left as it is.
    Source: Anil, Lucas, Grosse, "Sorting out Lipschitz function approximation", ICML 2019.
    """

    def forward(self, x: Tensor) -> Tensor:
        even = x.shape[1] // 2 * 2
        first, second = x[:, 0:even:2], x[:, 1:even:2]
        # One mask for both: the gradients of torch.maximum and torch.minimum cost several passes more, to split ties.
        larger = (first > second).detach()
        largest, smallest = torch.where(larger, first, second), torch.where(larger, second, first)
        pairs = torch.stack((largest, smallest), dim=2).flatten(1, 2)
        return pairs if even == x.shape[1] else torch.cat((pairs, x[:, even:]), dim=1)
