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

TTA = (None, "flip")  # averaging over isometries of the input at test time
CURVE_STEP = Fraction(4, 255)  # of the recorded curve of CRA against the radius
RADII = (Fraction(36, 255), Fraction(72, 255), Fraction(108, 255), Fraction(255, 255))


def radius_name(radius: Fraction) -> str:
    """``36/255`` for 12/85: the usual denominators."""
    return f"{radius * 255}/255"


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Logit of the true class minus the largest other logit: ``(N, K)``, int64 ``(N,)`` -> ``(N,)``.

    Not positive where the prediction is wrong or tied.

    Args:
        logits: ``(N, K)``, of K >= 2 classes.
        labels: the true classes, int64 ``(N,)``, from 0 to K - 1.

    Returns:
        ``(N,)``, in the logits' units and dtype.

    Raises:
        LiprefError: logits or labels of another shape, fewer than two classes, or labels that are not int64.

    Example:
        >>> import torch
        >>> from lipref import margins
        >>> margins(torch.tensor([[0.5, 2.0, 1.0], [0.5, 2.0, 1.0]]), torch.tensor([1, 0]))
        tensor([ 1.0000, -1.5000])
    """
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise LiprefError(f"a margin needs logits (N, K) of two classes or more, not {tuple(logits.shape)}")
    if labels.dtype != torch.int64 or labels.shape != logits.shape[:1]:
        raise LiprefError(
            f"labels are {labels.dtype} {tuple(labels.shape)}: give int64 of shape ({len(logits)},), the class of each "
            "picture"
        )
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
class EvaluationError:
    """``||computed logits - exact logits||_2 <= slope ||x||_2 + constant`` for every input x, itself rounded.

    ``unbounded`` names the layers that bring no bound of their rounding; the numbers are None then.
    """

    slope: float | None
    constant: float | None
    unbounded: tuple[str, ...] = ()

    def at(self, norms: torch.Tensor) -> torch.Tensor:
        """The bound for inputs of these norms, any shape."""
        if self.slope is None:
            raise LiprefError(f"no bound of the rounding in {', '.join(self.unbounded)}")
        return (self.slope * norms + self.constant) * (1 + 1e-9)


@dataclass(frozen=True)
class Certificate:
    """Clean accuracy and CRA at `RADII` on one set of images.

    ``proved`` is false where the network has no bound and L = 1 was assumed. ``radii`` ``(N,)`` are the certified l2
    radii, at most 0 where nothing is certified; ``errors`` ``(N,)`` bound the rounding of the logits, in the l2 norm,
    and have been taken off the margins (None: not bounded, not taken off).
    """

    accuracy: Proportion
    cra: dict[Fraction, Proportion]
    lipschitz: float
    proved: bool
    radii: Tensor
    errors: Tensor | None = None

    def as_dict(self) -> dict:
        return {
            "accuracy": self.accuracy.as_dict(),
            "cra": {radius_name(radius): share.as_dict() for radius, share in self.cra.items()},
            "lipschitz_bound": self.lipschitz if self.proved else None,
            "proved": self.proved,
            "largest_evaluation_error": None if self.errors is None else float(self.errors.max()),
            "median_radius": float(self.radii.clamp_min(0).median()),
            "curve": {"step": f"{CURVE_STEP * 255}/255", "counts": self.curve()},
        }

    def curve(self) -> list[int]:
        """How many images are certified at 0, 1, 2, ... times `CURVE_STEP`, up to the first 0 (or 4 in all)."""
        counts = []
        while not counts or (counts[-1] and len(counts) <= 4 / CURVE_STEP):
            counts.append(int((self.radii > float(len(counts) * CURVE_STEP)).sum()))
        return counts


def certify(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    lipschitz: float | None,
    error: EvaluationError | None = None,
    tta: str | None = None,
    pairs: Tensor | None = None,
) -> Certificate:
    """Certify ``model`` on ``batches`` of ``(images, labels)``, mean-subtracted images in units of [0, 1].

    The network is copied, converted to float64, and all its operators are prepared anew; an image counts at radius
    eps where ``margin - sqrt(2) e > sqrt(2) L eps``, strictly, so that ties and wrong predictions fail; e bounds the
    rounding of its logits. Images are evaluated where the model is, or on the CPU where its device has no float64.

    Args:
        model: maps pictures to logits ``(N, K)``.
        batches: floating pictures ``(N, C, H, W)``, within [-1, 1] as a mean subtracted from [0, 1] leaves them, and
            their classes, whole numbers ``(N,)`` from 0 on. They are left as they are.
        lipschitz: a rigorous bound of the network's constant (`lipref.lipschitz_bound`); None assumes 1 and marks
            the result not proved.
        error: the bound of the float64 evaluation's rounding (`float_error.evaluation_error`); None takes
            nothing off.
        tta: ``"flip"`` certifies the average of the logits of a picture and of its mirror image. Mirroring is an
            isometry, so the average of the two maps has the network's constant too: the certificate is as rigorous,
            of another classifier.
        pairs: constants ``(K, K)`` of the differences of two logits (`pair_bounds.pair_bounds`), none above
            sqrt(2) L; a radius is then the least over all other classes, and never smaller than without. None: the
            common sqrt(2) L, as in the published comparisons.

    Returns:
        The `Certificate`: ``accuracy``, ``cra`` by radius, and ``radii`` ``(N,)``, l2 over pixels in [0, 1].

    Raises:
        LiprefError: no images, images or labels of another kind or out of range, non-finite logits, a bound that is not
            a positive finite number, pairs of another shape, or an unknown tta.

    Source: Tsuzuku, Sato, Sugiyama, "Lipschitz-Margin Training", NeurIPS 2018.

    Example:
        >>> import torch
        >>> from lipref import certify, convnet, lipschitz_bound
        >>> model = convnet("XS", "aol", num_classes=10, in_channels=1, image_size=8)
        >>> images, labels = torch.rand(4, 1, 8, 8) - 0.5, torch.tensor([0, 1, 2, 3])
        >>> found = certify(model, [(images, labels)], lipschitz_bound(model, (1, 8, 8)))
        >>> [f"{float(radius):.3f}" for radius in found.cra]
        ['0.141', '0.282', '0.424', '1.000']
        >>> found.proved, found.radii.shape
        (True, torch.Size([4]))
    """
    if tta not in TTA:
        raise LiprefError(f"tta={tta!r} is unknown; give one of {', '.join(map(str, TTA))}")
    number = isinstance(lipschitz, int | float) and not isinstance(lipschitz, bool)
    if lipschitz is not None and not (number and math.isfinite(lipschitz) and lipschitz > 0):
        raise LiprefError(
            f"lipschitz={lipschitz} is not a positive finite number; pass the network's bound, `bound` of its audit"
        )
    if error is not None and not (
        isinstance(error, EvaluationError)
        and all(part is not None and 0 <= part < math.inf for part in (error.slope, error.constant))
    ):
        raise LiprefError(f"error={error} is no bound of a rounding; pass that of lipref.certification.float_error")
    if pairs is not None and not (isinstance(pairs, Tensor) and bool((torch.isfinite(pairs) & (pairs > 0)).all())):
        raise LiprefError(
            "pairs are not positive finite constants; pass those of lipref.certification.pair_bounds, or None"
        )
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    if device.type == "mps":
        device = torch.device("cpu")
    model = copy.deepcopy(model).eval().to(device).double()
    constant = 1.0 if lipschitz is None else lipschitz
    found, errors, reaches = [], [], []
    with torch.no_grad():
        for batch in batches:
            images, labels = _checked_batch(batch)
            images = images.to(device=device, dtype=torch.float64)
            logits = model(images.clone())  # a module may work in place
            if tta == "flip":
                logits = (logits + model(images.flip(-1))) / 2
            labels = _checked_labels(labels, logits)
            if not torch.isfinite(logits).all():
                raise LiprefError(
                    "the network gives logits that are not finite; its weights are damaged or its training diverged"
                )
            found.append(margins(logits, labels).cpu())
            bound = None
            if error is not None:
                bound = error.at(images.flatten(1).norm(dim=1))  # of a mirror image too: it has the same norm
                if tta is not None:  # one more addition
                    bound = bound + 2.0**-52 * (logits.norm(dim=1) + bound)
                errors.append(bound.cpu())
            reaches.append(_radii(logits, labels, constant, bound, pairs).cpu())
    if not any(map(len, found)):
        raise LiprefError("no images to certify")
    all_margins = torch.cat(found)
    rounding = torch.cat(errors) if errors else None
    radii, total = torch.cat(reaches), len(all_margins)
    cra = {radius: Proportion(int((radii > float(radius)).sum()), total) for radius in RADII}
    return Certificate(
        Proportion(int((all_margins > 0).sum()), total), cra, constant, lipschitz is not None, radii, rounding
    )


def _checked_batch(batch: object) -> tuple[Tensor, Tensor]:
    """Pictures and labels; refused is what is not a network's input.

    That is ``(N, C, H, W)`` within [-1, 1], as a mean leaves them, or features ``(N, F)``, which have no range of their
    own, in float32 or float64.
    """
    if not isinstance(batch, tuple | list) or len(batch) != 2 or not all(isinstance(part, Tensor) for part in batch):
        raise LiprefError("a batch is no pair of tensors: give a list of (images, labels), as lipref.data.pixels makes")
    images, labels = batch
    if images.dtype not in (torch.float32, torch.float64):
        raise LiprefError(
            f"images are {images.dtype}: give float32 or float64, pixels / levels - mean, as lipref.data.pixels makes"
        )
    if images.dim() not in (2, 4):
        raise LiprefError(f"images have shape {tuple(images.shape)}: give (N, C, H, W), or features (N, F)")
    if images.dim() == 4 and images.numel() and not bool(images.abs().max() <= 1):  # NaN is not either
        raise LiprefError(
            f"pixels from {float(images.min()):g} to {float(images.max()):g}, outside of [-1, 1]: give "
            "pixels / levels - mean, in units of [0, 1], as lipref.data.pixels makes them; radii are in these units"
        )
    return images, labels


def _checked_labels(labels: Tensor, logits: Tensor) -> Tensor:
    """The classes of the pictures with these logits, int64, on their device."""
    other = labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool
    if other or labels.shape != logits.shape[:1]:
        raise LiprefError(
            f"labels are {labels.dtype} {tuple(labels.shape)} for {len(logits)} pictures: give whole numbers, the "
            "class of each picture"
        )
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        raise LiprefError(
            f"labels from {int(labels.min())} to {int(labels.max())}: give 0 to {logits.shape[1] - 1}, the class of "
            "each picture"
        )
    return labels.to(logits.device, torch.int64)


def _radii(logits: Tensor, labels: Tensor, lipschitz: float, error: Tensor | None, pairs: Tensor | None) -> Tensor:
    """Certified radii ``(N,)``: margins less what rounding can have added, over the constants."""
    taken = 0.0 if error is None else math.sqrt(2) * error * (1 + 1e-9)
    radii = certified_radii(margins(logits, labels) - taken, lipschitz)
    if pairs is not None:
        if pairs.shape != (logits.shape[1],) * 2:
            raise LiprefError(f"pairs of shape {tuple(pairs.shape)}: give ({logits.shape[1]}, {logits.shape[1]})")
        ahead = logits.gather(1, labels[:, None]) - logits
        own = (ahead - (taken if error is None else taken[:, None])) / pairs.to(logits)[labels]
        own = own.scatter(1, labels[:, None], math.inf).amin(1)
        radii = torch.where(radii > 0, torch.maximum(radii, own), radii)
    return radii * (1 - 2.0**-50)  # covers the rounding of the few operations here
