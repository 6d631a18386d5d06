"""CPL: convex potential layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, empty, nn

from lipref.layers.base import Size
from lipref.layers.complexity import Complexity, symbols
from lipref.layers.power_iteration import PowerIterationConv2d
from lipref.layers.registry import register
from lipref.layers.residual import ResidualConv2d
from lipref.linalg.norms import conv_norm_bound, nan_max, torus_margin
from lipref.linalg.padding import circular_pad, conv2d_same


@register("cpl")
class CPLConv2d(PowerIterationConv2d, ResidualConv2d):
    """Convex potential layer (CPL).

    Source: Meunier et al., "A Dynamical System Perspective for Lipschitz Neural Networks", ICML 2022.

    ``y = x - h K^T relu(K x + b)``, 1-Lipschitz where ``h <= 2 / ||K||^2``. Parameters: ``weight`` K ``(C, C, k, k)``,
    ``bias``; buffer: ``u``, a power-iteration vector, a feature map ``(1, C, 16, 16)`` (``(1, C, 1, 1)`` for k = 1).

    Training: one power iteration per forward pass from the stored u, ``h = 2 / (sigma^2 + 1e-6)``, sigma differentiated
    with the vectors constant. It goes on the torus on which evaluation bounds the norm, of the image's side, or with
    zero padding of k - 1 more; of a torus smaller than 16x16 u's first corner is the map, a larger one is left at 16.
    The map is of the size that came last: trained on images of several sizes in turn, or with its vector frozen after
    another size, the layer estimates the norm less well. Power iteration approaches the norm from below, so in training
    the layer may expand: this is an estimate, and the train/eval gap of CPL. Evaluation: ``h = 2 / (B + 1e-6)`` with B
    a rigorous upper bound of ``||K||^2`` at the image's own size.

    Differences from the authors' code: the bound in evaluation (theirs: 100 power iterations, an estimate;
    ``eval_iterations=100`` restores that, and `lipschitz_bound` then tells the honest constant, above 1); u is on a
    torus of at most 16x16 and warmed up at construction, where theirs, with the padding of the layer itself, takes the
    first image's size.

    Initialisation: weight Xavier normal, bias uniform within 1 / sqrt(fan_in).

    Args:
        in_channels, ..., dtype: those of `LipschitzConv2d`, with its errors.
        eval_iterations: power iterations in evaluation, at least 1; None takes the proved bound.

    Example:
        >>> import torch
        >>> from lipref import CPLConv2d
        >>> layer = CPLConv2d(8, 8, 3)
        >>> layer(torch.rand(2, 8, 16, 16)).shape
        torch.Size([2, 8, 16, 16])
    """

    EPSILON = 1e-6
    WARM_UP = 50
    SIDE = 16  # of the largest map

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int = 1,
        padding: int | str = "same",
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str | None = None,
        *,
        eval_iterations: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
            device=device, dtype=dtype,
        )  # fmt: skip
        self._store_counts(eval_iterations=eval_iterations)

    def make_parameters(self) -> None:
        channels, k = self.in_channels, self.kernel_size
        side = 1 if k == 1 else self.SIDE
        self.weight = nn.Parameter(empty((channels, channels, k, k), **self._factory))
        self.register_buffer("u", empty((1, channels, side, side), **self._factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.xavier_normal_(self.weight)
        self._uniform_bias(self.in_channels * self.kernel_size**2)
        with torch.no_grad():
            self.u.copy_(self._power_iterations(torch.randn_like(self.u), self.WARM_UP)[0])

    def _torus(self, size: Size) -> Size:
        """Sides of the map on images of ``size``."""
        if self.kernel_size == 1:  # one matrix at every frequency
            return 1, 1
        more = torus_margin(self.kernel_size, self.padding_mode)
        return min(self.SIDE, size[0] + more), min(self.SIDE, size[1] + more)

    def _corner(self, u: Tensor, size: Size) -> Tensor:
        """Of u, for images of ``size``."""
        height, width = self._torus(size)
        return u[..., :height, :width]

    def _estimate(self, iterations: int, size: Size) -> Tensor:
        """Power-iteration estimate of the norm of K, from below; moves u in training."""
        corner = self._corner(self.u, size)
        if self.training and not self.track_power_vectors:
            # A corner of u is of norm 1 only where images of this size came last.
            u = F.normalize(corner.flatten(), dim=0).view_as(corner)
            return torch.linalg.vector_norm(conv2d_same(u, self.weight, None, "circular"))
        start = self._corner(*self._start_of_pass(self.u), size) if self.training else corner
        u, sigma = self._power_iterations(start, iterations)
        if self.training:
            self._update((corner,), (u,))
        return sigma

    def _power_iterations(self, u: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
        """``u <- K^T v / ||K^T v||`` with ``v = K u / ||K u||`` on the torus of ``u`` ``(1, C, H, W)``.

        Also the last ``||K^T v||``, an estimate from below, ``v^T K u`` with the new u: also in its gradient by K, for
        which v is constant.
        """
        k, tiny = self.kernel_size, torch.finfo(u.dtype).tiny
        for _ in range(iterations):
            with torch.no_grad():
                v = conv2d_same(u, self.weight, None, "circular")
                v = v / torch.linalg.vector_norm(v).clamp_min(tiny)
            image = F.conv_transpose2d(circular_pad(v, k // 2), self.weight, padding=k - 1)
            sigma = torch.linalg.vector_norm(image)
            u = image.detach() / sigma.detach().clamp_min(tiny)
        return u, sigma

    def step(self, size: Size) -> Tensor:
        if self.training:
            squared = self._estimate(1, size) ** 2
        elif self.eval_iterations is not None:
            squared = self._estimate(self.eval_iterations, size) ** 2
        else:
            squared = self.weight.new_tensor(conv_norm_bound(self.weight, size, self.padding_mode) ** 2 * (1 + 1e-14))
        return 2 / (squared + self.EPSILON)

    def lipschitz_bound(self, size: Size) -> float:
        twin = self.float64_twin()
        norm = conv_norm_bound(twin.weight, size, self.padding_mode)
        return nan_max(1.0, float(twin.positive_step(size)) * norm**2 * (1 + 1e-14) - 1.0)

    @staticmethod
    def complexity() -> Complexity:
        v = symbols()
        s, c, k = v["s"], v["c"], v["k"]
        return Complexity(
            "2 convs, activation", 2 * v["C"], 3 * v["M"], "power method", s**2 * c**2 * k**2, v["P"] + s**2 * c
        )
