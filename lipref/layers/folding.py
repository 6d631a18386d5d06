"""Networks without parametrisations."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from lipref.errors import LiprefError, whole_number
from lipref.layers.base import LipschitzConv2d, Size

M = TypeVar("M", bound=nn.Module)


def fold(module: M, image_size: int | tuple[int, ...]) -> M | nn.Module:
    """A copy in evaluation whose layers are constants: convolutions where a layer is one, no parametrisation anywhere.

    The same function on images of that size, for deployment: it can be compiled, exported and saved as any network.

    Args:
        module: A layer or a network of any modules; it is not changed.
        image_size: Side of square images, (H, W), or (C, H, W) where ``module`` does not tell the number of channels
            by an ``in_channels`` of its own or of its first module that has one.

    Raises:
        LiprefError: a size that is none, a layer that no image reaches, or one that gets images of several sizes.

    Example:
        >>> import torch
        >>> from lipref import AOLConv2d, fold
        >>> layer = AOLConv2d(3, 8, 3).eval()
        >>> fold(layer, 16)
        Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), padding_mode=circular)
        >>> x = torch.rand(2, 3, 16, 16)
        >>> torch.allclose(fold(layer, 16)(x), layer(x), atol=1e-6)
        True
    """
    folded = copy.deepcopy(module).eval()
    sizes = layer_sizes(folded, _image(folded, image_size))
    replacements = {}
    for layer in (part for part in folded.modules() if isinstance(part, LipschitzConv2d)):
        found = set(sizes.get(layer, ()))
        if len(found) != 1:
            name = type(layer).__name__
            what = f"gets images of several sizes, {sorted(found)}" if found else "is reached by no image"
            raise LiprefError(f"{name} {what}: it cannot be folded; give each size a layer of its own")
        replacements[layer] = layer.fold(*found)
    for parent in list(folded.modules()):
        for name, child in list(parent._modules.items()):
            if child in replacements:
                parent._modules[name] = replacements[child]
    return replacements.get(folded, folded)


def layer_sizes(model: nn.Module, images: Tensor) -> dict[LipschitzConv2d, list[Size]]:
    """For each layer that a pass of ``images`` reaches, the (H, W) of what it gets, once for each of its calls."""
    sizes: dict[LipschitzConv2d, list[Size]] = {}

    def note(layer: LipschitzConv2d, arguments: tuple[Tensor]) -> None:
        sizes.setdefault(layer, []).append((arguments[0].shape[-2], arguments[0].shape[-1]))

    layers = [module for module in model.modules() if isinstance(module, LipschitzConv2d)]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return sizes


def _image(module: nn.Module, image_size: int | tuple[int, ...]) -> Tensor:
    """One image of zeros, of the module's dtype, where it is."""
    sides = image_size if isinstance(image_size, tuple | list) else (image_size, image_size)
    if len(sides) not in (2, 3):
        raise LiprefError(f"image_size={image_size}: give a side, (H, W) or (C, H, W)")
    sides = tuple(whole_number("image_size", side) for side in sides)
    if len(sides) == 2:
        channels = next((part.in_channels for part in module.modules() if hasattr(part, "in_channels")), None)
        if channels is None:
            raise LiprefError(f"{type(module).__name__} does not tell its channels: give image_size=(C, H, W)")
        sides = (channels, *sides)
    tensor = next((each for each in (*module.parameters(), *module.buffers())), torch.empty(0))
    return torch.zeros(1, *sides, dtype=tensor.dtype, device=tensor.device)
