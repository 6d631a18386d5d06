"""Two copies of a network: one that is searched, and the float64 one that judges what the search has found."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lipref.attacks.ball import norms
from lipref.certification.certify import margins
from lipref.errors import LiprefError
from lipref.layers import fold
from lipref.nets import ConvNet


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
