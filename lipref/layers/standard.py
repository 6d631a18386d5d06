"""The unconstrained convolution, for comparison."""

from torch import Tensor, empty, nn, no_grad

from lipref.layers.complexity import Complexity, symbols
from lipref.layers.kernel import KernelConv2d
from lipref.layers.registry import register


@register("standard")
class StandardConv2d(KernelConv2d):
    """Plain convolution, not 1-Lipschitz; its bound is the exact spectral norm plus a rounding allowance.

    Parameters: ``weight`` ``(C_out, C_in, k, k)``, ``bias``. Training and evaluation are the same function.

    Initialisation: delta-orthogonal (an orthogonal matrix at the central tap, zero elsewhere; Xiao et al., ICML
    2018), bias 0. PyTorch's default, which the paper uses to measure its cost, shrinks a signal by sqrt(3) per layer,
    and this network of up to 32 layers without normalisation or skip connections does not train from there.

    Args and errors: those of `LipschitzConv2d`.

    Example:
        >>> import torch
        >>> from lipref import StandardConv2d
        >>> layer = StandardConv2d(8, 16, 3)
        >>> layer(torch.rand(2, 8, 16, 16)).shape
        torch.Size([2, 16, 16, 16])
    """

    proved = False

    def make_parameters(self) -> None:
        shape = (self.out_channels, self.in_channels, self.kernel_size, self.kernel_size)
        self.weight = nn.Parameter(empty(shape, **self._factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        centre = self.kernel_size // 2
        with no_grad():
            self.weight.zero_()
            nn.init.orthogonal_(self.weight[:, :, centre, centre])
            if self.bias is not None:
                self.bias.zero_()

    def effective_kernel(self) -> Tensor:
        return self.weight

    @staticmethod
    def complexity() -> Complexity:
        v = symbols()
        return Complexity("conv", v["C"], v["M"], "-", 0 * v["c"], v["P"])
