"""Perturbations within a ball, and the float64 network that judges what an attack has found."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lipref.certification.certify import margins
from lipref.errors import LiprefError
from lipref.layers import fold
from lipref.nets import ConvNet

# Above the rounding of a float64 norm of 10^5 numbers, below anything that changes an attack.
ALLOWANCE = 1e-10

Box = tuple[Tensor | float, Tensor | float]


def norms(perturbations: Tensor) -> Tensor:
    """l2 norms ``(N,)`` of ``(N, C, H, W)``."""
    return perturbations.flatten(1).norm(dim=1)


def scaled(perturbations: Tensor, lengths: Tensor) -> Tensor:
    """``perturbations`` ``(N, C, H, W)`` with the l2 norms ``lengths`` ``(N,)``; zeros stay zeros."""
    tiny = torch.finfo(perturbations.dtype).tiny
    return perturbations * (lengths / norms(perturbations).clamp_min(tiny))[:, None, None, None]


def into_ball(perturbations: Tensor, radii: Tensor) -> Tensor:
    """Those that are longer than their radius, minus `ALLOWANCE`, scaled back to it."""
    return scaled(perturbations, torch.minimum(norms(perturbations), radii * (1 - ALLOWANCE)))


def into_box(perturbations: Tensor, images: Tensor, box: Box | None) -> Tensor:
    """``perturbations`` cut so that ``images`` plus them stay between ``box[0]`` and ``box[1]``; None: as they are."""
    if box is None:
        return perturbations
    low, high = (torch.as_tensor(end, dtype=images.dtype, device=images.device) for end in box)
    return (images + perturbations).clamp(low, high) - images


def random_directions(like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform on the unit sphere, in the shape, dtype and on the device of ``like`` ``(N, C, H, W)``."""
    drawn = torch.randn(like.shape, generator=generator, dtype=torch.float64)  # on the CPU: the same on every device
    return scaled(drawn, torch.ones(len(drawn), dtype=torch.float64)).to(like)


def random_in_ball(like: Tensor, radii: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform in the balls of ``radii`` ``(N,)``."""
    share = torch.rand(len(like), generator=generator, dtype=torch.float64) ** (1 / like[0].numel())
    return random_directions(like, generator) * (share.to(radii) * radii).to(like)[:, None, None, None]


def generator(purpose: str, seed: int) -> torch.Generator:
    """A stream of its own for every purpose, on the CPU."""
    digest = hashlib.blake2b(f"{purpose} {seed}".encode(), digest_size=8).digest()
    return torch.Generator(device="cpu").manual_seed(int.from_bytes(digest, "little"))


def radii_of(radius: float | Tensor, images: Tensor) -> Tensor:
    """``radius``, one number or one per image, as float64 ``(N,)`` on the device of ``images``.

    Raises:
        LiprefError: another shape, or a radius that is negative or not finite.
    """
    radii = torch.as_tensor(radius, dtype=torch.float64, device=images.device)
    if radii.shape not in ((), (len(images),)):
        raise LiprefError(f"radius has shape {tuple(radii.shape)}: give one number, or one for each of {len(images)}")
    radii = radii.expand(len(images))
    bad = radii[~(torch.isfinite(radii) & (radii >= 0))]
    if len(bad):
        raise LiprefError(f"radius={float(bad[0])}: give finite radii of 0 or more, in l2 over inputs in [0, 1]")
    return radii


def check_counts(**counts: int) -> None:
    """Refuse numbers of steps, restarts and the like below 1."""
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise LiprefError(f"{name}={count!r}: give a whole number of at least 1")


@dataclass(frozen=True)
class Attacked:
    """What an attack found, judged in float64.

    perturbations ``(N, C, H, W)``: for each image the end point with the smallest margin; norms ``(N,)``, l2, none
    above its radius; margins ``(N,)``; success ``(N,)`` bool, margin not positive: a wrong or tied prediction, also
    where the clean one was. ends ``(R, N, C, H, W)``, end_norms, end_margins ``(R, N)``: all end points, one per
    restart. Everything but ``success`` is float64.
    """

    perturbations: Tensor
    norms: Tensor
    margins: Tensor
    success: Tensor
    ends: Tensor
    end_norms: Tensor
    end_margins: Tensor


def parameters_of(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and dtype of a network."""
    first = next(model.parameters(), torch.empty(0))
    return first.device, first.dtype


def judge(model: nn.Module) -> nn.Module:
    """The certified function: a copy in evaluation, in float64, with all operators prepared anew."""
    return copy.deepcopy(model).eval().double().requires_grad_(False)


def searched(model: nn.Module) -> nn.Module:
    """A copy in evaluation for gradients to the input, in the model's dtype, folded where it is a `ConvNet`."""
    twin = fold(model, model.image_size) if type(model) is ConvNet else copy.deepcopy(model).eval()
    return twin.requires_grad_(False)


@torch.no_grad()
def judged_margins(twin: nn.Module, images: Tensor, labels: Tensor, batch_size: int) -> Tensor:
    """Margins ``(N,)``, float64, of the float64 network ``twin`` on ``images`` (N, C, H, W).

    Raises:
        LiprefError: logits that are not finite.
    """
    found = []
    for x, y in zip(images.double().split(batch_size), labels.split(batch_size), strict=True):
        logits = twin(x.clone())  # a module may work in place
        if not torch.isfinite(logits).all():
            raise LiprefError("the network gives logits that are not finite: certify it first, its weights are damaged")
        found.append(margins(logits, y))
    return torch.cat(found)


def verdict(twin: nn.Module, images: Tensor, labels: Tensor, radii: Tensor, ends: Tensor, batch_size: int) -> Attacked:
    """Judge the end points ``ends`` (R, N, C, H, W) of a search within ``radii`` (N,).

    Raises:
        RuntimeError: an end point outside its ball; a fault of the search.
    """
    restarts = len(ends)
    end_norms = norms(ends.flatten(0, 1)).view(restarts, -1)
    if not (end_norms <= radii).all():
        raise RuntimeError("an attack left its ball")
    moved = (images.double() + ends).flatten(0, 1)
    end_margins = judged_margins(twin, moved, labels.repeat(restarts), batch_size).view(restarts, -1)
    best = end_margins.argmin(0)
    each = torch.arange(len(images), device=images.device)
    least = end_margins[best, each]
    return Attacked(ends[best, each], end_norms[best, each], least, least <= 0, ends, end_norms, end_margins)


def check_images(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """``images`` (N, C, H, W) in float64 and ``labels`` (N,) on the model's device.

    Raises:
        LiprefError: no images, shapes that do not fit, or images that are not floating ones.
    """
    if not images.is_floating_point():
        raise LiprefError(f"images are {images.dtype}: give a network's input, as lipref.data.pixels makes it")
    if images.dim() != 4 or not len(images) or labels.shape != images.shape[:1]:
        shapes = f"{tuple(images.shape)} and {tuple(labels.shape)}"
        raise LiprefError(f"images and labels of shapes {shapes}: give (N, C, H, W) and (N,), N of at least 1")
    device, _ = parameters_of(model)
    return images.to(device=device, dtype=torch.float64), labels.to(device)
