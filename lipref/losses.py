"""The training loss: cross-entropy that asks for a margin."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from lipref.errors import LiprefError

OFFSET = 2 * math.sqrt(2) * 36 / 255
TEMPERATURE = 0.25


def offset_cross_entropy(
    logits: Tensor, labels: Tensor, offset: float = OFFSET, temperature: float = TEMPERATURE
) -> Tensor:
    """Offset cross-entropy with temperature, ``t CE((f(x) - m e_y) / t, y)``, mean over the batch.

    The offset ``m`` is in units of the margin: with the default, ``2 sqrt(2) 36/255``, the true logit must lead by
    twice the margin that certifies the radius 36/255 before the loss treats it as ahead.

    Args:
        logits: ``f(x)``, shape (N, classes), floating point.
        labels: ``y``, shape (N,), int64 class indices.
        offset: ``m``, subtracted from the logit of the true class.
        temperature: ``t > 0``.

    Returns:
        A scalar of the logits' dtype.

    Raises:
        LiprefError: shapes that do not fit together, or a temperature that is not positive.

    Source: Prach and Lampert, "Almost-orthogonal layers for efficient general-purpose Lipschitz networks", ECCV 2022;
    as used by Prach et al., CVPR 2024 (arXiv 2311.16833).
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        shapes = f"logits of shape {tuple(logits.shape)}, labels of shape {tuple(labels.shape)}"
        raise LiprefError(f"{shapes}: give (N, classes) and (N,)")
    if not temperature > 0:
        raise LiprefError(f"temperature={temperature}: give a number above 0 (the paper's is {TEMPERATURE})")
    shift = torch.zeros_like(logits).scatter_(1, labels[:, None], offset)
    return temperature * functional.cross_entropy((logits - shift) / temperature, labels)
