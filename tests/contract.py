"""What the contract's tests share: the layers that must keep it, and ways to give them weights."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lipref.layers import LAYERS, LipschitzConv2d
from lipref.layers.excluded import EXCLUDED
from lipref.linalg.norms import conv_norm_bound
from lipref.linalg.padding import conv2d_same

Size = tuple[int, int]


class OwnConv2d(LipschitzConv2d):
    """A user's layer: a kernel divided by the sum of its taps' Frobenius norms, which bounds its norm."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.weight = nn.Parameter(
            torch.randn(self.out_channels, self.in_channels, self.kernel_size, self.kernel_size, **self._factory)
        )
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def prepare(self, size: Size) -> dict[str, Tensor]:
        operator = {"weight": self.weight / (self.weight.square().sum((0, 1)) + 1e-12).sqrt().sum()}
        return operator if self.bias is None else operator | {"bias": self.bias}

    def transform(self, x: Tensor, operator: dict[str, Tensor]) -> Tensor:
        return conv2d_same(x, operator["weight"], operator.get("bias"), self.padding_mode)

    def lipschitz_bound(self, size: Size) -> float:
        return conv_norm_bound(self.float64_twin().prepare(size)["weight"], size, self.padding_mode)


METHODS: dict[str, type[LipschitzConv2d]] = {**LAYERS, "own": OwnConv2d}
RESIDUAL = ("cpl", "sll")  # piecewise linear; all others are affine
SAME_IN_TRAINING = [name for name in METHODS if name not in ("cpl", "soc")]


def cases(*shapes: tuple, methods=tuple(METHODS)) -> list[tuple]:
    """(name, *shape, padding_mode) for every method that takes the shape's channels, under each of its paddings."""
    return [
        (name, *shape, mode)
        for name in methods
        for shape in shapes
        if shape[0] == shape[1] or not METHODS[name].square_only
        for mode in METHODS[name].padding_modes
    ]


def build(name: str, in_channels: int = 4, out_channels: int = 4, k: int = 3, mode: str | None = None, **kwargs):
    """A layer at its initialisation, float64 unless told otherwise; ``seed`` decides it."""
    torch.manual_seed(kwargs.pop("seed", 0))
    kwargs.setdefault("dtype", torch.float64)
    return (METHODS | EXCLUDED)[name](in_channels, out_channels, k, padding_mode=mode, **kwargs)


@torch.no_grad()
def randomise(layer: nn.Module, scale: float = 1.0, seed: int = 1) -> nn.Module:
    """Draw every parameter from a normal distribution of that scale; buffers stay."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in layer.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * scale)
    return layer


def train_briefly(layer: nn.Module, size: Size, steps: int = 10, make: Callable = torch.optim.SGD) -> nn.Module:
    """A few optimizer steps towards random targets; leaves the layer in training mode."""
    layer.train()
    optimizer = make(layer.parameters(), lr=0.1)
    dtype = next(layer.parameters()).dtype
    x = torch.randn(4, layer.in_channels, *size, dtype=dtype)
    target = 2 * torch.randn(4, layer.out_channels, *size, dtype=dtype)
    for _ in range(steps):
        optimizer.zero_grad()
        (layer(x) - target).square().mean().mul(size[0] * size[1]).backward()
        optimizer.step()
    return layer


def twin_of(layer: LipschitzConv2d, name: str, **kwargs) -> LipschitzConv2d:
    """A fresh layer under another seed, loaded with the layer's state dict, in evaluation."""
    fresh = build(
        name, layer.in_channels, layer.out_channels, layer.kernel_size, layer.padding_mode,
        bias=layer.bias is not None, dtype=next(layer.parameters()).dtype, seed=99, **kwargs,
    )  # fmt: skip
    fresh.load_state_dict(layer.state_dict(), strict=True)
    return fresh.eval()


def distance(a: Tensor, b: Tensor) -> float:
    """Largest difference, relative to 1 + the largest entry."""
    assert a.shape == b.shape
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).abs().max() / (1 + b.abs().max()))
