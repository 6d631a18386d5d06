"""Randomly drawn chains of torch modules against their dense Jacobians. ``python tests/random_modules.py 20000``.

Every draw: one to four parts of all types that the audit knows, nested now and then, with settings drawn widely (some
are refused), weights at a scale from 1e-6 to 1e3, and in one draw of four an attribute or tensor changed afterwards.
"""

import sys
import warnings
from concurrent.futures import ProcessPoolExecutor

import pandas as pd
import torch
from jacobian import slope_at
from torch import nn

from lipref.activations import MaxMin
from lipref.certification.bounds import audit
from lipref.errors import LiprefError
from lipref.layers import LAYERS
from lipref.nets import FirstChannels, PadChannels

SHAPES = ((2, 4, 4), (3, 5, 4), (4, 3, 3), (4, 4, 6))
LARGEST = 400  # outputs


class Draw:
    """Random choices from one seed."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def pick(self, *choices):
        return choices[int(torch.randint(len(choices), (), generator=self.generator))]

    def number(self, low, high):
        return low + (high - low) * float(torch.rand((), generator=self.generator))


def part(draw, shape):
    """One module for inputs of ``shape``."""
    c = shape[0]
    out, side, stride = draw.pick(1, 2, 3, 4), draw.pick(1, 2, 3, (1, 3), (3, 2)), draw.pick(1, 1, 1, 2, 3)
    pad, dilation, groups = draw.pick(0, 0, 1, 2), draw.pick(1, 1, 1, 2), draw.pick(1, 1, 1, c)
    bias, same = draw.pick(True, False), draw.pick(1, 3, 5)
    window = draw.pick(2, 3, (2, 1))
    name, mode = draw.pick(*LAYERS), draw.pick("zeros", "circular")
    features = [
        nn.ReLU, nn.ReLU6, nn.Tanh, nn.Sigmoid, nn.Identity, nn.Dropout, lambda: nn.ReLU(inplace=True),
        lambda: nn.Hardtanh(-draw.number(0, 2), draw.number(0, 2)), lambda: nn.LeakyReLU(draw.number(-3, 3)),
        lambda: nn.ELU(draw.number(-3, 3)), lambda: nn.Softplus(draw.number(0.1, 5), draw.pick(20, 40, 100)),
        lambda: nn.Linear(shape[-1], draw.pick(1, 3, 5), bias=bias), lambda: FirstChannels(draw.pick(1, 2, 3)),
    ]  # fmt: skip
    images = [
        MaxMin, nn.Flatten, nn.Dropout2d, lambda: PadChannels(c + draw.pick(0, 1, 2)),
        lambda: nn.Conv2d(c, out * groups, side, stride, pad, dilation, groups, bias),
        lambda: nn.Conv2d(c, out, same, padding=same // 2, padding_mode=mode, bias=bias),
        lambda: nn.Conv2d(c, out, side, padding="same", padding_mode=draw.pick("zeros", "circular", "reflect")),
        lambda: nn.ConvTranspose2d(c, out * groups, side, stride, pad, draw.pick(0, 0, 1), groups, bias, dilation),
        lambda: nn.MaxPool2d(window, draw.pick(None, 2, 3, 1), draw.pick(0, 1), draw.pick(1, 1, 2),
                             ceil_mode=draw.pick(True, False)),
        lambda: nn.AvgPool2d(window, draw.pick(None, 2, 3, 1), draw.pick(0, 1), draw.pick(True, False),
                             draw.pick(True, False), draw.pick(None, None, 2, -3)),
        lambda: nn.PixelShuffle(2), lambda: nn.PixelUnshuffle(2),
        lambda: nn.ZeroPad2d(draw.pick(1, -1, (1, 0, 2, 0), (0, -1, 0, 0))),
        lambda: nn.BatchNorm2d(c, eps=draw.pick(1e-5, 0.1, 0.0), affine=draw.pick(True, False)),
        lambda: LAYERS[name](c, c, same, padding_mode=draw.pick(*LAYERS[name].padding_modes)),
        lambda: folded(LAYERS[name](c, c, same, padding_mode=draw.pick(*LAYERS[name].padding_modes)), shape[1:]),
    ]  # fmt: skip
    module = draw.pick(*(features + images if len(shape) == 3 else features))()
    scale = 10 ** draw.number(-6, 3) if draw.pick(True, False) else 1.0
    with torch.no_grad():
        for _, value in sorted(module.named_parameters()):
            value.copy_(torch.randn(value.shape, generator=draw.generator) * scale)
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.copy_(torch.rand(c, generator=draw.generator))
    return module


def folded(layer, size):
    return layer.eval().fold(size)


def changed(draw, model):
    """The model after a careless edit: an attribute, or a parameter or buffer of another shape or value."""
    module = draw.pick(*(module for module in model.modules() if not isinstance(module, nn.Sequential)))
    settings = [name for name, value in vars(module).items() if isinstance(value, int | float | tuple)]
    tensors = [(registry, name) for registry in (module._parameters, module._buffers) for name in registry]
    if tensors and draw.pick(True, False):
        registry, name = draw.pick(*tensors)
        value = registry[name]
        if value is not None and value.dim() and value.is_floating_point():
            new = draw.pick(2 * value.detach(), value.detach()[:1], value.detach()[..., :1], value.detach().flip(0))
            registry[name] = nn.Parameter(new) if isinstance(value, nn.Parameter) else new
    elif settings:
        setattr(module, draw.pick(*settings), draw.pick(0, 1, 2, 3, (1, 1), (2, 1), -1.0, 0.5, True, False, "circular"))
    return model


def draw_one(seed):
    """One chain: what it is, its bound, and the largest slope at three points; no bound where it is refused."""
    draw, shape, modules = Draw(seed), None, []
    torch.manual_seed(seed)
    start = shape = draw.pick(*SHAPES)
    for _ in range(draw.pick(1, 2, 3, 4)):
        try:
            module = part(draw, shape)
            with torch.no_grad():
                out = module.eval()(torch.zeros(2, *shape))
        except Exception:  # no module, or not for this shape: another one
            continue
        if out.dim() < 2 or len(out) != 2 or not 0 < out[0].numel() <= LARGEST:
            continue
        modules.append(module)
        shape = tuple(out.shape[1:])
        if draw.pick(*[False] * 5, True):
            modules = [nn.Sequential(*modules)]
    model = nn.Sequential(*modules).double().eval()
    if modules and seed % 4 == 0:
        changed(draw, model)
    found = {"seed": seed, "model": " ".join(type(module).__name__ for module in model), "bound": None, "slope": None}
    try:
        found["bound"] = audit(model, start).bound
    except LiprefError:
        return found
    if found["bound"] is not None:
        for module in model.modules():
            if getattr(module, "inplace", False):
                module.inplace = False  # the same values, and autograd takes it anywhere
        xs = [scale * torch.randn(start, generator=draw.generator, dtype=torch.float64) for scale in (0.1, 1.0, 10.0)]
        with torch.no_grad():
            outputs = model.eval()(xs[0][None]).numel()  # an edit may have left none
        found["slope"] = max(slope_at(model, x) for x in xs) if outputs else 0.0
    return found


def exceeds(found):
    """Whether a Jacobian refutes the bound, beyond the rounding of its own singular values."""
    return found["bound"] is not None and not found["slope"] <= found["bound"] * (1 + 1e-11) + 1e-30


def main(count):
    warnings.simplefilter("ignore")  # torch's, of even kernels with padding "same"
    with ProcessPoolExecutor(initializer=torch.set_num_threads, initargs=(1,)) as pool:
        rows = list(pool.map(draw_one, range(count), chunksize=50))
    proved = [row for row in rows if row["bound"] is not None]
    wrong = [row for row in proved if exceeds(row)]
    print(f"{len(rows)} chains of modules: {len(proved)} proved, {len(rows) - len(proved)} refused")
    tight = sum(row["slope"] > 0.999 * row["bound"] for row in proved)
    print(f"{tight} bounds within 0.1 % of a slope; {len(wrong)} below one")
    if wrong:
        print(pd.DataFrame(wrong).to_string())
        sys.exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
