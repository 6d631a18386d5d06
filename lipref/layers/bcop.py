"""BCOP: block convolution orthogonal parameterization."""

import torch
from torch import Tensor, empty, nn

from lipref.layers.complexity import Complexity, symbols
from lipref.layers.kernel import KernelConv2d
from lipref.layers.registry import register
from lipref.linalg.polar import polar_factor
from lipref.linalg.projector_products import projector_products


@register("bcop")
class BCOPConv2d(KernelConv2d):
    """Block convolution orthogonal parameterization (BCOP).

    Source: Li et al., "Preventing Gradient Attenuation in Lipschitz Constrained Convolutional Networks", NeurIPS 2019.

    With ``n = max(C_in, C_out)`` and ``m = min(C_in, C_out)``, parameters: ``matrix`` R_0 ``(m, n)``, ``frames`` R_1 ..
    R_{2(k-1)} ``(2(k-1), n, n // 2)``, ``bias``. H is the polar factor of R_0; the polar factor U of a frame gives the
    projector ``P = U U^T`` of rank ``n // 2``. Pair (P, Q) gives the 2x2 kernel of matrices

        [[P Q, P (I - Q)], [(I - P) Q, (I - P)(I - Q)]];

    the product of the k - 1 pairs under matrix convolution, times H, is an orthogonal k x k kernel. An image is shifted
    by it towards one corner where k > 1: for one channel the kernel is a shift.

    Orthogonal under circular padding for every image size where C_in = C_out, and for C_in != C_out an isometry or its
    adjoint; under zero padding at most 1-Lipschitz. The norm is at most 1 even where a polar factor has not converged.
    Training and evaluation are the same function.

    Differences from the authors' code: only the half of each frame that matters is stored, k c^2 numbers in place of
    (2k - 1) c^2; Bjorck-Bowie runs to convergence, from a start scaled by a proved bound in place of a power-iteration
    estimate, so that it cannot diverge; its gradient is exact. ``iterations=20`` restores the published number of
    steps, differentiated one by one, from the safe start. The projectors' set is the same. As a network's head it
    is the same layer, with one tap.

    Initialisation: orthogonal with gain 1 / sqrt(n); bias uniform within 1 / sqrt(fan_in).
    """

    def __init__(self, *args, iterations: int | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._at_least_one(iterations=iterations)
        self.iterations = iterations
        small, large = sorted((self.in_channels, self.out_channels))
        self.matrix = nn.Parameter(empty((small, large), **self._factory))
        self.frames = nn.Parameter(empty((2 * (self.kernel_size - 1), large, large // 2), **self._factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        gain = max(self.in_channels, self.out_channels) ** -0.5
        with torch.no_grad():
            nn.init.orthogonal_(self.matrix, gain)
            if self.frames.numel():
                for frame in self.frames:
                    nn.init.orthogonal_(frame, gain)
        self._uniform_bias(self.in_channels * self.kernel_size**2)

    def effective_kernel(self) -> Tensor:
        # The transposed H, from the left: the kernel's own order where C_in <= C_out.
        wide = self.in_channels > self.out_channels
        frames = polar_factor(self.frames, self.iterations)
        kernel = projector_products(polar_factor(self.matrix.mT, self.iterations), frames)
        return kernel.permute(1, 0, 2, 3) if wide else kernel

    def lipschitz_bound(self, size: tuple[int, int]) -> float:
        # At most 1 in real arithmetic; the executed kernel's own norm covers the rounding of its preparation.
        return max(1.0, super().lipschitz_bound(size))

    @staticmethod
    def complexity() -> Complexity:
        v = symbols()
        c, k, t = v["c"], v["k"], v["t"]
        return Complexity(
            "conv", v["C"], v["M"], "BnB and matrix products", c**3 * k * t + c**3 * k**3, c**2 * k * t + c**2 * k**3
        )
