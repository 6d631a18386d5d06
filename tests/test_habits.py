"""Every layer within PyTorch's usual habits: checkpointing, threads, empty batches, distribution, default dtypes."""

import copy
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from lipref.activations import MaxMin
from lipref.layers import LAYERS, BCOPConv2d
from lipref.layers.excluded import EXCLUDED
from lipref.nets import convnet

F32, F64 = torch.float32, torch.float64
METHODS = LAYERS | EXCLUDED
CASES = [(name, k) for name in METHODS for k in (1, 3) if (name, k) != ("bnb", 3)]
SIDE = 6  # a multiple of 3, which ECO needs


def layer_of(name, k, dtype=F32, channels=4, **options):
    torch.manual_seed(0)
    return METHODS[name](channels, channels, k, dtype=dtype, **options)


def images(dtype=F32, channels=4, side=SIDE, count=2, seed=1):
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def network_of(name, dtype=F32):
    """Of 1x1 kernels where the method takes no others at sides that are powers of two."""
    torch.manual_seed(0)
    return convnet("XS_1x1" if name in ("bnb", "eco") else "XS", name, 3, 1, 8, dtype=dtype)


def relative(a, b):
    a, b = ([a], [b]) if isinstance(a, torch.Tensor) else (a, b)
    a, b = (torch.cat([each.detach().double().flatten() for each in some]) for some in (a, b))
    return float((a - b).norm() / b.norm().clamp_min(1e-300))


def gradients(module):
    return [parameter.grad for parameter in module.parameters()]


def check_checkpointing(module, x, reentrant, tolerance):
    """Some steps with and without: the same outputs, gradients and states; the first one is SOC's long one."""
    plain, saving = module.train(), copy.deepcopy(module).train()
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.1) for each in (plain, saving)]
    for _ in range(3):
        ours, theirs = (x.clone().requires_grad_() for _ in range(2))
        y, expected = checkpoint(saving, ours, use_reentrant=reentrant), plain(theirs)
        for each, optimizer in zip((expected, y), optimizers, strict=True):
            optimizer.zero_grad()
            each.square().mean().backward()
        assert relative(y, expected) <= tolerance
        assert relative(ours.grad, theirs.grad) <= tolerance
        assert relative(gradients(saving), gradients(plain)) <= tolerance
        for optimizer in optimizers:
            optimizer.step()
    for key, value in saving.state_dict().items():
        assert relative([value], [plain.state_dict()[key]]) <= 10 * tolerance, key


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(F32, 1e-6), (F64, 1e-10)])
@pytest.mark.parametrize(("name", "k"), CASES)
def test_checkpointing_a_layer_changes_no_gradient(name, k, dtype, tolerance, reentrant):
    check_checkpointing(layer_of(name, k, dtype), images(dtype), reentrant, tolerance)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_checkpointing_a_network_changes_no_gradient(name, reentrant):
    check_checkpointing(network_of(name, F64), images(F64, 1, 8), reentrant, 1e-10)


@pytest.mark.parametrize(("name", "k"), [case for case in CASES if case[0] in ("cpl", "soc")])
def test_a_layer_can_be_copied_after_torch_func_has_derived_its_training_pass(name, k):
    layer = layer_of(name, k).train()

    def loss(parameters, buffers):
        return torch.func.functional_call(layer, (parameters, buffers), (images(),)).square().sum()

    torch.func.grad(loss)(dict(layer.named_parameters()), {key: b.clone() for key, b in layer.named_buffers()})
    copied = copy.deepcopy(layer)
    assert torch.equal(copied.eval()(images()), layer.eval()(images()))


@pytest.mark.parametrize(("name", "k"), CASES)
def test_threads_with_images_of_two_sizes_evaluate_the_same(name, k):
    layer = layer_of(name, k).eval()
    given = [images(side=SIDE), images(side=2 * SIDE)]
    expected = [layer(x) for x in given]

    def differ(place):
        return sum(not torch.equal(layer(given[place]), expected[place]) for _ in range(100))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            wrong = list(pool.map(differ, [0, 1, 0, 1]))
    finally:
        sys.setswitchinterval(interval)
    assert wrong == [0, 0, 0, 0]


def check_empty(module, x, shape):
    for training in (True, False):
        module.train(training).zero_grad()
        ours = x.clone().requires_grad_()
        y = module(ours)
        assert y.shape == shape
        y.sum().backward()
        assert ours.grad.shape == x.shape
    for name, parameter in module.named_parameters():
        assert parameter.grad is None or bool((parameter.grad == 0).all()), name


@pytest.mark.parametrize(("name", "k"), CASES)
@pytest.mark.parametrize("side", [SIDE, 3 * SIDE])
def test_a_layer_takes_a_batch_of_no_images(name, k, side):
    check_empty(layer_of(name, k), images(side=side, count=0), (0, 4, side, side))


@pytest.mark.parametrize("name", METHODS)
def test_a_network_takes_a_batch_of_no_images(name):
    check_empty(network_of(name), images(F32, 1, 8, count=0), (0, 3))


@pytest.mark.parametrize("channels", [4, 5])
def test_maxmin_takes_a_batch_of_no_images(channels):
    check_empty(MaxMin(), images(channels=channels, count=0), (0, channels, SIDE, SIDE))


@pytest.fixture
def process_group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(("channels", "options"), [(1, {}), (4, {}), (4, {"bias": False})])
@pytest.mark.parametrize(("name", "k"), CASES)
def test_distributed_training_takes_every_layer(name, k, channels, options, process_group):
    plain = layer_of(name, k, channels=channels, **options).train()
    assert all(value.numel() for value in (*plain.parameters(), *plain.buffers()))
    wrapped = DistributedDataParallel(copy.deepcopy(plain))
    x = images(channels=channels)
    for module in (plain, wrapped):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        for _ in range(2):  # a parameter without a gradient is noticed in the second pass
            optimizer.zero_grad()
            module(x).square().sum().backward()
            optimizer.step()
    for key, value in wrapped.module.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[key], msg=key)


@pytest.mark.parametrize(("channels", "k"), [(4, 1), (1, 1), (1, 3)])
@pytest.mark.parametrize("stored", [True, False])
def test_bcop_loads_states_with_and_without_empty_frames(channels, k, stored):
    layer, other = layer_of("bcop", k, channels=channels), BCOPConv2d(channels, channels, k)
    state = layer.state_dict()
    state.pop("frames", None)
    if stored:  # as earlier versions wrote it
        state["frames"] = torch.empty(2 * (k - 1), channels, channels // 2)
    other.load_state_dict(state, strict=True)
    x = images(channels=channels)
    assert torch.equal(other.eval()(x), layer.eval()(x))
    torch.nn.Sequential(other).load_state_dict({f"0.{key}": value for key, value in state.items()}, strict=True)


def test_bcop_refuses_frames_that_are_not_its_own():
    state = layer_of("bcop", 1).state_dict() | {"frames": torch.randn(4, 4, 2)}
    with pytest.raises(RuntimeError, match="frames"):
        layer_of("bcop", 1).load_state_dict(state)
    state = layer_of("bcop", 3).state_dict()
    del state["frames"]
    with pytest.raises(RuntimeError, match="frames"):
        layer_of("bcop", 3).load_state_dict(state)


def zero_weights(module):
    for parameter in module.parameters():
        parameter.zero_()


def zero_matrices(module):
    for name, parameter in module.named_parameters():
        if name not in ("bias", "scale", "psi", "r"):
            parameter.zero_()


def zero_channel(module):
    for parameter in module.parameters():
        if parameter.dim():
            parameter[..., :1].zero_() if parameter.dim() == 2 else parameter[:1].zero_()


def zero_input_channel(module):
    for parameter in module.parameters():
        if parameter.dim() > 1:
            parameter[:, :1].zero_()


@pytest.mark.parametrize("zero", [zero_weights, zero_matrices, zero_channel, zero_input_channel])
@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize(("name", "k"), CASES)
def test_weights_of_0_train_and_evaluate_to_finite_numbers(name, k, dtype, zero):
    layer = layer_of(name, k, dtype)
    with torch.no_grad():
        if name in ("cayley", "sandwich"):
            layer.scale.fill_(10)  # divided by a smallest norm it would overflow
        zero(layer)
    y = layer.train()(images(dtype))
    assert bool(y.isfinite().all())
    y.square().sum().add(y.sum()).backward()
    for key, parameter in layer.named_parameters():
        assert parameter.grad is None or bool(parameter.grad.isfinite().all()), key
        assert parameter.grad is None or float(parameter.grad.abs().max()) < 1e12, key
    assert bool(layer.eval()(images(dtype)).isfinite().all())
    assert layer.lipschitz_bound((SIDE, SIDE)) < float("inf")


@pytest.fixture(params=[F32, F64], ids=str)
def default_dtype(request):
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


def steps_of(module, x):
    optimizer = torch.optim.SGD(module.train().parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()
    return module.eval()(x)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize(("name", "k"), CASES)
def test_a_layer_keeps_its_dtype_whatever_the_default(name, k, dtype, default_dtype):
    layer = layer_of(name, k, dtype)
    y = steps_of(layer, images(dtype))
    assert y.dtype == dtype
    assert bool(y.isfinite().all())
    floating = [value for value in layer.state_dict().values() if value.is_floating_point()]
    assert {value.dtype for value in floating} == {dtype}
    assert layer.fold((SIDE, SIDE))(images(dtype)).dtype == dtype


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("name", METHODS)
def test_a_network_keeps_its_dtype_whatever_the_default(name, dtype, default_dtype):
    y = steps_of(network_of(name, dtype), images(dtype, 1, 8))
    assert y.dtype == dtype
    assert bool(y.isfinite().all())
