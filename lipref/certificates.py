"""The certificate of a network on a set of pictures, as a file that can be checked against the weights."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields

import pandas as pd
import torch
from torch import Tensor

import lipref
from lipref import checkpoint
from lipref.certify import RADII, Proportion, certified_radii, radius_name
from lipref.classifier import Classifier, file_sha256, weights_file
from lipref.data import Split
from lipref.errors import LiprefError
from lipref.provenance import environment

NAME = "certificate.safetensors"
FORMAT = 1
_TENSORS = {"radii": torch.float64, "margins": torch.float64, "predictions": torch.int64, "labels": torch.int64}


@dataclass(frozen=True, kw_only=True)
class CertificateFile:
    """What a certificate file says.

    Tensors, ``(N,)`` each: ``radii`` float64, l2 over pixels in [0, 1], 0 where the prediction is wrong or tied or
    nothing is proved; ``margins`` float64, of the labels; ``predictions`` and ``labels`` int64.
    The rest: ``bound`` of the network or None; ``layers``, lists of (name, type, size, bound); ``unproved``, the parts
    without a bound; ``rounding``, whether the rounding of the evaluation is bounded and taken off; ``data``, name,
    split and SHA-256 of the pictures; ``weights_sha256``; ``lipref``, the version; ``environment``; ``statement``.
    """

    radii: Tensor
    margins: Tensor
    predictions: Tensor
    labels: Tensor
    bound: float | None
    layers: list
    unproved: list[str]
    rounding: bool
    data: dict
    weights_sha256: str
    lipref: str
    environment: dict
    statement: str


def make(classifier: Classifier, split: Split, name: str, batch_size: int = 250) -> CertificateFile:
    """Certify ``classifier`` on ``split``; ``name`` tells which part of the run's data set that is, such as ``test``.

    Raises:
        LiprefError: pictures that do not fit, or logits that are not finite.
    """
    parts = zip(split.images.split(batch_size), split.labels.split(batch_size), strict=True)
    outcome, audit, config = classifier.certify(parts), classifier.audit, classifier.config
    rounding = classifier.evaluation_error is not None
    return CertificateFile(
        radii=outcome.radii,
        margins=outcome.margins,
        predictions=outcome.predictions,
        labels=split.labels.cpu(),
        bound=audit.bound,
        layers=[[path, kind, list(size), bound] for path, kind, size, bound in audit.layers],
        unproved=list(audit.unproved),
        rounding=rounding,
        data={"dataset": config.dataset, "split": name, "sha256": config.data_sha256, "images": len(split)},
        weights_sha256=classifier.sha256,
        lipref=lipref.__version__,
        environment=environment(next(classifier.model.parameters()).device),
        statement=_statement(audit.bound, rounding),
    )


def _statement(bound: float | None, rounding: bool) -> str:
    if bound is None:
        return "Nothing is proved: a part of the network has no Lipschitz bound."
    taken = "is bounded and taken off the margins" if rounding else "is not part of the proof"
    return (
        f"The network's l2 Lipschitz constant is at most {bound!r}, so that no perturbation of l2 norm below a "
        f"picture's radius, over pixels in [0, 1], changes its class; the rounding of the float64 evaluation {taken}."
    )


def write(path: str | os.PathLike[str], certificate: CertificateFile) -> None:
    """Write the file, whole or not at all.

    Raises:
        LiprefError: it cannot be written.
    """
    content = {field.name: getattr(certificate, field.name) for field in fields(certificate)}
    tensors = {name: content.pop(name) for name in _TENSORS}
    checkpoint.save(path, tensors, {"certificate": FORMAT, **content})


def read(path: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None) -> CertificateFile:
    """Read a file that `write` wrote, and check it.

    Its SHA-256 finds damage and careless edits. Whoever computes it again can forge all but the relations that are
    checked too: shapes, correct predictions, radii against margins and bound. Certify again to be sure.

    Args:
        weights: weights, folder or record of the run that the certificate must belong to.

    Raises:
        LiprefError: damaged, not a certificate, inconsistent, or of other weights.
    """
    tensors, meta = checkpoint.load(path)
    if meta.get("certificate") != FORMAT:
        raise LiprefError(f"{path} is not a certificate of format {FORMAT}: give one that lipref certify wrote")
    content = {name: value for name, value in meta.items() if name != "certificate"} | tensors
    if content.keys() != {field.name for field in fields(CertificateFile)}:
        raise LiprefError(f"{path} is not a certificate of this lipref: certify again")
    certificate = CertificateFile(**content)
    if reason := _contradiction(certificate):
        raise LiprefError(f"{path} contradicts itself, it was edited ({reason}): certify again")
    if weights is not None:
        weights = weights_file(weights)
        if (found := file_sha256(weights)) != certificate.weights_sha256:
            raise LiprefError(
                f"{path} belongs to other weights (SHA-256 {certificate.weights_sha256[:16]}...) than {weights} "
                f"({found[:16]}...): certify these"
            )
    return certificate


def _contradiction(certificate: CertificateFile) -> str | None:
    """What cannot be so in a file that `make` made, or None."""
    found = {name: (getattr(certificate, name).dtype, tuple(getattr(certificate, name).shape)) for name in _TENSORS}
    count = certificate.data.get("images")
    if found != {name: (dtype, (count,)) for name, dtype in _TENSORS.items()} or not count:
        return "shapes"
    bound, radii, margins = certificate.bound, certificate.radii, certificate.margins
    if not (torch.isfinite(margins).all() and torch.isfinite(radii).all() and (radii >= 0).all()):
        return "numbers out of range"
    if ((margins > 0) & (certificate.predictions != certificate.labels)).any():
        return "margins and predictions"
    if bound is None:
        return "radii without a bound" if radii.any() else None
    if not (isinstance(bound, float) and math.isfinite(bound) and bound > 0):
        return "bound"
    if (radii > certified_radii(margins, bound).clamp_min(0)).any():
        return "radii above margin / (sqrt(2) L)"
    return None if certificate.statement == _statement(bound, certificate.rounding) else "statement"


def table(certificate: CertificateFile) -> pd.DataFrame:
    """Accuracy (radius 0/255) and CRA at `lipref.certify.RADII` with exact 95 % intervals.

    Columns: ``radius`` (text), ``count``, ``images``, ``share``, ``low``, ``high``.
    """
    total = len(certificate.labels)
    counts = {"0/255": int((certificate.margins > 0).sum())}
    counts |= {radius_name(radius): int((certificate.radii > float(radius)).sum()) for radius in RADII}
    rows = []
    for radius, count in counts.items():
        share = Proportion(count, total).as_dict()
        rows.append({"radius": radius, "count": count, "images": total, "share": share["value"],
                     "low": share["low"], "high": share["high"]})  # fmt: skip
    return pd.DataFrame(rows)
