"""Margins, certified radii, and certified robust accuracy."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn

from lipref.errors import LiprefError
from lipref.layers import LipschitzConv2d

CURVE_STEP = Fraction(4, 255)  # of the recorded curve of CRA against the radius
RADII = (Fraction(36, 255), Fraction(72, 255), Fraction(108, 255), Fraction(255, 255))


def radius_name(radius: Fraction) -> str:
    """``36/255`` for 12/85: the usual denominators."""
    return f"{radius * 255}/255"


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Logit of the true class minus the largest other logit: ``(N, K)``, ``(N,)`` -> ``(N,)``.

    Not positive where the prediction is wrong or tied.
    """
    if logits.shape[1] < 2:
        raise LiprefError(f"a margin needs two classes or more, not {logits.shape[1]}")
    true = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -math.inf)
    return (true - others.amax(1, keepdim=True)).squeeze(1)


def certified_radii(margins: Tensor, lipschitz: float) -> Tensor:
    """``margin / (sqrt(2) L)``: the l2 radius within which no perturbation changes a right prediction.

    At most 0 where the prediction is wrong or tied. The difference of two logits of an L-Lipschitz network is
    ``sqrt(2) L``-Lipschitz (Tsuzuku, Sato, Sugiyama, NeurIPS 2018).
    """
    return margins / (math.nextafter(math.sqrt(2), 2) * lipschitz)


@dataclass(frozen=True)
class Proportion:
    """``count`` of ``total`` with the exact (Clopper-Pearson) 95 % interval."""

    count: int
    total: int

    @property
    def value(self) -> float:
        return self.count / self.total

    @property
    def interval(self) -> tuple[float, float]:
        from scipy.stats import binomtest  # seconds to import, and needed at the end only

        low, high = binomtest(self.count, self.total).proportion_ci(0.95, method="exact")
        return float(low), float(high)

    def as_dict(self) -> dict:
        low, high = self.interval
        return {"count": self.count, "total": self.total, "value": self.value, "low": low, "high": high}


@dataclass(frozen=True)
class Certificate:
    """Clean accuracy and CRA at `RADII` on one set of images.

    ``proved`` is false where the network has no bound and L = 1 was assumed.
    """

    accuracy: Proportion
    cra: dict[Fraction, Proportion]
    lipschitz: float
    proved: bool
    radii: Tensor

    def as_dict(self) -> dict:
        return {
            "accuracy": self.accuracy.as_dict(),
            "cra": {radius_name(radius): share.as_dict() for radius, share in self.cra.items()},
            "lipschitz_bound": self.lipschitz if self.proved else None,
            "proved": self.proved,
            "median_radius": float(self.radii.clamp_min(0).median()),
            "curve": {"step": f"{CURVE_STEP * 255}/255", "counts": self.curve()},
        }

    def curve(self) -> list[int]:
        """How many images are certified at 0, 1, 2, ... times `CURVE_STEP`, up to the first 0 (or 4 in all)."""
        counts = []
        while not counts or (counts[-1] and len(counts) <= 4 / CURVE_STEP):
            counts.append(int((self.radii > float(len(counts) * CURVE_STEP)).sum()))
        return counts


def certify(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], lipschitz: float | None) -> Certificate:
    """Certify ``model`` on ``batches`` of ``(images, labels)``, mean-subtracted images in units of [0, 1].

    The network is copied, converted to float64, and all its operators are prepared anew; an image counts at radius
    eps where ``margin > sqrt(2) L eps``, strictly, so that ties and wrong predictions fail. Images are evaluated
    where the model is, or on the CPU where its device has no float64.

    Args:
        lipschitz: a rigorous bound of the network's constant (`lipref.audit.network_bound`); None assumes 1 and marks
            the result not proved.

    Raises:
        LiprefError: no images, non-finite logits, or a bound that is not a positive finite number.
    """
    if lipschitz is not None and not (math.isfinite(lipschitz) and lipschitz > 0):
        raise LiprefError(f"lipschitz={lipschitz} is not a positive finite number; pass the network's bound")
    model = copy.deepcopy(model)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    if device.type == "mps":
        device = torch.device("cpu")
    model = model.to(device).double().eval()
    for module in model.modules():
        if isinstance(module, LipschitzConv2d):
            module._kept = None  # prepared anew, whatever the copy brought along
    found = []
    with torch.no_grad():
        for images, labels in batches:
            logits = model(images.to(device=device, dtype=torch.float64))
            if not torch.isfinite(logits).all():
                raise LiprefError(
                    "the network gives logits that are not finite; its weights are damaged or its training diverged"
                )
            found.append(margins(logits, labels.to(device)).cpu())
    if not found:
        raise LiprefError("no images to certify")
    all_margins = torch.cat(found)
    constant = 1.0 if lipschitz is None else lipschitz
    radii, total = certified_radii(all_margins, constant), len(all_margins)
    cra = {radius: Proportion(int((radii > float(radius)).sum()), total) for radius in RADII}
    return Certificate(Proportion(int((all_margins > 0).sum()), total), cra, constant, lipschitz is not None, radii)
