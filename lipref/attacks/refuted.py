"""Certificates that are false because a constant was computed in a common way, and attacks that refute them.

The specimens are small networks, each trained on digits for a few seconds on the very function that is evaluated, so
that whatever the careless reckoning overlooks is used by the training, as any optimiser would use it. The proved
certificates of the same networks are attacked beside: none is refuted.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from lipref.activations import MaxMin
from lipref.attacks import attack
from lipref.attacks.perturbation import check_counts
from lipref.certification.bounds import audit
from lipref.certification.certify import certify
from lipref.certification.published_constants import constants, leading_vector, start_of
from lipref.data import ImageData, Split, load_dataset, pixels
from lipref.errors import LiprefError
from lipref.layers import AOLConv2d, BCOPConv2d, CPLConv2d, LipschitzConv2d, SOCConv2d, StandardConv2d
from lipref.losses import offset_cross_entropy
from lipref.nets import FirstChannels, PadChannels

COLUMNS = ["specimen", "claim", "images", "claimed", "certified_claimed", "refuted_claimed", "proved",
           "certified_proved", "refuted_proved"]  # fmt: skip
_STEPS = 30


def refuted(images: int = 100, seed: int = 0, only: str | None = None) -> pd.DataFrame:
    """Train each specimen on digits, certify it twice, and attack it within every certified radius.

    Everything is computed on the CPU; the numbers depend on the arguments and, where training in float32 rounds
    otherwise, on the machine. Refuted is an image that is classified wrongly by the certified function within the
    radius that was certified for it.

    Args:
        images: the first so many test images of digits.
        seed: of initialisation, of the order of training images, and of the attack's starts.
        only: the name of one specimen; default all of `lipref.attacks.refuted.SPECIMENS`.

    Returns:
        A row per specimen: ``specimen``; ``claim``, in words; ``images``; ``claimed``, the constant that is claimed,
        how many images it certifies and how many of these are refuted; ``proved``, the audit's bound, and the same.

    Raises:
        LiprefError: a number of images out of range, or a specimen that is not known.
    """
    check_counts(images=images)
    chosen = [specimen for specimen in SPECIMENS if only in (None, specimen.name)]
    if not chosen:
        raise LiprefError(f"only={only!r}: give one of {', '.join(specimen.name for specimen in SPECIMENS)}")
    data = load_dataset("digits")
    if images > len(data.test):
        raise LiprefError(f"images={images}: give a number from 1 to {len(data.test)}, the test images of digits")
    train_x, train_y = _inputs(data.train, data, torch.float32)
    x, y = _inputs(data.test.take(torch.arange(images)), data, torch.float64)
    rows = []
    for specimen in chosen:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            claim = specimen.make(train_x, train_y)
        proved = audit(claim.model, SHAPE).bound
        counts = [
            _attacked(claim.model, certify(read, [(x, y)], bound).radii, x, y, seed)
            for read, bound in ((claim.read, claim.claimed), (claim.model, proved))
        ]
        cells = (specimen.name, specimen.how, images, claim.claimed, *counts[0], proved, *counts[1])
        rows.append(dict(zip(COLUMNS, cells, strict=True)))
    return pd.DataFrame(rows, columns=COLUMNS)


def _inputs(split: Split, data: ImageData, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return next(iter(pixels(split, data, "cpu", dtype, len(split))))


def _attacked(model: nn.Module, radii: Tensor, x: Tensor, y: Tensor, seed: int) -> tuple[int, int]:
    """How many images are certified, and how many of these are refuted within their radii."""
    sure = radii > 0
    if not sure.any():
        return 0, 0
    found = attack(model, x[sure], y[sure], radii[sure], steps=_STEPS, restarts=1, seed=seed)
    return int(sure.sum()), int(found.success.sum())


SHAPE = (1, 8, 8)
CLASSES = 10
WIDTH = 8
EPOCHS, BATCH = 4, 64
OFFSET = 0.4


@dataclass(frozen=True)
class Claim:
    """A network, the constant that is claimed of it, and the network whose margins are divided by that constant.

    ``read`` is ``model`` itself, except where the claim goes back to weights that are no longer those of ``model``.
    """

    model: nn.Module
    read: nn.Module
    claimed: float


@dataclass(frozen=True)
class Specimen:
    """``name`` is short, ``how`` says in one line how the constant is claimed; ``make`` trains it on ``(x, y)``."""

    name: str
    how: str
    make: Callable[[Tensor, Tensor], Claim]


def network(
    layer: Callable[[int, int, int], nn.Module], kernel_size: int = 3, between: Callable[[int], nn.Module] | None = None
) -> nn.Sequential:
    """Two convolutions on 4x4 images of `WIDTH` channels, a 1x1 convolution on what they leave, 10 logits."""
    modules = [nn.PixelUnshuffle(2), PadChannels(WIDTH)]
    for _ in range(2):
        modules += [layer(WIDTH, WIDTH, kernel_size), *([between(WIDTH)] if between else []), MaxMin()]
    return nn.Sequential(*modules, nn.PixelUnshuffle(4), FirstChannels(64), layer(64, 64, 1), nn.Flatten(),
                         FirstChannels(CLASSES))  # fmt: skip


def short_power_iteration(x: Tensor, y: Tensor, iterations: int = 1) -> Claim:
    """A plain network, trained on logits divided by the estimate of its constant: it stays below the constant."""
    model = network(StandardConv2d)
    sizes = [(model.get_submodule(name), size) for name, _, size, _ in audit(model, SHAPE).layers]

    def logits(images: Tensor) -> Tensor:
        estimates = [_estimate(layer, size, place, iterations) for place, (layer, size) in enumerate(sizes)]
        return evaluated(model, images) / math.prod(estimates)

    _train(model, x, y, logits)
    return Claim(model, model, constants(model, SHAPE, iterations=iterations).published)


def cold_start(x: Tensor, y: Tensor, iterations: int = 2) -> Claim:
    """CPL whose step comes from a few power iterations that start from a random vector, as after a lost buffer."""
    model = network(lambda *shape: CPLConv2d(*shape, eval_iterations=iterations))
    for layer in model:
        if isinstance(layer, CPLConv2d):
            nn.init.normal_(layer.u)
    _train(model, x, y, lambda images: evaluated(model, images))
    return Claim(model, model, constants(model, SHAPE).published)


def few_terms(x: Tensor, y: Tensor) -> Claim:
    """SOC cut after the five terms of training; its first kernel starts at the largest norm that is possible."""
    model = network(_five_terms, 7)
    first = next(layer for layer in model if isinstance(layer, SOCConv2d))
    # A quarter turn of pairs of channels times the sum over all k^2 taps: every unfolding has the norm k, the
    # convolution k^2, at the frequency zero.
    turn = torch.block_diag(*[torch.tensor([[0.0, 1.0], [-1.0, 0.0]])] * (WIDTH // 2))
    with torch.no_grad():
        first.weight.copy_(turn[:, :, None, None].expand_as(first.weight))
    _train(model, x, y, lambda images: evaluated(model, images))
    return Claim(model, model, 1.0)


def _five_terms(in_channels: int, out_channels: int, kernel_size: int) -> nn.Module:
    if kernel_size == 1:
        return AOLConv2d(in_channels, out_channels, 1)
    return SOCConv2d(in_channels, out_channels, kernel_size, padding_mode="circular", eval_terms=5)


def stale_weight(x: Tensor, y: Tensor) -> Claim:
    """BCOP whose margins are those of the weights before the last step; the network that is kept is the one after."""
    model = network(BCOPConv2d)
    before = _train(model, x, y, lambda images: evaluated(model, images), rate=0.03)
    return Claim(model, before, 1.0)


def not_visited(x: Tensor, y: Tensor) -> Claim:
    """AOL with batch normalisation, which is neither a convolution nor a linear layer and so counts as 1."""
    model = network(AOLConv2d, between=nn.BatchNorm2d)
    _train(model, x, y, model.train(), rate=0.01)
    return Claim(model, model, constants(model, SHAPE).published)


SPECIMENS = (
    Specimen("plain, 1 iteration", "product of norms, each from one power iteration", short_power_iteration),
    Specimen("CPL, cold start", "1, as the layer is not visited; its step from 2 cold power iterations", cold_start),
    Specimen("SOC, 5 terms", "1, by construction; circular 7x7 kernels and the 5 terms of training", few_terms),
    Specimen("BCOP, stale weight", "1, by construction; margins of the weight one step ago", stale_weight),
    Specimen("AOL, batch norm", "product of power iterations; batch normalisation is not visited", not_visited),
)


def evaluated(model: nn.Sequential, x: Tensor) -> Tensor:
    """The function that evaluation computes, differentiable in the parameters."""
    for module in model.eval():
        if isinstance(module, LipschitzConv2d):
            x = module.transform(x, module.prepare((x.shape[-2], x.shape[-1])))
        else:
            x = module(x)
    return x


def _train(
    model: nn.Module, x: Tensor, y: Tensor, logits: Callable[[Tensor], Tensor], rate: float = 0.003
) -> nn.Module:
    """Adam on the offset cross-entropy; returns the network before the last step, in evaluation."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    steps = [part for _ in range(EPOCHS) for part in torch.randperm(len(x)).split(BATCH)]
    before = model
    for number, part in enumerate(steps, start=1):
        if number == len(steps):
            before = copy.deepcopy(model).eval()
        optimizer.zero_grad()
        offset_cross_entropy(logits(x[part]), y[part], OFFSET).backward()
        optimizer.step()
    model.eval()
    return before


def _estimate(layer: LipschitzConv2d, size: tuple[int, int], place: int, iterations: int) -> Tensor:
    """What `constants` finds for this layer, differentiable in its parameters."""
    operator = {name: value for name, value in layer.prepare(size).items() if name != "bias"}

    def apply(features: Tensor) -> Tensor:
        return layer.transform(features, operator)

    shape = (layer.in_channels, *size)
    return apply(leading_vector(apply, shape, iterations, start_of(0, place), layer.weight.dtype)).norm()
