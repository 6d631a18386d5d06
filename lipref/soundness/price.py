"""What soundness costs: certified robust accuracy by the published reckoning and by the proved one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor, nn

from lipref.certification.certify import RADII, certify
from lipref.certification.float_error import EvaluationError
from lipref.layers import LipschitzConv2d

WAYS = ("undivided", "published", "proved")


@dataclass(frozen=True)
class Price:
    """How many of ``images`` are certified at ``radius`` (l2, pixels in [0, 1]) in one ``way`` of `WAYS`."""

    radius: Fraction
    way: str
    count: int
    images: int


def price(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], published: float, proved: float | None,
    error: EvaluationError | None = None,
) -> list[Price]:  # fmt: skip
    """Certified counts at radius 0 (right, by more than the rounding) and at `certify.RADII`, three ways.

    ``undivided``: ``margin / sqrt(2)``, as the paper's tables have it, where every layer is 1-Lipschitz by its design
    (`LipschitzConv2d.proved`). ``published``: divided by the product of power-iteration estimates. ``proved``: divided
    by the proved bound, the rounding ``error`` of the evaluation taken off; left out where nothing is proved.

    Args:
        batches: ``(images, labels)``, mean-subtracted images in units of [0, 1].
        published: the published product (`lipref.soundness.constants`).
        proved: the proved bound, or None.
        error: bound of the rounding, `lipref.certification.float_error.evaluation_error`, or None.

    Raises:
        LiprefError: no images, or logits that are not finite.
    """
    batches = list(batches)
    plain = certify(model, batches, None)
    found = {}
    layers = [module for module in model.modules() if isinstance(module, LipschitzConv2d)]
    if layers and all(layer.proved for layer in layers):
        found["undivided"] = plain.radii
    found["published"] = plain.radii / published
    if proved is not None:
        found["proved"] = certify(model, batches, proved, error).radii
    total = len(plain.radii)
    rows = []
    for way, radii in found.items():
        rows += [Price(radius, way, int((radii > float(radius)).sum()), total) for radius in (Fraction(0), *RADII)]
    return rows
