"""The paper's network family: ConvNet XS, S, M, L, with any layer, for any power-of-two image side."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipref.activations import MaxMin
from lipref.errors import LiprefError, whole_number
from lipref.layers import LAYERS, LayerSpec, LipschitzConv2d, fresh_copy, resolve
from lipref.layers.kept import checked

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
        if self.training or not x.is_cuda:
            return super().forward(x)
        with checked(module for module in self.modules() if isinstance(module, LipschitzConv2d)):
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
        initialise = getattr(end, "initialise_end", None)
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


def fold(module: nn.Module, image_size: int | Sequence[int]) -> nn.Module:
    """The evaluated function on images of ``image_size`` without parametrisations, as it would be deployed.

    Every layer is replaced by its ``fold(size)``: an ``nn.Conv2d`` where its operator is a kernel, else a small module
    of constants. Nothing is prepared or checked any more, and later changes of the weights change nothing.

    Args:
        module: a network or one layer; it stays as it is. Images have as many channels as the ``in_channels`` of the
            first module in it that has them.
        image_size: the side of square images, or ``(H, W)``.

    Returns:
        A new module in evaluation, in the dtype and on the device of the old one. Users' layers without a ``fold`` are
        copied.

    Raises:
        LiprefError: no module, a size that is none, images that the module does not take, or a layer that it applies
            never, or to images of several sizes.

    Example:
        >>> import torch
        >>> from lipref import convnet, fold
        >>> model = convnet("XS", "aol", num_classes=10, in_channels=1, image_size=8).eval()
        >>> folded, x = fold(model, 8), torch.rand(2, 1, 8, 8)
        >>> type(folded.first).__name__
        'Conv2d'
        >>> torch.allclose(folded(x), model(x), atol=1e-5)
        True
    """
    if not isinstance(module, nn.Module):
        raise LiprefError(f"module={module!r} is a {type(module).__name__}: give a torch.nn.Module")
    sides = image_size if isinstance(image_size, Sequence) else (image_size, image_size)
    if len(sides) != 2:
        raise LiprefError(f"image_size={image_size!r}: give the side of square images, or (H, W)")
    height, width = (whole_number("image_size", side) for side in sides)
    twin = fresh_copy(module)
    layers = {layer for layer in twin.modules() if callable(getattr(layer, "fold", None))}
    return _folded(twin, "", _sizes(twin, layers, (height, width))) if layers else twin


@torch.no_grad()
def _sizes(module: nn.Module, layers: set[nn.Module], size: tuple[int, int]) -> dict[nn.Module, set[tuple[int, int]]]:
    """The (H, W) of all inputs of ``layers`` when ``module`` is applied to an image of ``size``."""
    sizes: dict[nn.Module, set[tuple[int, int]]] = {layer: set() for layer in layers}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sizes[layer].add(tuple(inputs[0].shape[-2:]))

    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    channels = next((part.in_channels for part in module.modules() if hasattr(part, "in_channels")), 1)
    x = next(module.parameters(), torch.empty(0)).new_zeros(1, channels, *size)
    try:
        module(x)
    except Exception as error:
        what = str(error).partition("\n")[0]
        raise LiprefError(
            f"{type(module).__name__} does not take an image of {tuple(x.shape[1:])} ({type(error).__name__}: {what}); "
            "give the size of its images, and where it begins otherwise, their channels as its attribute in_channels"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return sizes


def _folded(module: nn.Module, path: str, sizes: dict[nn.Module, set[tuple[int, int]]]) -> nn.Module:
    """``module``, changed: all layers of ``sizes`` in it are folded."""
    if module in sizes:
        if len(sizes[module]) != 1:
            found = ", ".join(f"{h}x{w}" for h, w in sorted(sizes[module])) or "no images"
            raise LiprefError(f"{path} ({type(module).__name__}) is applied to {found}: a folded layer has one size")
        return module.fold(*sizes[module])
    for name, child in module._modules.items():
        if child is not None:
            setattr(module, name, _folded(child, f"{path}.{name}" if path else name, sizes))
    return module


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
