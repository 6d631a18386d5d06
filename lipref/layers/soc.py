"""SOC: skew orthogonal convolution."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, empty, nn

from lipref.layers.base import LipschitzConv2d, Operator, Size
from lipref.layers.complexity import Complexity, symbols
from lipref.layers.registry import register
from lipref.linalg.exponential import non_expanding_terms, truncated_exponential_bound
from lipref.linalg.norms import conv_norm_bound
from lipref.linalg.padding import adjoint_kernel
from lipref.linalg.rounding import SAFETY, RoundingBound, conv_rounding, spread_bias
from lipref.linalg.skew_exponential import truncated_exponential


@register("soc")
class SOCConv2d(LipschitzConv2d):
    """Skew orthogonal convolution (SOC).

    Source: Singla and Feizi, "Skew Orthogonal Convolutions", ICML 2021.

    ``y = sum_{j <= T} L^j x / j! + b``: the exponential of a skew-symmetric convolution, cut after T terms. With
    ``m = max(C_in, C_out)``, parameters: ``weight`` M ``(m, m, k, k)``, ``bias``; buffers: ``u1 v1 u2 v2``,
    power-iteration vectors, and ``updates``, a counter. ``L = kappa S / sigma`` with ``S = (M - M~) / 2`` (M~: channels
    swapped, taps flipped), kappa = 0.7 (1 for k = 1), and sigma the smallest spectral norm of the four unfoldings of S
    ("fantastic four"). Because S is skew they come in two pairs of equal norm, (o h, i w) with (o w, i h) and
    (o, i h w) with (i, o h w), so that two are computed. ``||L|| <= k kappa`` (Singla and Feizi, "Fantastic Four", ICLR
    2021). For C_in < C_out the image is padded with zero channels, for C_in > C_out the result is truncated.

    Training: ``train_terms`` (5) terms; sigma from the kept vectors, which take 50 power iterations every 200th forward
    pass and 1 otherwise, differentiated with the vectors constant. Five terms expand by up to 0.5 %. Evaluation: sigma
    exact, and ``eval_terms=None`` the smallest number of terms, at least 12, that is proved not to expand a skew map of
    norm ``k kappa`` (12 for k <= 3, 13 for k = 5). So the train/eval gap of SOC is in the terms and in sigma.

    Differences from the authors' code: ``SOCConv2d(..., train_terms=5, eval_terms=12)`` restores its numbers of terms
    for every k; its evaluation takes sigma from the kept vectors, which agrees once they have converged.

    ``recompute=True`` keeps one tensor of the input's size for the backward pass in place of one per term, and computes
    the others anew: about half as much memory in training, for about half as much time again. The same function.

    Initialisation: weight normal with standard deviation 1 / sqrt(m), bias uniform within 1 / sqrt(C_out).
    """

    default_padding = "zeros"
    PERIOD, LONG, SHORT = 200, 50, 1

    def __init__(
        self, *args, train_terms: int = 5, eval_terms: int | None = None, recompute: bool = False, **kwargs
    ) -> None:
        super().__init__(*args, **kwargs)
        self._at_least_one(train_terms=train_terms, eval_terms=eval_terms)
        self.recompute = recompute
        self.train_terms, self.eval_terms = train_terms, eval_terms
        m, k = max(self.in_channels, self.out_channels), self.kernel_size
        self.kappa = 1.0 if k == 1 else 0.7
        self.weight = nn.Parameter(empty((m, m, k, k), **self._factory))
        for name, length in (("u1", m * k), ("v1", m * k), ("u2", m * k * k), ("v2", m)):
            self.register_buffer(name, empty((length,), **self._factory))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64, device=self._factory["device"]))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.weight.shape[0] ** -0.5)
        self._uniform_bias(self.out_channels)
        self.updates.zero_()
        for vector in (self.u1, self.v1, self.u2, self.v2):
            nn.init.normal_(vector)
        with torch.no_grad():
            self._move_vectors(self._unfoldings(self._skew()), self.LONG)

    def _skew(self) -> Tensor:
        # The adjoint of a same-padded convolution has the flipped, transposed kernel: S is skew under both paddings.
        return 0.5 * (self.weight - adjoint_kernel(self.weight))

    @staticmethod
    def _unfoldings(skew: Tensor) -> tuple[Tensor, Tensor]:
        m, _, k, _ = skew.shape
        return skew.permute(0, 2, 1, 3).reshape(m * k, m * k), skew.reshape(m, m * k * k)

    def _move_vectors(self, unfoldings: tuple[Tensor, Tensor], iterations: int) -> None:
        for matrix, u, v in zip(unfoldings, (self.u1, self.u2), (self.v1, self.v2), strict=True):
            for _ in range(iterations):
                v.copy_(F.normalize(matrix @ u, dim=0))
                u.copy_(F.normalize(matrix.mT @ v, dim=0))

    def _sigma(self, skew: Tensor) -> Tensor:
        unfoldings = self._unfoldings(skew)
        if not self.training:
            return torch.stack([torch.linalg.eigvalsh(a @ a.mT)[-1].clamp_min(0).sqrt() for a in unfoldings]).min()
        if self.track_power_vectors:
            with torch.no_grad():
                self._move_vectors(unfoldings, self.LONG if int(self.updates) % self.PERIOD == 0 else self.SHORT)
                self.updates.add_(1)
        vectors = ((self.u1, self.v1), (self.u2, self.v2))
        # Clones, because the next forward pass moves the vectors while this one's gradient may still be due.
        return torch.stack([v.clone() @ a @ u.clone() for a, (u, v) in zip(unfoldings, vectors, strict=True)]).min()

    def _terms(self) -> int:
        if self.training:
            return self.train_terms
        return non_expanding_terms(self.kernel_size * self.kappa, 12) if self.eval_terms is None else self.eval_terms

    def prepare(self, size: Size) -> Operator:
        skew = self._skew()
        sigma = self._sigma(skew)
        # S = 0, as with one channel and one tap: the exponential is the identity.
        vanishing = sigma == 0
        scale = torch.where(vanishing, 0.0, self.kappa / torch.where(vanishing, 1.0, sigma))
        terms = torch.arange(1, self._terms() + 1, dtype=skew.dtype, device=skew.device)
        operator = {"weight": skew * scale, "reciprocals": 1 / terms}
        return operator if self.bias is None else operator | {"bias": self.bias}

    def transform(self, x: Tensor, operator: Operator) -> Tensor:
        x = F.pad(x, (0, 0, 0, 0, 0, max(0, self.out_channels - self.in_channels)))
        y = truncated_exponential(x, operator["weight"], operator["reciprocals"], self.padding_mode, self.recompute)
        y = y[:, : self.out_channels]
        return y if "bias" not in operator else y + operator["bias"][:, None, None]

    def lipschitz_bound(self, size: Size) -> float:
        operator = self.float64_twin().prepare(size)
        radius = conv_norm_bound(operator["weight"], size, self.padding_mode)
        return truncated_exponential_bound(len(operator["reciprocals"]), radius)

    def rounding(self, operator: Operator, size: Size, unit: float) -> RoundingBound:
        weight, terms = operator["weight"], len(operator["reciprocals"])
        radius = conv_norm_bound(weight, size, self.padding_mode)
        conv = conv_rounding(weight, None, size, unit).slope
        largest = math.exp(radius) * SAFETY  # of every partial sum, relative to ||x||
        error = 0.0
        for j in range(terms, 0, -1):  # Horner, as transform does it; four roundings: 1 / j, two products, one sum
            error = (radius * error + conv * (largest + error) + 4 * unit * radius * largest) / j + 2 * unit * largest
        constant = spread_bias(operator.get("bias"), size)
        return RoundingBound((error + unit * largest) * SAFETY, unit * constant * SAFETY, constant)

    @staticmethod
    def complexity() -> Complexity:
        v = symbols()
        c, k = v["c"], v["k"]
        return Complexity(
            "t1 convs", v["C"] * v["t1"], v["M"] * v["t1"], "fantastic four", c**2 * k**2 * v["t2"], v["P"]
        )
