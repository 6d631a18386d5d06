"""The paper's network family: ConvNet XS, S, M, L, with any layer, for any power-of-two image side."""

from __future__ import annotations

import copy
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipref.activations import MaxMin
from lipref.errors import LiprefError, whole_number
from lipref.layers import LAYERS, LayerSpec, resolve

BASE_WIDTH = {"XS": 16, "S": 32, "M": 64, "L": 128}
SIZES = (*BASE_WIDTH, *(f"{size}_1x1" for size in BASE_WIDTH))
LAYERS_PER_BLOCK = 5
MIN_WIDTH = 4


class PadChannels(nn.Module):
    """``(N, C, H, W)`` to ``(N, channels, H, W)`` by zero channels at the end: an isometry."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, 0, 0, self.channels - x.shape[1]))

    def extra_repr(self) -> str:
        return f"{self.channels}"


class FirstChannels(nn.Module):
    """The first ``channels`` channels (or features) of ``(N, C, ...)``: a projection, 1-Lipschitz."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return x[:, : self.channels]

    def extra_repr(self) -> str:
        return f"{self.channels}"


class ConvNet(nn.Sequential):
    """The network of Prach et al. (CVPR 2024, Tables 5 and 6) as a plain sequence of named modules.

    Attributes: ``size``, ``layer`` (its label), ``num_classes``, ``in_channels``, ``image_size``, ``width``.
    """

    def __init__(self, modules: OrderedDict[str, nn.Module], **attributes) -> None:
        super().__init__(modules)
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        expected = (self.in_channels, self.image_size, self.image_size)
        if tuple(x.shape[1:]) != expected:
            raise LiprefError(
                f"ConvNet: input of shape {tuple(x.shape)}; expected (N, {', '.join(map(str, expected))})"
            )
        if not len(x):  # which torch's pixel unshuffle would leave as it is
            return self.forward(F.pad(x, (0,) * 7 + (1,)))[:0]
        return super().forward(x)


def width_at(size: str, image_size: int) -> int:
    """Width of the first block: 16, 32, 64, 128 for XS, S, M, L up to side 32.

    Each block halves the side and doubles the width, so that the head is 32 times as wide at side 32. At sides above 32
    the width is divided by side / 32, as the paper does at 64, so that the head stays at 32 times the base width, but
    it is never below 4.
    """
    return max(BASE_WIDTH[size.removesuffix("_1x1")] * 32 // max(image_size, 32), MIN_WIDTH)


def convnet(
    size: str,
    layer: str | type[nn.Module] | LayerSpec,
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **layer_options,
) -> ConvNet:
    """The paper's network with one kind of layer.

    Zero channels up to the width, a 1x1 layer, MaxMin; then ``log2(image_size)`` blocks, each five times [layer,
    MaxMin], the first half of the channels, and a pixel unshuffle (side halves, width doubles); then a 1x1 layer as the
    head and its first ``num_classes`` outputs. Kernels are 3x3, in the last block (2x2 images) 1x1; in the ``_1x1``
    variants 1x1 throughout. At sides 32 and 64 these are the paper's networks.

    Args:
        size: one of ``XS S M L XS_1x1 S_1x1 M_1x1 L_1x1``.
        layer: a registered name, ``path/to/file.py:Class``, a class with the signature of ``torch.nn.Conv2d``, or a
            resolved `LayerSpec`.
        num_classes, in_channels: at most the head's and the first block's width.
        image_size: side of the square images, a power of two, at least 2.
        device, dtype: of the parameters.
        layer_options: passed on to every layer, such as ``eval_terms=12``.

    Returns:
        A `ConvNet`, in training mode, with random weights: images ``(N, in_channels, image_size, image_size)`` to
        logits ``(N, num_classes)``.

    Raises:
        LiprefError: unknown size or layer, a side that is no power of two, too many classes or channels, or a layer
        that changes shapes.

    Source: Prach et al., CVPR 2024 (arXiv 2311.16833), Tables 5 and 6.

    Example:
        >>> import torch
        >>> from lipref import convnet
        >>> model = convnet("XS", "aol", num_classes=10, in_channels=1, image_size=8)
        >>> model(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """
    if size not in SIZES:
        raise LiprefError(f"unknown size {size!r}; known: {', '.join(SIZES)}")
    num_classes = whole_number("num_classes", num_classes)
    in_channels = whole_number("in_channels", in_channels)
    image_size = whole_number("image_size", image_size)
    if image_size < 2 or image_size & (image_size - 1):
        raise LiprefError(
            f"image_size={image_size} is no power of two of at least 2; resize the images, to 32 for instance"
        )
    spec = _spec(layer)
    width = width_at(size, image_size)
    blocks = image_size.bit_length() - 1
    head = width << blocks
    if in_channels > width:
        raise LiprefError(
            f"in_channels={in_channels} does not fit width {width} of size {size} at side {image_size}; "
            "use a larger size"
        )
    if num_classes > head:
        raise LiprefError(
            f"num_classes={num_classes} exceeds the head's {head} outputs at size {size}; use a larger size"
        )
    factory = {name: value for name, value in (("device", device), ("dtype", dtype)) if value is not None}

    def make(channels: int, kernel_size: int) -> nn.Module:
        return _make_layer(spec, channels, kernel_size, factory | layer_options)

    modules: OrderedDict[str, nn.Module] = OrderedDict()
    modules["pad"] = PadChannels(width)
    modules["first"] = make(width, 1)
    modules["first_act"] = MaxMin()
    channels, ends = width, [modules["first"]]
    for block in range(blocks):
        kernel_size = 1 if size.endswith("_1x1") or block == blocks - 1 else 3
        for index in range(LAYERS_PER_BLOCK):
            modules[f"block{block}_conv{index}"] = make(channels, kernel_size)
            modules[f"block{block}_act{index}"] = MaxMin()
        modules[f"block{block}_half"] = FirstChannels(channels // 2)
        modules[f"block{block}_down"] = nn.PixelUnshuffle(2)
        channels *= 2
    modules["head"] = make(channels, 1)
    ends.append(modules["head"])
    modules["flatten"] = nn.Flatten()
    modules["logits"] = FirstChannels(num_classes)
    for end in ends:
        initialise = getattr(end, "init_head", None)
        if initialise is not None:
            initialise()
    return ConvNet(
        modules,
        size=size,
        layer=spec.label,
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        width=width,
    )


def count_parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _spec(layer: str | type[nn.Module] | LayerSpec) -> LayerSpec:
    if isinstance(layer, LayerSpec):
        return layer
    if isinstance(layer, str):
        return resolve(layer)
    label = next((name for name, cls in LAYERS.items() if cls is layer), layer.__name__)
    return LayerSpec(label, layer)


def _make_layer(spec: LayerSpec, channels: int, kernel_size: int, options: dict) -> nn.Module:
    try:
        layer = spec.cls(channels, channels, kernel_size, **options)
    except LiprefError:
        raise
    except Exception as error:
        call = f"{spec.cls.__name__}({channels}, {channels}, {kernel_size})"
        raise LiprefError(
            f"{call} failed: {type(error).__name__}: {error}; a layer needs the signature of torch.nn.Conv2d"
        ) from error
    if spec.cls.__module__.startswith("lipref."):
        return layer
    parameter = next(layer.parameters(), torch.empty(0))
    probe = torch.zeros(1, channels, 4, 4, device=parameter.device, dtype=parameter.dtype)
    try:
        with torch.no_grad():
            shape = tuple(copy.deepcopy(layer).eval()(probe).shape)  # a copy: a forward pass may change a layer
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise LiprefError(f"{spec.label} fails on an input of shape {tuple(probe.shape)}: {what}") from error
    if shape != tuple(probe.shape):
        raise LiprefError(
            f"{spec.label} maps {tuple(probe.shape)} to {shape}; "
            "a layer must keep height and width (padding = kernel_size // 2)"
        )
    return layer
