"""SOC: skew orthogonal convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, empty, nn
from torch.utils.checkpoint import checkpoint

from lipref.layers.base import Operator, Size, under_torch_func
from lipref.layers.complexity import Complexity, symbols
from lipref.layers.power_iteration import PowerIterationConv2d
from lipref.layers.registry import register
from lipref.linalg import exponential
from lipref.linalg.convolution_polynomial import convolution_polynomial
from lipref.linalg.float_error import SAFETY, RoundingBound, conv_rounding, spread_bias
from lipref.linalg.norms import conv_norm_bound
from lipref.linalg.padding import adjoint_kernel


@register("soc")
class SOCConv2d(PowerIterationConv2d):
    """Skew orthogonal convolution (SOC).

    Source: Singla and Feizi, "Skew Orthogonal Convolutions", ICML 2021.

    ``y = sum_{j <= T} L^j x / j! + b``: the exponential of a skew-symmetric convolution, cut after T terms. With
    ``m = max(C_in, C_out)``, parameters: ``weight`` M ``(m, m, k, k)``, ``bias``; buffers: ``u1 v1 u2 v2``,
    power-iteration vectors; in a state dict also ``updates``, the number of training passes. ``L = kappa S / sigma``
    with ``S = (M - M~) / 2`` (M~: channels swapped, taps flipped), kappa = 0.7 (1 for k = 1), and sigma the smallest
    spectral norm of the four unfoldings of S ("fantastic four"). Because S is skew they come in two pairs of equal
    norm, (o h, i w) with (o w, i h) and (o, i h w) with (i, o h w), so that two are computed. ``||L|| <= k kappa``
    (Singla and Feizi, "Fantastic Four", ICLR 2021). For C_in < C_out the image is padded with zero channels, for
    C_in > C_out the result is truncated.

    Training: ``train_terms`` (5) terms; sigma from the stored vectors, which take 50 power iterations every 200th
    forward pass and 1 otherwise, differentiated with the vectors constant. Five terms expand by up to 0.5 %.
    Evaluation: sigma exact, and the exponential by the Chebyshev series that is as accurate on skew maps of norm
    ``k kappa`` as the smallest number of terms, at least 12, proved not to expand them (12 for k <= 3, 13 for k = 5).
    It takes fewer convolutions (9 for k = 3) and is divided by its own bound, so that it does not expand either.
    ``eval_terms=T``: T terms of the exponential series. So the train/eval gap of SOC is in the terms and in sigma.

    Differences from the authors' code: ``SOCConv2d(..., train_terms=5, eval_terms=12)`` restores its numbers of terms
    for every k; its evaluation takes sigma from the stored vectors, which agrees once they have converged.

    ``recompute=True`` keeps one tensor of the input's size for the backward pass in place of one per term, and computes
    the others anew: less than half as much memory in training, for 1.2 times the time (ConvNet S, batch 32, on a CPU).
    The same function.

    Initialisation: weight normal with standard deviation 1 / sqrt(m), bias uniform within 1 / sqrt(C_out).

    Args:
        in_channels, ..., dtype: those of `LipschitzConv2d`, with its errors.
        train_terms, eval_terms: of the exponential, at least 1; ``eval_terms=None`` takes the proved series.
        recompute: less memory in training, for more time.

    Example:
        >>> import torch
        >>> from lipref import SOCConv2d
        >>> layer = SOCConv2d(8, 16, 3)
        >>> layer(torch.rand(2, 8, 16, 16)).shape
        torch.Size([2, 16, 16, 16])
    """

    default_padding = "zeros"
    PERIOD, LONG, SHORT = 200, 50, 1
    ERROR = 1e-5  # at most, of the series in evaluation: else large kernels, where few terms do, would contract by it

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
        train_terms: int = 5,
        eval_terms: int | None = None,
        recompute: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
            device=device, dtype=dtype,
        )  # fmt: skip
        self._store_counts(train_terms=train_terms, eval_terms=eval_terms)
        self.recompute = recompute

    def make_parameters(self) -> None:
        m, k = max(self.in_channels, self.out_channels), self.kernel_size
        self.kappa = 1.0 if k == 1 else 0.7
        self.weight = nn.Parameter(empty((m, m, k, k), **self._factory))
        for name, length in (("u1", m * k), ("v1", m * k), ("u2", m * k * k), ("v2", m)):
            self.register_buffer(name, empty((length,), **self._factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.weight.shape[0] ** -0.5)
        self._uniform_bias(self.out_channels)
        self.updates = 0
        for vector in (self.u1, self.v1, self.u2, self.v2):
            nn.init.normal_(vector)
        self._iterate(self.LONG)

    # Counted on the host, where it decides: an int, and in a state dict a tensor.
    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "updates"] = torch.tensor(self.updates)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        passes = state_dict.pop(prefix + "updates", None)
        super()._load_from_state_dict(state_dict, prefix, *args)
        missing = args[2]
        if passes is not None:
            self.updates = int(passes)
            state_dict[prefix + "updates"] = passes
        else:
            missing.append(prefix + "updates")

    def _skew(self) -> Tensor:
        # The adjoint of a same-padded convolution has the flipped, transposed kernel: S is skew under both paddings.
        return 0.5 * (self.weight - adjoint_kernel(self.weight))

    @staticmethod
    def _unfoldings(skew: Tensor) -> tuple[Tensor, Tensor]:
        m, _, k, _ = skew.shape
        return skew.permute(0, 2, 1, 3).reshape(m * k, m * k), skew.reshape(m, m * k * k)

    @torch.no_grad()
    def _iterate(self, iterations: int) -> None:
        """Power iterations of the stored vectors."""
        for matrix, u, v in zip(self._unfoldings(self._skew()), (self.u1, self.u2), (self.v1, self.v2), strict=True):
            for _ in range(iterations):
                self._update((u, v), _iterated(matrix, u))

    def begin_pass(self) -> None:
        if self.track_power_vectors:
            if self.updates % self.PERIOD == 0:
                self._iterate(self.LONG - self.SHORT)  # `prepare` does the others
            self.updates += 1

    def _sigma(self, skew: Tensor) -> Tensor:
        unfoldings = self._unfoldings(skew)
        if not self.training:
            return torch.stack([torch.linalg.eigvalsh(a @ a.mT)[-1].clamp_min(0).sqrt() for a in unfoldings]).min()
        if self.track_power_vectors:
            with torch.no_grad():
                starts = self._start_of_pass(self.u1, self.u2)
                pairs = [_iterated(a, u, self.SHORT) for a, u in zip(unfoldings, starts, strict=True)]
            self._update((self.u1, self.v1, self.u2, self.v2), (*pairs[0], *pairs[1]))
        else:  # copies: a later pass may update the buffers while this one's gradient is still due
            pairs = [(self.u1.clone(), self.v1.clone()), (self.u2.clone(), self.v2.clone())]
        return torch.stack([v @ a @ u for a, (u, v) in zip(unfoldings, pairs, strict=True)]).min()

    def _series(self, like: Tensor) -> Operator:
        """``ratios`` of the coefficients, and where the first is not 1, it as ``scale``."""
        terms = self.train_terms if self.training else self.eval_terms
        if terms is not None:
            return {"ratios": 1 / torch.arange(1, terms + 1, dtype=like.dtype, device=like.device)}
        radius = self.kernel_size * self.kappa
        terms = exponential.non_expanding_terms(radius, 12)
        error = min(self.ERROR, exponential.truncation_error(terms, radius))
        scale, ratios = exponential.ratios(exponential.economised(radius, error))
        return {"ratios": like.new_tensor(ratios), "scale": like.new_tensor(scale)}

    def prepare(self, size: Size) -> Operator:
        skew = self._skew()
        kernel = skew * self._scale(self._sigma(skew))
        return self.with_bias({"weight": kernel} | self._series(kernel))

    def _scale(self, sigma: Tensor) -> Tensor:
        # S = 0, as with one channel and one tap: the exponential is the identity.
        vanishing = sigma == 0
        return torch.where(vanishing, 0.0, self.kappa / torch.where(vanishing, 1.0, sigma))

    def transform(self, x: Tensor, operator: Operator) -> Tensor:
        more = max(0, self.out_channels - self.in_channels)
        if more:  # padding by nothing would copy
            x = F.pad(x, (0, 0, 0, 0, 0, more))
        given = x, operator["weight"], operator["ratios"], self.padding_mode
        if self.recompute and torch.is_grad_enabled() and not under_torch_func():
            y = checkpoint(convolution_polynomial, *given, use_reentrant=False, preserve_rng_state=False)
        else:
            y = convolution_polynomial(*given)
        y = y[:, : self.out_channels]
        if "bias" not in operator:
            return y * operator["scale"] if "scale" in operator else y
        bias = operator["bias"][:, None, None]
        return torch.addcmul(bias, y, operator["scale"]) if "scale" in operator else y + bias

    def lipschitz_bound(self, size: Size) -> float:
        operator = self.float64_twin().prepare(size)
        radius = conv_norm_bound(operator["weight"], size, self.padding_mode)
        scale = float(operator.get("scale", 1.0))
        return exponential.polynomial_bound(exponential.from_ratios(scale, operator["ratios"].tolist()), radius)

    def rounding_error(self, operator: Operator, size: Size, unit: float) -> RoundingBound:
        weight = operator["weight"]
        radius = conv_norm_bound(weight, size, self.padding_mode)
        conv = conv_rounding(weight, None, size, unit).slope
        largest, error = 1.0, 0.0  # of the partial sum, relative to ||x||, and of its error
        for ratio in operator["ratios"].flip(0).tolist():  # Horner, as transform does it
            # Four roundings: the ratio, two products, one sum.
            error = ratio * (radius * error + conv * (largest + error) + 4 * unit * radius * largest)
            largest = (1 + ratio * radius * largest) * SAFETY
            error += 2 * unit * largest
        # Two more for the scale, which is at most 1.
        constant = spread_bias(operator.get("bias"), size)
        return RoundingBound((error + 3 * unit * largest) * SAFETY, unit * constant * SAFETY, constant)

    @staticmethod
    def complexity() -> Complexity:
        v = symbols()
        c, k = v["c"], v["k"]
        return Complexity(
            "t1 convs", v["C"] * v["t1"], v["M"] * v["t1"], "fantastic four", c**2 * k**2 * v["t2"], v["P"]
        )


def _iterated(matrix: Tensor, u: Tensor, iterations: int = 1) -> tuple[Tensor, Tensor]:
    """The vectors u and v after power iterations, at least one, from ``u``."""
    for _ in range(iterations):
        v = F.normalize(matrix @ u, dim=0)
        u = F.normalize(matrix.mT @ v, dim=0)
    return u, v
