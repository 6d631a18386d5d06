"""Projected gradient descent in the l2 ball."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lipref.attacks.perturbation import (
    Attacked,
    Box,
    check_counts,
    check_images,
    generator,
    into_ball,
    into_box,
    judge,
    norms,
    parameters_of,
    radii_of,
    random_in_ball,
    scaled,
    searched,
    verdict,
)
from lipref.attacks.toolbox import AUTOATTACK, LIBRARY, autoattack_perturbations, library_perturbations
from lipref.certification.certify import margins
from lipref.errors import LiprefError

METHODS = ("pgd", *LIBRARY, AUTOATTACK)
BATCH = 500


def attack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    radius: float | Tensor,
    *,
    method: str = "pgd",
    steps: int = 40,
    restarts: int = 5,
    seed: int = 0,
    targeted: bool = False,
    box: Box | None = None,
    batch_size: int = BATCH,
) -> Attacked:
    """Look for wrong predictions within ``radius`` of every image.

    ``pgd`` is projected gradient descent (Madry et al., ICLR 2018) on the margin, with normalised gradients, steps of
    2.5 radius / steps, and starts drawn uniformly from the ball; a restart's end point is the best of its iterates. It
    searches in the dtype of the model and is judged by the certified function: the model in float64, operators
    prepared anew. The other methods are those of the Adversarial Robustness Toolbox, with one end point, scaled back
    into the ball: ``carlini`` and ``deepfool`` look for the minimum norm, ``autoattack`` within one common radius.

    Args:
        model: maps (N, C, H, W) to (N, K) logits.
        images: mean-subtracted inputs in units of [0, 1], (N, C, H, W).
        labels: int64, (N,).
        radius: l2, one number or one per image.
        targeted: restart r leads to the class with the (r + 1)-th largest wrong logit, cyclically.
        box: the lowest and highest input, numbers or tensors that broadcast to an image, such as ``-mean`` and
            ``1 - mean``; None leaves pixels free, as a certificate does.
        batch_size: images times restarts at a time.

    Raises:
        LiprefError: arguments that do not fit, a method that is not known, a library that is not installed, or logits
            that are not finite.
    """
    check_counts(steps=steps, restarts=restarts, batch_size=batch_size)
    images, labels = check_images(model, images, labels)
    radii = radii_of(radius, images)
    if method not in METHODS:
        raise LiprefError(f"unknown attack {method!r}; known: {', '.join(METHODS)}")
    if method != "pgd":
        if box is not None or targeted:
            raise LiprefError(f"method={method!r} has neither box nor targeted: use 'pgd'")
        if method in LIBRARY:
            found = library_perturbations(model, images, labels, method, steps, batch_size)
        elif len(radii.unique()) == 1 and radii[0] > 0:
            found = autoattack_perturbations(
                model, images, labels, float(radii[0]), steps, restarts, seed, batch_size
            )  # fmt: skip
        else:
            raise LiprefError(f"method={method!r} takes one positive radius for all images, not {radii.tolist()[:3]}")
        return verdict(judge(model), images, labels, radii, into_ball(found, radii)[None], batch_size)
    if box is not None and not torch.allclose(into_box(torch.zeros_like(images), images, box), images.new_zeros(())):
        raise LiprefError(f"box={box}: an image lies outside; give the lowest and highest mean-subtracted pixel")
    search, draws = searched(model), generator("pgd", seed)
    _, dtype = parameters_of(model)
    start = torch.stack([random_in_ball(images, radii, draws) for _ in range(restarts)]).flatten(0, 1)
    x, y = images.repeat(restarts, 1, 1, 1), labels.repeat(restarts)
    targets = _targets(search, images.to(dtype), labels, restarts).flatten() if targeted else None
    found, lengths = [], radii.repeat(restarts)
    for here in torch.arange(len(x), device=x.device).split(batch_size):
        found.append(
            _descend(
                search, x[here].to(dtype), y[here], lengths[here].to(dtype), start[here].to(dtype), steps,
                box, None if targets is None else targets[here],
            )
        )  # fmt: skip
    ends = into_ball(into_box(torch.cat(found).double(), x, box), lengths)
    return verdict(judge(model), images, labels, radii, ends.unflatten(0, (restarts, -1)), batch_size)


def descent_direction(
    search: nn.Module, x: Tensor, perturbations: Tensor, labels: Tensor, targets: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What an attack makes small, ``(N,)``, and its gradient with respect to ``perturbations`` ``(N, C, H, W)``.

    That is the margin; with ``targets`` the true logit minus that of the target.
    """
    perturbations = perturbations.detach().requires_grad_()
    with torch.enable_grad():
        logits = search(x + perturbations)
        if targets is None:
            values = margins(logits, labels)
        else:
            values = (logits.gather(1, labels[:, None]) - logits.gather(1, targets[:, None])).squeeze(1)
        (gradient,) = torch.autograd.grad(values.sum(), perturbations)
    return values.detach(), gradient


def _descend(
    search: nn.Module, x: Tensor, labels: Tensor, radii: Tensor, start: Tensor, steps: int, box: Box | None,
    targets: Tensor | None,
) -> Tensor:  # fmt: skip
    """The best iterate of each start, ``(N, C, H, W)``."""
    current = into_ball(into_box(start, x, box), radii)
    best, least = current, torch.full_like(radii, torch.inf)
    for step in range(steps + 1):
        values, gradient = descent_direction(search, x, current, labels, targets)
        better = values < least
        best, least = torch.where(better[:, None, None, None], current, best), torch.where(better, values, least)
        if step < steps:
            moved = current - scaled(gradient, (norms(gradient) > 0) * 2.5 * radii / steps)
            # Towards zero after the box: the box is convex and holds the image, so the scaled point is in both.
            current = into_ball(into_box(moved, x, box), radii)
    return best


@torch.no_grad()
def _targets(search: nn.Module, images: Tensor, labels: Tensor, restarts: int) -> Tensor:
    """(R, N): the class that each restart leads to."""
    logits = torch.cat([search(part) for part in images.split(BATCH)])
    ranked = logits.scatter(1, labels[:, None], -torch.inf).argsort(1, descending=True)[:, :-1]
    return torch.stack([ranked[:, restart % ranked.shape[1]] for restart in range(restarts)])
