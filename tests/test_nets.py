"""The network family: parameter counts of the paper, shapes, refusals."""

import csv
import math

import numpy as np
import pytest
import torch

from lipref.activations import MaxMin
from lipref.errors import LiprefError
from lipref.layers import LAYERS, StandardConv2d
from lipref.nets import SIZES, convnet, count_parameters, width_at
from lipref.paths import PAPER


def paper_counts():
    with (PAPER / "model_parameter_counts.csv").open() as file:
        for line in csv.DictReader(file):
            if line["method"].lower() in LAYERS:
                size = line["size"].removesuffix("_1x1") + ("_1x1" if "1x1" in line["architecture"] else "")
                yield pytest.param(line, size, id=f"{line['architecture']}-{line['method']}")


@pytest.mark.parametrize(("line", "size"), list(paper_counts()))
def test_parameter_counts_are_the_papers(line, size):
    name, side = line["method"].lower(), int(line["input_side"])
    with torch.device("meta"):
        model = convnet(size, _uninitialised(LAYERS[name]), image_size=side)
    expected = int(line["trainable_parameters"])
    if name == "cayley":
        # Theirs gets a scale in every convolution at the first forward pass, and counts only the head's.
        expected += sum(isinstance(module, LAYERS[name]) for module in model.modules()) - 1
    if name == "bcop":  # half-rank projectors need half a frame: 2(k-1) c ceil(c/2) numbers fewer per layer
        for module in model.modules():
            if isinstance(module, LAYERS[name]):
                c, k = module.in_channels, module.kernel_size
                expected -= 2 * (k - 1) * c * (c - c // 2)
    assert count_parameters(model) == expected


def _uninitialised(cls):
    return type(cls.__name__, (cls,), {"reset_parameters": lambda self: None, "init_head": lambda self: None,
                                       "__module__": cls.__module__})  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("side", "channels", "classes"), [(2, 1, 2), (8, 1, 10), (16, 3, 7)])
def test_any_power_of_two_side(name, side, channels, classes):
    model = convnet("XS", name, classes, channels, side)
    assert model(torch.zeros(2, channels, side, side)).shape == (2, classes)


def test_widths():
    assert [width_at("M", side) for side in (8, 16, 32, 64, 128)] == [64, 64, 64, 32, 16]
    assert width_at("XS", 1024) == 4
    model = convnet("XS", "standard", image_size=64)
    assert (model.width, model.head.in_channels) == (8, 512)


def test_kernels_are_1x1_in_the_last_block_and_the_variant():
    sizes = [m.kernel_size for m in convnet("XS", "standard", image_size=8).modules() if isinstance(m, StandardConv2d)]
    assert sizes == [1] + 10 * [3] + 5 * [1] + [1]
    sizes = {m.kernel_size for m in convnet("XS_1x1", "standard").modules() if isinstance(m, StandardConv2d)}
    assert sizes == {1}


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("XXL", "aol"), SIZES),
        (("XS", "nonsense"), LAYERS),
        (("XS", "aol", 10, 3, 24), ("24", "power of two")),
        (("XS", "aol", 10, 3, 0), ("0",)),
        (("XS", "aol", 10, 17), ("17", "16")),
        (("XS", "aol", 513), ("513", "512")),
        (("XS", "aol", 0), ("0",)),
        (("XS", "aol", True), ("num_classes=True",)),
        (("XS", "aol", 10, 3.0), ("in_channels=3.0",)),
        (("XS", "aol", 10, 3, 32.0), ("image_size=32.0",)),
    ],
)
def test_refusals(arguments, names):
    with pytest.raises(LiprefError) as caught:
        convnet(*arguments)
    assert all(name in str(caught.value) for name in names)
    assert "\n" not in str(caught.value)


def test_any_whole_number_will_do():
    model = convnet("XS", "aol", np.int64(10), np.uint8(1), np.int32(8))
    found = (model.num_classes, model.in_channels, model.image_size, model.width, model.logits.channels)
    assert found == (10, 1, 8, 16, 10)
    assert all(type(value) is int for value in found)
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_wrong_input_shape():
    with pytest.raises(LiprefError, match=r"\(2, 3, 8, 8\)"):
        convnet("XS", "aol", 10, 1, 8)(torch.zeros(2, 3, 8, 8))


def test_a_layer_that_shrinks_the_image_is_refused():
    with pytest.raises(LiprefError, match="keep height and width"):
        convnet("XS", torch.nn.Conv2d, image_size=8)


@pytest.mark.parametrize("channels", [1, 2, 5, 6])
def test_maxmin(channels):
    x = torch.randn(3, channels, 2, 2, dtype=torch.float64, requires_grad=True)
    y = MaxMin()(x)
    for j in range(channels // 2):
        a, b = x[:, 2 * j], x[:, 2 * j + 1]
        assert torch.equal(y[:, 2 * j], torch.maximum(a, b))
        assert torch.equal(y[:, 2 * j + 1], torch.minimum(a, b))
    if channels % 2:
        assert torch.equal(y[:, -1], x[:, -1])
    assert torch.autograd.gradcheck(MaxMin(), x)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_maxmin_is_the_exchange_of_pairs(dtype, order):
    x = torch.randn(3, 6, 5, 4).to(dtype).contiguous(memory_format=order).requires_grad_()
    with torch.no_grad():
        x[0, 2], x[0, 3] = 1, 1  # of equals the gradients change places too
        x[1, 2], x[1, 3] = math.inf, -math.inf
    swap = (x[:, 0::2] <= x[:, 1::2]).detach()
    grad = torch.randn(3, 6, 5, 4).to(dtype).contiguous(memory_format=order)
    places = torch.arange(6).view(3, 2)
    exchanged = torch.where(swap[:, :, None], x[:, places.flip(1)], x[:, places]).flatten(1, 2)
    y = MaxMin()(x)
    assert torch.equal(y, exchanged)
    assert y.is_contiguous(memory_format=order)
    assert torch.equal(*(torch.autograd.grad(each, x, grad)[0] for each in (y, exchanged)))
    with torch.no_grad():
        assert torch.equal(MaxMin()(x), exchanged)


@pytest.mark.parametrize("graded", [True, False])
def test_maxmin_loses_no_nan(graded):
    x = torch.zeros(2, 4, 3, 3)
    x[0, 1, 0, 0] = x[1, 2, 1, 1] = math.nan
    with torch.set_grad_enabled(graded):
        nan = MaxMin()(x).isnan()
    assert nan[0, :2, 0, 0].any()
    assert nan[1, 2:, 1, 1].any()
    assert nan.sum() <= 4


@pytest.mark.parametrize("layer", ["aol", "standard"])
@pytest.mark.parametrize("training", [False, True])
def test_a_batch_of_no_pictures(layer, training):
    net = convnet("XS", layer, num_classes=7, image_size=8).train(training)
    x = torch.zeros(0, 3, 8, 8, requires_grad=True)
    logits = net(x)
    assert logits.shape == (0, 7)
    logits.sum().backward()
    assert x.grad.shape == x.shape
    assert all(not parameter.grad.any() for parameter in net.parameters() if parameter.grad is not None)
    with pytest.raises(LiprefError, match=r"\(0, 3, 4, 8\)"):
        net(torch.zeros(0, 3, 4, 8))
