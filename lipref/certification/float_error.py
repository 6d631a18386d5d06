"""How far the float64 evaluation of a network can be from the function that is certified.

Certified is the real-arithmetic function of the operators that evaluation prepares, in float64, from the stored
weights. Its evaluation rounds; here that rounding is bounded over all inputs of a given norm, from the parameters.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from lipref.activations import MaxMin
from lipref.certification.bounds import Audit
from lipref.certification.bounds.users import inherited
from lipref.certification.certify import EvaluationError
from lipref.layers import LipschitzConv2d
from lipref.linalg.eigenvalues import nan_max
from lipref.linalg.float_error import ROUNDOFF, SAFETY
from lipref.nets import ConvNet, FirstChannels, PadChannels

# Products below the smallest normal number lose all their digits: 2^-1022 each, whatever their factors. With entries
# and gains up to these, and fewer than 1e15 products in a layer of a dozen operations, that stays below UNDERFLOW.
LARGEST_ENTRY, LARGEST_GAIN, UNDERFLOW = 1e6, 1e60, 1e-100
# Computed without any rounding, and not expanding.
EXACT = (MaxMin, PadChannels, FirstChannels, nn.PixelUnshuffle, nn.Flatten)


def evaluation_error(model: ConvNet, audit: Audit) -> EvaluationError:
    """Bound the rounding of ``model.double()`` in evaluation, for inputs as `lipref.data.pixels` makes them.

    Layer by layer: the error so far grows by the layer's Lipschitz constant, and the layer adds its own
    (`lipref.layers.LipschitzConv2d.rounding_error`) for an input of the largest norm that can reach it. Padding,
    truncation, MaxMin and the reordering of pixels are exact. A class that changes anything of a layer of the library,
    and does not bring a rounding of its own, is unbounded. Underflow is covered where it cannot matter; layers with
    entries above 1e6, or followed by layers that expand 1e60 times, are named as unbounded.

    Args:
        audit: of the same model (`lipref.certification.bounds.network_bound`), for the constants of its layers.

    Raises:
        LiprefError: a layer that fails in float64.
    """
    unit = ROUNDOFF[torch.float64]
    model = copy.deepcopy(model).to("cpu").double().eval()
    side, channels = model.image_size, model.in_channels
    # Pixels over levels less the mean, two roundings of numbers of at most 1.
    slope, constant = 0.0, 4 * unit * math.sqrt(channels) * side
    growth, offset = 1.0, 0.0  # an input of norm N is at most growth N + offset where it has come to
    unbounded, gain = [], 1.0
    for name, _, _, bound in reversed(audit.layers):
        if not gain <= LARGEST_GAIN:
            unbounded.append(name)
        gain *= 1.0 if bound is None else nan_max(1.0, bound)
    bounds = {name: bound for name, _, _, bound in audit.layers}
    x = torch.zeros(1, channels, side, side, dtype=torch.float64)
    for name, module in model._modules.items():
        size = (x.shape[-2], x.shape[-1])
        if type(module) not in EXACT:
            given = type(module).rounding_error if isinstance(module, LipschitzConv2d) else None
            own = given not in (None, LipschitzConv2d.rounding_error) and not inherited(type(module), "rounding_error")
            if not own or not bounds.get(name):
                unbounded.append(name)
            elif not unbounded:
                operator = module.operator(size)
                if not max(float(value.abs().max()) for value in operator.values()) <= LARGEST_ENTRY:
                    unbounded.append(name)
                own = module.rounding_error(operator, size, unit)
                lipschitz = bounds[name]
                constant = lipschitz * constant + own.slope * (offset + constant) + own.constant + UNDERFLOW
                slope = lipschitz * slope + own.slope * (growth + slope)
                growth, offset = lipschitz * growth, lipschitz * offset + own.at_zero
        if isinstance(module, LipschitzConv2d):  # those keep the image size
            x = x.new_zeros(1, module.out_channels, *size)
        else:
            with torch.no_grad():
                x = module(x)
    if unbounded:
        return EvaluationError(None, None, tuple(dict.fromkeys(unbounded)))
    return EvaluationError(slope * SAFETY, constant * SAFETY)
