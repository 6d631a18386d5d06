"""Goldens: committed values that the code must go on giving, however it is written.

    PYTHONPATH=. python tests/goldens.py --write [layers] [states] [certificate] [figures]

writes ``tests/goldens/`` anew, all of it or the named parts; `test_goldens` recomputes and compares. Write a part only
where its values are meant to change. The saved network is not written here; it is that of

    lipref train --dataset digits --size XS --layer bcop --epochs 3 --learning-rate 0.01 --weight-decay 0

Layers are given their weights, so their initialisation may change. All draws are from NumPy's RandomState, whose stream
is frozen.
"""

import argparse
import hashlib
import json
import math
import warnings
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

# --- the only part that names anything of lipref
import lipref
from lipref.data import load_dataset
from lipref.layers import LAYERS
from lipref.layers.excluded import EXCLUDED
from lipref.nets import convnet

METHODS = {**LAYERS, **EXCLUDED}
OPTIONS = {"eco": {"allow_any_side": True}}  # the same function where k divides the sides


def build(name: str, shape: tuple[int, int, int], mode: str | None = None) -> nn.Module:
    return METHODS[name](*shape, padding_mode=mode, dtype=torch.float64, **OPTIONS.get(name, {}))


def modes_of(name: str) -> tuple[str, ...]:
    return METHODS[name].padding_modes


def takes(name: str, shape: tuple[int, int, int]) -> bool:
    inputs, outputs, k = shape
    return (inputs == outputs or not METHODS[name].square_only) and (name != "bnb" or k == 1)


def proved(layer: nn.Module, size: tuple[int, int]) -> dict[str, float]:
    """What is claimed of the layer in evaluation; of rounding, in float64."""
    names, rounding = ("slope", "constant", "at_zero"), layer.rounding_error(layer.operator(size), size, 2**-53)
    return {"bound": layer.lipschitz_bound(size)} | {
        f"rounding/{key}": value for key, value in zip(names, rounding, strict=True)
    }


def networks() -> dict[str, nn.Module]:
    """The smallest network with each method, for digits."""
    sizes = {name: "XS_1x1" if name == "bnb" else "XS" for name in METHODS}
    return {f"{name} {size}": convnet(size, METHODS[name], 10, 1, 8) for name, size in sizes.items()}


def certificate() -> dict[str, list]:
    """Of the saved network, on the first 100 test pictures of digits."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* is of lipref .*, this is")
        classifier = lipref.load(FOLDER / "network" / "weights.safetensors")
    test = load_dataset("digits").test
    labels = test.labels[:100]
    outcome, error = classifier.certify([(test.images[:100], labels)]), classifier.evaluation_error
    return {
        "labels": labels.tolist(),
        "predictions": outcome.predictions.tolist(),
        "margins": outcome.margins.tolist(),
        "radii": outcome.radii.tolist(),
        "bound": [classifier.bound],
        "layers": [path for path, _, _, _ in classifier.audit.layers],
        "sizes": [list(size) for _, _, size, _ in classifier.audit.layers],
        "bounds": [bound for _, _, _, bound in classifier.audit.layers],
        "evaluation_error": [error.slope, error.constant],
    }


# --- the rest

FOLDER = Path(__file__).parent / "goldens"
FIGURES = FOLDER.parents[1] / "figures"
SHAPES = ((4, 4, 3), (4, 4, 1), (3, 5, 3), (5, 3, 3), (3, 5, 1), (5, 3, 1), (4, 4, 5))  # inputs, outputs, kernel
UNSETTLED = (4, 4, 5)  # vectors of power iterations as they are drawn; else after some training passes
SETTLING = 20
WHOLE = 64  # of larger arrays, projections are stored
PROJECTIONS = 8


def label(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def cases() -> list[tuple[str, tuple[int, int, int]]]:
    return [(name, shape) for name in METHODS for shape in SHAPES if takes(name, shape)]


def sizes_for(shape: tuple[int, int, int]) -> tuple[tuple[int, int], ...]:
    return ((6, 6), (5, 7)) if shape[2] == 1 else ((6, 6), (5, 7), (2, 2))


def draw(text: str, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers, float64, decided by ``text``."""
    return torch.from_numpy(np.random.RandomState(zlib.crc32(text.encode())).standard_normal(shape))


def drawn_state(name: str, shape: tuple[int, int, int]) -> dict[str, Tensor]:
    layer, text = build(name, shape).train(), f"{name} {label(shape)}"
    with torch.no_grad():
        for key, value in layer.state_dict().items():
            if not value.is_floating_point():  # counters
                continue
            scale = 0.5 if value.dim() == 1 else math.prod(value.shape[1:]) ** -0.5
            value.copy_(draw(f"{text} {key}", tuple(value.shape)) * scale if value.dim() else torch.tensor(2.0))
        if shape != UNSETTLED:
            for _ in range(SETTLING):
                layer(draw(text, (2, shape[0], 6, 6)))
    return {key: value.clone() for key, value in layer.state_dict().items()}


def summary(value: Tensor) -> Tensor:
    """The numbers of ``value``, or where they are many their projections, of the same norm on average."""
    flat = value.detach().double().flatten()
    return flat if len(flat) <= WHOLE else _projections(len(flat)) @ flat


@cache
def _projections(length: int) -> Tensor:
    return draw(f"projections {length}", (PROJECTIONS, length)) / math.sqrt(PROJECTIONS)


def layer_values(name: str, shape: tuple[int, int, int], state: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """All goldens of a layer with these weights: ``mode/size/quantity`` and its `summary`."""
    for mode in modes_of(name):
        for size in sizes_for(shape):
            for key, value in _values(name, shape, mode, size, state).items():
                yield f"{mode}/{label(size)}/{key}", summary(value)


def _values(name: str, shape: tuple, mode: str, size: tuple[int, int], state: dict[str, Tensor]) -> dict[str, Tensor]:
    layer = build(name, shape, mode)
    layer.load_state_dict(state, strict=True)
    layer.eval()
    x, c = draw("x", (2, shape[0], *size)), draw("c", (2, shape[1], *size))
    with torch.no_grad():
        found = {"evaluation": layer(x), "folded": layer.fold(size)(x)}
    found |= {key: torch.tensor([number], dtype=torch.float64) for key, number in proved(layer, size).items()}
    layer.train()
    x.requires_grad_()
    y = layer(x)
    (y * c).sum().backward()
    found |= {"training": y, "gradient/x": x.grad}
    for key, parameter in layer.named_parameters():  # none of an empty one is the same as an empty one
        found[f"gradient/{key}"] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    others = layer.state_dict().keys() - dict(layer.named_parameters()).keys() - {"frames"}
    return found | {f"buffer/{key}": value for key, value in layer.state_dict().items() if key in others}


def layout(module: nn.Module) -> list[str]:
    """Names, dtypes and shapes of the state dict, in its order."""
    return [
        f"{key} {str(value.dtype).removeprefix('torch.')} {label(tuple(value.shape))}".rstrip()
        for key, value in module.state_dict().items()
    ]


def layer_layouts() -> dict[str, list[str]]:
    return {f"{name} {label(shape)}": layout(build(name, shape)) for name, shape in cases()}


def network_layouts() -> dict[str, list[str]]:
    return {name: layout(network) for name, network in networks().items()}


def figure_hashes() -> dict[str, str]:
    """SHA-256 of every table in figures/."""
    return {
        path.relative_to(FIGURES).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(FIGURES.rglob("*.csv"))
    }


def stored_layer(name: str) -> dict[str, Tensor]:
    return load_file(FOLDER / "layers" / f"{name}.safetensors")


def under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def stored(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text())


# --- writing


def write_layers() -> None:
    for name in METHODS:
        tensors = {}
        for shape in (shape for method, shape in cases() if method == name):
            state = drawn_state(name, shape)
            tensors |= {f"{label(shape)}/state/{key}": value for key, value in state.items()}
            tensors |= {f"{label(shape)}/values/{key}": value for key, value in layer_values(name, shape, state)}
        save_file(tensors, FOLDER / "layers" / f"{name}.safetensors")


def _write_json(name: str, values: dict) -> None:
    (FOLDER / f"{name}.json").write_text(json.dumps(values, indent=1) + "\n")


PARTS = {
    "layers": write_layers,
    "states": lambda: _write_json("states", {"layers": layer_layouts(), "networks": network_layouts()}),
    "certificate": lambda: _write_json("network/certificate", certificate()),
    "figures": lambda: _write_json("figures", figure_hashes()),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the goldens anew.")
    parser.add_argument("--write", nargs="*", choices=PARTS, required=True, help="all parts where none is named")
    parts = parser.parse_args().write or PARTS
    print(f"with {lipref.__file__}")
    for part in parts:
        PARTS[part]()


if __name__ == "__main__":
    main()
