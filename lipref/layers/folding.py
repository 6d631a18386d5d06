"""Networks without parametrisations."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from lipref.errors import LiprefError, whole_number
from lipref.layers.base import Size


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
    twin = copy.deepcopy(module).eval()
    layers = {layer for layer in twin.modules() if callable(getattr(layer, "fold", None))}
    if not layers:
        return twin
    channels = next((part.in_channels for part in twin.modules() if hasattr(part, "in_channels")), 1)
    x = next(twin.parameters(), torch.empty(0)).new_zeros(1, channels, height, width)
    try:
        sizes = input_sizes(twin, layers, x)
    except Exception as error:
        what = str(error).partition("\n")[0]
        raise LiprefError(
            f"{type(twin).__name__} does not take an image of {tuple(x.shape[1:])} ({type(error).__name__}: {what}); "
            "give the size of its images, and where it begins otherwise, their channels as its attribute in_channels"
        ) from error
    return _folded(twin, "", sizes)


@torch.no_grad()
def input_sizes(module: nn.Module, layers: Iterable[nn.Module], images: Tensor) -> dict[nn.Module, list[Size]]:
    """The (H, W) of what each of ``layers`` gets in a pass of ``images``, once for each of its calls."""
    sizes: dict[nn.Module, list[Size]] = {layer: [] for layer in layers}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sizes[layer].append((inputs[0].shape[-2], inputs[0].shape[-1]))

    hooks = [layer.register_forward_pre_hook(note) for layer in sizes]
    try:
        module(images)
    finally:
        for hook in hooks:
            hook.remove()
    return sizes


def _folded(module: nn.Module, path: str, sizes: dict[nn.Module, list[Size]]) -> nn.Module:
    """``module``, changed: all layers of ``sizes`` in it are folded."""
    if module in sizes:
        size = set(sizes[module])
        if len(size) != 1:
            found = ", ".join(f"{h}x{w}" for h, w in sorted(size)) or "no images"
            raise LiprefError(f"{path} ({type(module).__name__}) is applied to {found}: a folded layer has one size")
        return module.fold(*size)
    for name, child in module._modules.items():
        if child is not None:
            setattr(module, name, _folded(child, f"{path}.{name}" if path else name, sizes))
    return module
