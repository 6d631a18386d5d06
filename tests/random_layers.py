"""Randomly drawn layers against the dense Jacobian. ``python tests/random_layers.py 10000`` for as many as you like.

Every draw: method, channels 1 to 16 (rectangular where the method has it), kernel 1, 3 or 5, sides 3 to 12, padding,
parameters at a scale from 1e-6 to 1e3, trained for some steps or not, biases that switch every ReLU on or random ones.
"""

import math
import sys
from concurrent.futures import ProcessPoolExecutor

import pandas as pd
import torch
from contract import build, randomise, train_briefly
from jacobian import activate_every_relu, impulse_jacobian, jacobian_at

from lipref.layers import LAYERS
from lipref.layers.residual import ResidualConv2d

METHODS = tuple(LAYERS)
LARGEST = 500  # rows or columns of the Jacobian, but for one draw in a hundred


def draw(seed):
    """One layer: what it is, its bound, and the largest singular value of its Jacobian."""
    g = torch.Generator().manual_seed(seed)

    def pick(choices):
        return choices[int(torch.randint(len(choices), (), generator=g))]

    def uniform(low, high):
        return low + (high - low) * float(torch.rand((), generator=g))

    name = pick(METHODS)
    limit = 1200 if seed % 100 == 0 else LARGEST
    while True:
        inputs, outputs, k = pick(range(1, 17)), pick(range(1, 17)), pick((1, 3, 5))
        size = (pick(range(3, 13)), pick(range(3, 13)))
        if issubclass(LAYERS[name], ResidualConv2d) or pick((True, False)):
            outputs = inputs
        if max(inputs, outputs) * math.prod(size) <= limit:
            break
    mode, scale, kind = pick(LAYERS[name].padding_modes), 10 ** uniform(-6, 3), pick(("drawn", "trained", "untrained"))
    torch.manual_seed(seed)
    layer = build(name, inputs, outputs, k, mode)
    if kind == "drawn":
        layer = randomise(layer, scale, seed)
    elif kind == "trained":
        layer = train_briefly(layer, size, steps=5)
    layer = layer.double().eval()
    if isinstance(layer, ResidualConv2d) and pick((True, False)):
        activate_every_relu(layer)
        jacobian = impulse_jacobian(layer, inputs, size)
    elif isinstance(layer, ResidualConv2d):
        jacobian = jacobian_at(layer, torch.randn(inputs, *size, generator=g, dtype=torch.float64))
    else:
        layer.bias.data.zero_()  # affine maps: the bias changes nothing but the rounding of the differences
        jacobian = impulse_jacobian(layer, inputs, size)
    largest = float(torch.linalg.matrix_norm(jacobian, 2))
    return {
        "seed": seed, "layer": name, "kind": kind, "inputs": inputs, "outputs": outputs, "kernel": k, "size": size,
        "padding": mode, "scale": scale if kind == "drawn" else None, "bound": layer.lipschitz_bound(size),
        "largest": largest,
    }  # fmt: skip


def exceeds(found):
    """Whether the Jacobian refutes the bound, beyond the rounding of its own singular values."""
    return not found["largest"] <= found["bound"] * (1 + 1e-11)


def summary(table):
    """Tightest and loosest ratio of bound and norm, per method; where the norm is not vanishing."""
    table = table[table.largest > 1e-9]
    slack = table.bound / table.largest - 1
    return slack.groupby(table.layer).describe(percentiles=[0.5])[["count", "min", "50%", "max"]]


def main(count):
    torch.set_num_threads(1)
    with ProcessPoolExecutor(initializer=torch.set_num_threads, initargs=(1,)) as pool:
        table = pd.DataFrame(pool.map(draw, range(count), chunksize=50))
    wrong = table[table.apply(exceeds, axis=1)]
    print(summary(table).to_string())
    print(f"{len(table)} layers, {len(wrong)} beyond their bound")
    if len(wrong):
        print(wrong.to_string())
        sys.exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
