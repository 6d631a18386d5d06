"""The dense Jacobian of a layer, and what makes it easy to have."""

import warnings

import torch
from torch import Tensor, nn


def impulse_jacobian(layer: nn.Module, in_channels: int, size: tuple[int, int]) -> Tensor:
    """Jacobian (outputs, inputs) of a layer that is affine on the unit impulses and zero: f(impulses) - f(0)."""
    n = in_channels * size[0] * size[1]
    impulses = torch.eye(n, dtype=torch.float64).reshape(n, in_channels, *size)
    with torch.no_grad():
        return (layer(impulses) - layer(torch.zeros_like(impulses[:1]))).flatten(1).T


def jacobian_at(layer: nn.Module, x: Tensor) -> Tensor:
    """Jacobian (outputs, inputs) at one point x (C, H, W): one backward pass over a copy of x per output."""
    with torch.no_grad():
        outputs = layer(x[None]).numel()
    copies = x.expand(outputs, *x.shape).clone().requires_grad_()
    y = layer(copies).flatten(1)
    (rows,) = torch.autograd.grad(y, copies, torch.eye(outputs, dtype=y.dtype))
    return rows.flatten(1)


def activate_every_relu(layer: nn.Module) -> None:
    """Raise the bias above all that a unit impulse can bring before a ReLU: the layer becomes affine on impulses."""
    with torch.no_grad():
        layer.bias.fill_(2 * float(layer.weight.abs().sum((2, 3)).max()))


def slope_at(model, x):
    """Largest singular value of the Jacobian of the certified function at x ``(C, H, W)``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jacobian = jacobian_at(model.double().eval(), x.double())
    return float(torch.linalg.matrix_norm(jacobian, 2))


def points(shape=(2, 4, 4), count=3):
    torch.manual_seed(5)
    return [scale * torch.randn(shape, dtype=torch.float64) for scale in (0.1, 1.0, 3.0)[:count]]
