"""Usual ways of working with PyTorch, each with every layer: it works, or is refused in one line that names the remedy.

docs/pytorch.md has the same table in words.
"""

import copy
import os
import pickle
import re
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jacrev, vmap
from torch.nn.utils import parametrize, prune

from lipref.errors import LiprefError
from lipref.layers import LAYERS
from lipref.layers.excluded import EXCLUDED

METHODS = LAYERS | EXCLUDED
SIDE = 6  # a multiple of 3, which ECO needs
FOLD = "cannot be compiled as one graph or exported.*lipref.fold"
VECTORS = "give torch.func.functional_call the buffers too, or set track_power_vectors=False"


def layer_of(name, dtype=torch.float32):
    torch.manual_seed(0)
    return METHODS[name](4, 4, 1 if name == "bnb" else 3, dtype=dtype)


def images(dtype=torch.float32):
    return torch.randn(3, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).to(dtype)


def trainable(layer):
    return {name: parameter for name, parameter in layer.named_parameters() if parameter.requires_grad}


def matrix_of(layer):
    """The name of a parameter that is no bias, scale or the like."""
    return next(name for name, parameter in layer.named_parameters() if parameter.dim() > 1)


def close(one, other, tolerance=1e-5):
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def autocast_training(layer):
    twin = copy.deepcopy(layer)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer.train()(images())
    y.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in trainable(layer).values())
    close(y.float(), twin.train()(images()), 0.05)


def autocast_evaluation(layer):
    with torch.autocast("cpu", torch.bfloat16):
        y = layer.eval()(images())
    close(y.float(), layer(images()), 0.05)
    assert torch.equal(layer(images()), copy.deepcopy(layer)(images()))  # prepared and cached in full precision


def half_weights(layer):
    layer.half()(images(torch.float16))


def bfloat16_weights(layer):
    layer.bfloat16()(images(torch.bfloat16))


def vmap_over_images(layer):
    y = vmap(lambda x: layer.eval()(x[None])[0])(images())
    close(y, layer(images()))


def jacrev_first(layer):
    found = jacrev(lambda x: layer.eval()(x[None])[0])(images()[0])
    again = torch.autograd.functional.jacobian(lambda x: layer(x[None])[0], images()[0])
    close(found, again)


def jacrev_in_training(layer):
    jacrev(lambda x: layer.train()(x[None])[0])(images()[0])


def per_sample_gradients(layer):
    layer.train().track_power_vectors = False

    def loss(parameters, x):
        return functional_call(layer, parameters, (x[None],)).square().sum()

    found = vmap(grad(loss), (None, 0))(trainable(layer), images())
    layer(images()).square().sum().backward()
    for name, parameter in trainable(layer).items():
        close(found[name].sum(0), parameter.grad, 1e-3)


def per_sample_gradients_with_buffers(layer):
    buffers = {name: buffer.clone() for name, buffer in layer.named_buffers()}

    def loss(parameters, x):
        states = parameters, {name: buffer.clone() for name, buffer in buffers.items()}
        return functional_call(layer.train(), states, (x[None],)).square().sum()

    vmap(grad(loss), (None, 0))(trainable(layer), images())
    assert torch.isfinite(copy.deepcopy(layer)(images())).all()


def second_derivatives(layer):
    loss = layer.train()(images()).square().sum()
    first = torch.autograd.grad(loss, list(trainable(layer).values()), create_graph=True)
    sum(each.square().sum() for each in first).backward()
    assert all(torch.isfinite(p.grad).all() for p in trainable(layer).values())


def compiled_training(layer):
    twin = copy.deepcopy(layer).train()
    compiled = torch.compile(layer.train(), fullgraph=True, backend="aot_eager")
    for _ in range(2):
        y, expected = compiled(images()), twin(images())
        close(y, expected)
        for each in (y, expected):
            each.square().sum().backward()
    for name, parameter in twin.named_parameters():
        if parameter.requires_grad:
            close(layer.get_parameter(name).grad, parameter.grad, 1e-3)
    for key, value in twin.state_dict().items():
        close(layer.state_dict()[key], value, 1e-3)


def compiled_folded(layer):
    folded = layer.eval().fold((SIDE, SIDE))
    close(torch.compile(folded, fullgraph=True, backend="aot_eager")(images()), folded(images()))


def compiled_evaluation(layer):
    torch.compile(layer.eval(), fullgraph=True, backend="eager")(images())


def compiled_evaluation_in_pieces(layer):
    close(torch.compile(layer.eval(), backend="eager")(images()), layer(images()))


def exported_training(layer):
    torch.export.export(layer.train(), (images(),))


def exported_before_a_first_call(layer):
    torch.export.export(layer.eval(), (images(),))


def exported_after_a_first_call(layer):
    layer.eval()(images())
    torch.export.export(layer, (images(),))


def exported_folded(layer):
    folded = layer.eval().fold((SIDE, SIDE))
    close(torch.export.export(folded, (images(),)).module()(images()), folded(images()))


def copies_and_pickles(layer):
    y = layer.eval()(images())
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert copied._cached is None
        assert torch.equal(copied(images()), y)


def channels_last(layer):
    twin = copy.deepcopy(layer)
    layer.to(memory_format=torch.channels_last)
    x = images().contiguous(memory_format=torch.channels_last)
    for training in (True, False):
        close(layer.train(training)(x), twin.train(training)(images()))


def parametrized(layer):
    class Shrunk(nn.Module):
        def forward(self, weight):
            return 0.9 * weight

    name = matrix_of(layer)
    parametrize.register_parametrization(layer, name, Shrunk())
    layer.train()(images()).sum().backward()
    y, bound = layer.eval()(images()), layer.lipschitz_bound((SIDE, SIDE))
    parametrize.remove_parametrizations(layer, name)
    close(layer.eval()(images()), y)
    assert bound == pytest.approx(layer.lipschitz_bound((SIDE, SIDE)), rel=1e-6)


def pruned(layer):
    name = matrix_of(layer)
    prune.random_unstructured(layer, name, 0.5)
    layer.train()(images()).sum().backward()
    y, bound = layer.eval()(images()), layer.lipschitz_bound((SIDE, SIDE))
    prune.remove(layer, name)
    close(layer.eval()(images()), y)
    assert bound == pytest.approx(layer.lipschitz_bound((SIDE, SIDE)), rel=1e-6)


def inference_mode(layer):
    with torch.inference_mode():
        y = layer.eval()(images())
    x = images().requires_grad_()
    layer(x).sum().backward()
    assert torch.equal(layer(images()), y)


def meta_device(layer):
    """Shapes alone, as for counting a large network."""
    moved = layer.to("meta").train()
    assert moved(images().to("meta")).shape == images().shape


# What is refused, with what layers (None: with all) and which words.
HABITS = {
    autocast_training: {}, autocast_evaluation: {},
    half_weights: {None: r"weights of torch.float16.*torch.autocast"},
    bfloat16_weights: {None: r"weights of torch.bfloat16.*torch.autocast"},
    vmap_over_images: {}, jacrev_first: {}, jacrev_in_training: {"cpl": VECTORS, "soc": VECTORS},
    per_sample_gradients: {}, per_sample_gradients_with_buffers: {},
    second_derivatives: {},
    compiled_training: {}, compiled_folded: {}, compiled_evaluation: {None: FOLD}, compiled_evaluation_in_pieces: {},
    exported_training: {}, exported_before_a_first_call: {None: FOLD}, exported_after_a_first_call: {None: FOLD},
    exported_folded: {},
    copies_and_pickles: {}, channels_last: {}, parametrized: {}, pruned: {}, inference_mode: {}, meta_device: {},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`-wrapped function")
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("habit", HABITS, ids=lambda habit: habit.__name__)
def test_habit(habit, name):
    torch.compiler.reset()
    refused = HABITS[habit].get(name, HABITS[habit].get(None))
    if refused is None:
        habit(layer_of(name))
        return
    with pytest.raises((LiprefError, torch._dynamo.exc.Unsupported)) as caught:
        habit(layer_of(name))
    assert re.search(refused, str(caught.value), re.DOTALL)
    assert "\n" not in str(caught.value) or "compiled" in habit.__name__  # there within a message of torch's


DISTRIBUTED = """\
import copy, sys
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
sys.path.insert(0, sys.argv[3])
from test_pytorch_habits import METHODS, images, layer_of

rank = int(sys.argv[1])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
for name in METHODS:
    plain, x = layer_of(name).train(), images()
    x = torch.cat((x, x[:1]))
    half = x[2 * rank : 2 * rank + 2]
    parallel, sharded = DistributedDataParallel(copy.deepcopy(plain)), fully_shard(copy.deepcopy(plain))
    for module, batch in ((plain, x), (parallel, half), (sharded, half)):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            module(batch).square().mean().backward()
            optimizer.step()
    for key, value in plain.state_dict().items():
        shards = sharded.state_dict()[key]
        for found in (parallel.module.state_dict()[key], getattr(shards, "full_tensor", lambda: shards)()):
            torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-5, msg=lambda text: name + " " + key + text)
dist.destroy_process_group()
"""


def test_two_processes_train_as_one(tmp_path):
    """Data parallel and sharded (FSDP2), each process with half of the batch."""
    places = [str(tmp_path / "store"), os.path.dirname(__file__)]
    processes = [
        subprocess.Popen([sys.executable, "-c", DISTRIBUTED, str(rank), *places], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors[0][-2000:] + errors[1][-2000:]
