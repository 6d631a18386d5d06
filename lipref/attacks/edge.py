"""A search on the very edge of the ball, from where another attack has ended."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lipref.attacks.ball import check_counts, generator, norms, radii_of, random_directions, scaled
from lipref.attacks.judging import Attacked, check_images, judge, parameters_of, searched, verdict
from lipref.attacks.pgd import BATCH, descent_direction
from lipref.errors import LiprefError

LEAST_LEVEL = 0.999


def edge_search(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    radius: float | Tensor,
    starts: Tensor,
    *,
    level: float = 0.9995,
    steps: int = 40,
    seed: int = 0,
    batch_size: int = BATCH,
) -> Attacked:
    """Make margins small on the sphere of ``level`` times the radius, the plain l2 ball's edge.

    Riemannian gradient descent: the gradient's tangential part, normalised; steps that decay geometrically from a fifth
    of the radius to a thousandth; after each one back onto the sphere. An end point is the best iterate, and its norm
    is ``level`` times the radius. Pixels are free.

    Args:
        model, images, labels, radius: as in `lipref.attacks.attack`.
        starts: perturbations (R, N, C, H, W), such as `Attacked.ends`; of any length, zeros begin at random.
        level: from 0.999 to below 1.

    Raises:
        LiprefError: arguments that do not fit, or logits that are not finite.
    """
    check_counts(steps=steps, batch_size=batch_size)
    images, labels = check_images(model, images, labels)
    radii = radii_of(radius, images)
    if starts.dim() != 5 or not len(starts) or starts.shape[1:] != images.shape:
        wanted = ("R", *images.shape)
        raise LiprefError(f"starts of shape {tuple(starts.shape)}: give {wanted}, such as the ends of an attack")
    if not LEAST_LEVEL <= level <= 1 - 1e-6:
        raise LiprefError(f"level={level}: give a share of the radius from {LEAST_LEVEL} to 1 - 1e-6")
    restarts = len(starts)
    search, draws = searched(model), generator("edge", seed)
    _, dtype = parameters_of(model)
    lengths = (level * radii).repeat(restarts)
    begin = starts.to(images).flatten(0, 1)
    nowhere = (norms(begin) == 0)[:, None, None, None]
    begin = scaled(torch.where(nowhere, random_directions(begin, draws), begin), lengths)
    x, y = images.repeat(restarts, 1, 1, 1), labels.repeat(restarts)
    found = [
        _slide(search, x[here].to(dtype), y[here], lengths[here].to(dtype), begin[here].to(dtype), steps)
        for here in torch.arange(len(x), device=x.device).split(batch_size)
    ]
    ends = scaled(torch.cat(found).double(), lengths).unflatten(0, (restarts, -1))
    return verdict(judge(model), images, labels, radii, ends, batch_size)


def _slide(search: nn.Module, x: Tensor, labels: Tensor, lengths: Tensor, start: Tensor, steps: int) -> Tensor:
    current, best, least = start, start, torch.full_like(lengths, torch.inf)
    for step in range(steps + 1):
        values, gradient = descent_direction(search, x, current, labels)
        better = values < least
        best, least = torch.where(better[:, None, None, None], current, best), torch.where(better, values, least)
        if step < steps:
            outward = scaled(current, torch.ones_like(lengths))
            inner = (gradient * outward).flatten(1).sum(1)[:, None, None, None]
            tangent = gradient - inner * outward
            stride = 0.2 * 0.005 ** (step / max(steps - 1, 1)) * lengths
            current = scaled(current - scaled(tangent, stride * (norms(tangent) > 0)), lengths)
    return best
