"""The certificate of a network on a set of pictures, as a file that can be checked against the weights."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields

import pandas as pd
import torch
from torch import Tensor

import lipref
from lipref import tensor_files
from lipref.certification.certify import RADII, Proportion, certified_radii, radius_name
from lipref.certification.classifier import CertifiedClassifier, file_sha256, weights_file, weights_sha256
from lipref.data import ImageData, Split, validation_split
from lipref.errors import LiprefError, whole_number
from lipref.runs.provenance import environment

NAME = "certificate.safetensors"
FORMAT = 2
BY_BYTES = 1  # the format whose ``weights_sha256`` is that of the weights' file
_TENSORS = {"radii": torch.float64, "margins": torch.float64, "predictions": torch.int64, "labels": torch.int64}


@dataclass(frozen=True, kw_only=True)
class CertificateFile:
    """What a certificate file says.

    Tensors, ``(N,)`` each: ``radii`` float64, l2 over pixels in [0, 1], 0 where the prediction is wrong or tied or
    nothing is proved; ``margins`` float64, of the labels; ``predictions`` and ``labels`` int64.
    The rest: ``bound`` of the network or None; ``layers``, lists of (name, type, size, bound); ``unproved``, the parts
    without a bound; ``trusted``, the user's layers whose bound is taken at their author's word; ``rounding``, whether
    the rounding of the evaluation is bounded and taken off; ``data``, the data set (or "other pictures"), the split,
    and the SHA-256 of these pictures and labels; ``weights_sha256``, `CertifiedClassifier.sha256`; ``lipref``, the
    version; ``environment``; ``statement``; ``format``, 1 for files whose ``weights_sha256`` and data's SHA-256 are
    those of the weights' bytes and of the run's whole data set.
    """

    radii: Tensor
    margins: Tensor
    predictions: Tensor
    labels: Tensor
    bound: float | None
    layers: list
    unproved: list[str]
    trusted: list[str]
    rounding: bool
    data: dict
    weights_sha256: str
    lipref: str
    environment: dict
    statement: str
    format: int = FORMAT


def make(
    classifier: CertifiedClassifier, split: Split, name: str, data: ImageData | None = None, batch_size: int = 250
) -> CertificateFile:
    """Certify ``classifier`` on ``split``.

    Args:
        name: what these pictures are called, ``train``, ``test`` or ``validation`` where they are that part of the
            run's data set.
        data: the run's data set, limited as it was. Without it, or where ``split`` is not its part ``name``, the
            certificate says "other pictures".
        batch_size: pictures evaluated together.

    Raises:
        LiprefError: pictures that do not fit, labels that are none of the classes, or logits that are not finite.
    """
    batch_size = whole_number("batch_size", batch_size)
    parts = zip(split.images.split(batch_size), split.labels.split(batch_size), strict=True)
    outcome, audit, config = classifier.certify(parts), classifier.audit, classifier.config
    rounding = classifier.evaluation_error is not None
    known = data is not None and data.fingerprint() == config.data_sha256
    part = _part(data, name, config.validation) if known else None
    sha256 = _sha256(split)
    dataset = config.dataset if part is not None and _sha256(part) == sha256 else "other pictures"
    return CertificateFile(
        radii=outcome.radii,
        margins=outcome.margins,
        predictions=outcome.predictions,
        labels=split.labels.cpu(),
        bound=audit.bound,
        layers=[[path, kind, list(size), bound] for path, kind, size, bound in audit.layers],
        unproved=list(audit.unproved),
        trusted=list(audit.trusted),
        rounding=rounding,
        data={"dataset": dataset, "split": name, "sha256": sha256, "images": len(split)},
        weights_sha256=classifier.sha256,
        lipref=lipref.__version__,
        environment=environment(next(classifier.model.parameters()).device),
        statement=_statement(audit.bound, rounding, audit.trusted),
    )


def _part(data: ImageData, name: str, validation: float) -> Split | None:
    if name == "validation" and validation:
        return validation_split(data, validation).test
    return {"train": data.train, "test": data.test}.get(name)


def _sha256(split: Split) -> str:
    return tensor_files.fingerprint({"images": split.images, "labels": split.labels})


def given(trusted: list[str]) -> str:
    """What a bound rests on besides proofs of this library, as words that follow it."""
    return f", given the bounds that the authors of {', '.join(trusted)} state" if trusted else ""


def _statement(bound: float | None, rounding: bool, trusted: list[str]) -> str:
    if bound is None:
        return "Nothing is proved: a part of the network has no Lipschitz bound."
    taken = "is bounded and taken off the margins" if rounding else "is not part of the proof"
    return (
        f"The network's l2 Lipschitz constant is at most {bound!r}{given(trusted)}, so that no perturbation of l2 norm "
        f"below a picture's radius, over pixels in [0, 1], changes its class; the rounding of the float64 evaluation "
        f"{taken}."
    )


def write(path: str | os.PathLike[str], certificate: CertificateFile) -> None:
    """Write the file, whole or not at all.

    Raises:
        LiprefError: it cannot be written.
    """
    content = {field.name: getattr(certificate, field.name) for field in fields(certificate)}
    tensors = {name: content.pop(name) for name in _TENSORS}
    number = content.pop("format")
    if number == BY_BYTES:
        del content["trusted"]
    tensor_files.save(path, tensors, {"certificate": number, **content})


def read(
    path: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None, data: ImageData | None = None
) -> CertificateFile:
    """Read a file that `write` wrote, and check it.

    Its SHA-256 finds damage and careless edits. Whoever computes it again can forge all but the relations that are
    checked too: types, shapes, correct predictions, radii against margins and bound, the bound against those of the
    layers. Certify again to be sure.

    Args:
        weights: weights, folder or record of the run that the certificate must belong to.
        data: as for `lipref.load`, for weights that do not tell their input.

    Raises:
        LiprefError: damaged, not a certificate, inconsistent, or of other weights.
    """
    tensors, meta = tensor_files.load(path)
    number = meta.pop("certificate", None)
    if type(number) is not int or number not in (BY_BYTES, FORMAT):
        raise LiprefError(f"{path} is not a certificate of format {FORMAT}: give one that lipref certify wrote")
    content = meta | tensors | {"format": number} | ({"trusted": []} if number == BY_BYTES else {})
    if content.keys() != {field.name for field in fields(CertificateFile)}:
        raise LiprefError(f"{path} is not a certificate of this lipref: certify again")
    certificate = CertificateFile(**content)
    if reason := _malformed(certificate) or _contradiction(certificate):
        raise LiprefError(f"{path} contradicts itself, it was edited ({reason}): certify again")
    if weights is not None:
        weights = weights_file(weights)
        found = file_sha256(weights) if number == BY_BYTES else weights_sha256(weights, data)
        if found != certificate.weights_sha256:
            raise LiprefError(
                f"{path} belongs to other weights (SHA-256 {certificate.weights_sha256[:16]}...) than {weights} "
                f"({found[:16]}...): certify these"
            )
    return certificate


def _malformed(certificate: CertificateFile) -> str | None:
    """The first field of a wrong type or value, or None."""

    def number(value: object, kind: type = float) -> bool:
        return type(value) is kind and 0 < value < math.inf

    def texts(value: object) -> bool:
        return isinstance(value, list) and all(isinstance(text, str) for text in value)

    def layer(row: object) -> bool:
        if not isinstance(row, list) or len(row) != 4:
            return False
        name, kind, size, bound = row
        sides = isinstance(size, list) and len(size) == 2 and all(number(side, int) for side in size)
        return texts([name, kind]) and sides and (bound is None or number(bound))

    c, data = certificate, certificate.data
    names = {"dataset", "split", "sha256", "images"}
    fits = {
        "data": isinstance(data, dict) and data.keys() == names and number(data["images"], int)
        and texts([data[name] for name in names - {"images"}]),
        "bound": c.bound is None or number(c.bound),
        "layers": isinstance(c.layers, list) and all(layer(row) for row in c.layers),
        "unproved": texts(c.unproved),
        "trusted": texts(c.trusted),
        "rounding": isinstance(c.rounding, bool),
        "environment": isinstance(c.environment, dict),
    } | {name: isinstance(getattr(c, name), str) for name in ("weights_sha256", "lipref", "statement")}  # fmt: skip
    if fits["data"]:
        for name, dtype in _TENSORS.items():
            value = getattr(c, name)
            fits[name] = isinstance(value, Tensor) and (value.dtype, value.shape) == (dtype, (data["images"],))
    return next((name for name, fit in fits.items() if not fit), None)


def _contradiction(certificate: CertificateFile) -> str | None:
    """What cannot be so in a file that `make` made, or None."""
    bound, radii, margins = certificate.bound, certificate.radii, certificate.margins
    if not (torch.isfinite(margins).all() and torch.isfinite(radii).all() and (radii >= 0).all()):
        return "numbers out of range"
    if (certificate.labels < 0).any() or (certificate.predictions < 0).any():
        return "classes out of range"
    if ((margins > 0) & (certificate.predictions != certificate.labels)).any():
        return "margins and predictions"
    bounds = [layer[-1] for layer in certificate.layers]
    if bound is None:
        if radii.any() or not certificate.unproved:
            return "no bound"
    elif certificate.unproved or None in bounds:
        return "a bound and parts without one"
    # The audit rounds upwards after each factor, and those of 1 that are not among the layers.
    elif not (product := math.prod(bounds)) <= bound <= product * (1 + 1e-9):
        return "the bound is not the product of the layers'"
    elif (radii > certified_radii(margins, bound).clamp_min(0)).any():
        return "radii above margin / (sqrt(2) L)"
    expected = _statement(bound, certificate.rounding, certificate.trusted)
    return None if certificate.statement == expected else "statement"


def table(certificate: CertificateFile) -> pd.DataFrame:
    """Accuracy (radius 0/255) and CRA at `lipref.certification.certify.RADII` with exact 95 % intervals.

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
