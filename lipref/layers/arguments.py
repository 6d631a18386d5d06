"""The arguments of a convolution that keeps the size of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lipref.errors import LiprefError, whole_number

if TYPE_CHECKING:
    from lipref.layers.base import LipschitzConv2d


def convolution_arguments(
    cls: type[LipschitzConv2d],
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    stride: int,
    padding: int | str,
    dilation: int,
    groups: int,
    padding_mode: str | None,
) -> tuple[int, int, int, str]:
    """The first three as ints and the padding mode, of a layer of ``cls``.

    Raises:
        LiprefError: a value that the method does not take, by its name.
    """
    method = cls.__name__
    if isinstance(kernel_size, tuple):
        if len(set(kernel_size)) != 1:
            raise LiprefError(f"{method}: kernel_size={kernel_size} is not square; give one odd number")
        kernel_size = kernel_size[0]
    in_channels = whole_number(f"{method}: in_channels", in_channels)
    out_channels = whole_number(f"{method}: out_channels", out_channels)
    kernel_size = whole_number(f"{method}: kernel_size", kernel_size)
    if kernel_size % 2 == 0:
        raise LiprefError(f"{method}: kernel_size={kernel_size} is even; use an odd one such as {kernel_size + 1}")
    for label, value in (("stride", stride), ("dilation", dilation), ("groups", groups)):
        if value not in (1, (1, 1)):
            raise LiprefError(f"{method}: {label}={value} is not supported; only {label}=1 is")
    if padding not in ("same", kernel_size // 2, (kernel_size // 2,) * 2):
        raise LiprefError(f"{method}: padding={padding!r} would change the image size; use 'same'")
    padding_mode = cls.default_padding if padding_mode is None else padding_mode
    if padding_mode not in cls.padding_modes:
        known = ", ".join(cls.padding_modes)
        raise LiprefError(
            f"{method}: padding_mode={padding_mode!r} is not 1-Lipschitz or not defined here; known: {known}"
        )
    if cls.square_only and in_channels != out_channels:
        raise LiprefError(
            f"{method} is a residual layer: in_channels={in_channels} and out_channels={out_channels} "
            "must be equal; pad or truncate the channels around it"
        )
    return in_channels, out_channels, kernel_size, padding_mode
