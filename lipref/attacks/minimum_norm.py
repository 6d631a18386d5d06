"""Attacks that look for the smallest perturbation, and one to the edge of a certified ball."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lipref.attacks.perturbation import (
    Attacked,
    Box,
    check_counts,
    check_images,
    generator,
    judge,
    judged_margins,
    norms,
    parameters_of,
    radii_of,
    random_directions,
    scaled,
    searched,
    verdict,
)
from lipref.attacks.pgd import BATCH, attack, descent_direction
from lipref.attacks.toolbox import LIBRARY, library_perturbations
from lipref.errors import LiprefError

LINE_STEPS = 8  # bisections along a segment: to 0.4 % of its length
LEAST_START = 0.05  # of l2: an image certified for less is tried here first


@dataclass(frozen=True)
class MinimumNorm:
    """norms ``(N,)``, float64: the smallest l2 norm found with a wrong or tied prediction; infinite where none was.

    perturbations ``(N, C, H, W)``, float64, zeros where none was found; violations ``(N,)``, bool: below the certified
    radius, which refutes the certificate.
    """

    norms: Tensor
    perturbations: Tensor
    violations: Tensor


def minimum_norm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    certified: float | Tensor,
    *,
    method: str = "pgd",
    doublings: int = 6,
    bisections: int = 5,
    steps: int = 40,
    restarts: int = 1,
    seed: int = 0,
    box: Box | None = None,
    batch_size: int = BATCH,
) -> MinimumNorm:
    """Search for the smallest perturbation of each image that changes its prediction.

    ``pgd``: attacks with a radius that doubles, from 1.25 times the certified one (or 0.05), until they succeed,
    then half-way between what failed and what succeeded. Another method is one attack of the toolbox. Every success is
    drawn back along its segment to the boundary of the decision, judged in float64.

    Args:
        model, images, labels, method, steps, restarts, seed, box: as in `lipref.attacks.attack`.
        certified: certified radii, one number or one per image; not positive where nothing is certified.

    Raises:
        LiprefError: arguments that do not fit, or logits that are not finite.
    """
    check_counts(doublings=doublings, bisections=bisections, batch_size=batch_size)
    images, labels = check_images(model, images, labels)
    radii = radii_of(torch.as_tensor(certified, dtype=torch.float64).clamp_min(0), images)
    known = ("pgd", *LIBRARY)
    if method not in known:
        raise LiprefError(f"unknown attack {method!r}; of minimum norm are: {', '.join(known)}")
    if method in LIBRARY and box is not None:
        raise LiprefError(f"method={method!r} has no box: use 'pgd'")
    twin = judge(model)
    clean = judged_margins(twin, images, labels, batch_size) <= 0
    best = torch.zeros_like(images)
    least = torch.where(clean, 0.0, torch.full_like(radii, math.inf))

    def take(tried: Tensor, at: Tensor) -> None:
        """Keep what of the perturbations ``tried`` of the images ``at`` is wrong, and shorter than what is there."""
        drawn, lengths = _drawn_back(twin, images[at], labels[at], tried, batch_size)
        shorter = lengths < least[at]
        best[at[shorter]], least[at[shorter]] = drawn[shorter], lengths[shorter]

    if method in LIBRARY:
        take(
            library_perturbations(model, images, labels, method, steps, batch_size),
            torch.arange(len(images), device=images.device),
        )
    else:
        failed, upper = torch.zeros_like(radii), 1.25 * radii.clamp_min(LEAST_START)
        for turn in range(doublings + bisections):
            open_ends = torch.isinf(least)
            ready = torch.ones_like(clean) if turn >= doublings else open_ends
            # An image for which nothing was found has no interval to halve.
            at = (ready & ~clean & ~(open_ends & (turn >= doublings))).nonzero().squeeze(1)
            if not len(at):
                continue
            tried = torch.where(open_ends, upper, (failed + least.nan_to_num(posinf=0)) / 2)[at]
            found = attack(
                model, images[at], labels[at], tried, steps=steps, restarts=restarts, seed=seed + turn, box=box,
                batch_size=batch_size,
            )  # fmt: skip
            if found.success.any():
                take(found.perturbations[found.success], at[found.success])
            lost = at[~found.success]
            failed[lost] = torch.maximum(failed[lost], tried[~found.success])
            upper[lost] = 2 * tried[~found.success]
    return MinimumNorm(least, best, (least < radii) & ~clean)


def _drawn_back(
    twin: nn.Module, images: Tensor, labels: Tensor, perturbations: Tensor, batch_size: int
) -> tuple[Tensor, Tensor]:
    """The shortest wrong point that bisection finds on each segment, and its norm; infinite where the end is right."""
    wrong = judged_margins(twin, images + perturbations, labels, batch_size) <= 0
    low, high = torch.zeros(len(images)).to(images), torch.ones(len(images)).to(images)
    for _ in range(LINE_STEPS):
        middle = (low + high) / 2
        moved = images + middle[:, None, None, None] * perturbations
        over = judged_margins(twin, moved, labels, batch_size) <= 0
        low, high = torch.where(over, low, middle), torch.where(over, middle, high)
    drawn = high[:, None, None, None] * perturbations
    return drawn, torch.where(wrong, norms(drawn), math.inf)


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
