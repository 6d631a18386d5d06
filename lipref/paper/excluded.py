"""What the paper's Figure 6 and Table 3 show of the methods that it excludes; ``lipref excluded`` computes it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from lipref.certification.bounds import network_bound
from lipref.data import Batches, ImageData, load_dataset
from lipref.errors import LiprefError
from lipref.layers import LipschitzConv2d
from lipref.layers.excluded import ECOConv2d
from lipref.losses import offset_cross_entropy
from lipref.nets import ConvNet, convnet
from lipref.runs.provenance import environment, write_json
from lipref.runs.records import make_folder
from lipref.tensor_files import replace_file

LAYERS, SIDES, GRADIENTS, PROVENANCE = "eco_layers.csv", "eco_sides.csv", "sandwich_gradients.csv", "provenance.json"
SIZE, COMPARED = "S", ("eco", "bcop", "aol")  # of Figure 6, and the layers beside ECO that hold
TABLE_SIZE, TABLE_BATCH = "XS", 32  # of Table 3
SIDE_RANGE, SIDE_CHANNELS, SIDE_KERNEL = range(6, 21), 8, 3
LEARNING_RATE, MOMENTUM = 0.1, 0.9


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is computed: on which data set, ``images`` of its test pictures, ``seed``, and how many training steps."""

    dataset: str
    data_root: Path | None = None
    images: int = 256
    steps: int = 30
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("images", 2), ("steps", 0), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise LiprefError(f"{name}={value!r}: give a whole number of at least {least}")


def write(question: Question, out: Path) -> list[Path]:
    """Compute all three tables and write them into ``out``, with their provenance. Returns the paths.

    Raises:
        LiprefError: a data set that cannot be read or has too few pictures, or a file that cannot be written.
    """
    started, out = time.perf_counter(), Path(out)
    pictures = load_dataset(question.dataset, question.data_root)
    tables = {
        SIDES: side_norms(seed=question.seed),
        GRADIENTS: gradient_norms(pictures, seed=question.seed),
        LAYERS: layer_norms(pictures, images=question.images, steps=question.steps, seed=question.seed),
    }
    make_folder(out)
    for name, table in tables.items():
        replace_file(out / name, table.to_csv(index=False, lineterminator="\n").encode())
    asked = {"dataset": pictures.name, "fingerprint": pictures.fingerprint(), "images": question.images,
             "steps": question.steps, "seed": question.seed}  # fmt: skip
    seconds = time.perf_counter() - started
    write_json(out / PROVENANCE, [{"asked": asked, "seconds": seconds, "environment": environment("cpu")}])
    return [*(out / name for name in tables), out / PROVENANCE]


def layer_norms(
    pictures: ImageData, *, images: int, steps: int, seed: int = 0, size: str = SIZE, layers: tuple[str, ...] = COMPARED
) -> pd.DataFrame:
    """Figure 6: variance of the features and proved norm after every Lipschitz layer, in evaluation.

    Args:
        pictures: their first ``images`` test pictures are the batch.
        steps: of SGD on ECO's network, after which it is looked at once more; 0 for none.
        seed: of the networks, and of the training batches.

    Returns:
        ``layer, moment, place, module, height, width, variance, norm, log2_product``: place 0 is the input; variance
        is the mean over the batch of ``||a_i - mean||^2``; norm the rigorous bound of the layer's Lipschitz constant;
        log2_product the logarithm of the product so far.
    """
    batch = _batch(pictures, images)
    lines = []
    for layer in layers:
        model = _network(size, layer, pictures, seed)
        lines += [{"layer": layer, "moment": "initial"} | line for line in _observed(model, batch)]
        if layer == "eco" and steps:
            _train(model, pictures, steps, seed)
            lines += [
                {"layer": layer, "moment": f"{steps} step{'s' if steps > 1 else ''}"} | line
                for line in _observed(model, batch)
            ]
    return pd.DataFrame(lines)


def side_norms(
    sides: range = SIDE_RANGE, *, channels: int = SIDE_CHANNELS, kernel_size: int = SIDE_KERNEL, seed: int = 0
) -> pd.DataFrame:
    """The rigorous norm of one ECO layer at initialisation against the image's side: ``side, channels, seed, norm``.

    One set of weights, executed on all sides; ``divides`` tells whether the kernel's side divides the image's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = ECOConv2d(channels, channels, kernel_size, allow_any_side=True, dtype=torch.float64).eval()
    lines = [
        {"side": side, "channels": channels, "kernel_size": kernel_size, "seed": seed,
         "divides": side % kernel_size == 0, "norm": layer.lipschitz_bound((side, side))}
        for side in sides
    ]  # fmt: skip
    return pd.DataFrame(lines)


def gradient_norms(
    pictures: ImageData, *, size: str = TABLE_SIZE, images: int = TABLE_BATCH, seed: int = 0
) -> pd.DataFrame:
    """Table 3: Frobenius norms of the loss's gradient with respect to a Sandwich network's features.

    The network is untrained, in training mode, the loss the library's, its mean over one batch.

    Returns:
        ``module, shape, norm``: the modules in their order, whose output of ``shape`` it is.
    """
    model = _network(size, "sandwich", pictures, seed).train()
    labels = pictures.test.labels[_chosen(pictures, images)]
    outputs, x = [], _batch(pictures, images)
    for name, module in model.named_children():
        x = module(x)
        if x.requires_grad:  # all but the padding of the pictures
            x.retain_grad()
            outputs.append((name, x))
    offset_cross_entropy(x, labels).backward()
    return pd.DataFrame(
        {"module": name, "shape": "x".join(map(str, y.shape)), "norm": float(torch.linalg.vector_norm(y.grad.double()))}
        for name, y in outputs
    )  # fmt: skip


def _network(size: str, layer: str, pictures: ImageData, seed: int) -> ConvNet:
    options = {"allow_any_side": True} if layer == "eco" else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shape = (pictures.num_classes, pictures.channels, pictures.image_size)
        return convnet(size, layer, *shape, **options)


def _chosen(pictures: ImageData, images: int) -> Tensor:
    """Pictures spread evenly over the test split, whatever its order."""
    if images > len(pictures.test):
        raise LiprefError(f"images={images}: {pictures.name} has {len(pictures.test)} test pictures; give fewer")
    return torch.arange(images) * len(pictures.test) // images


def _batch(pictures: ImageData, images: int) -> Tensor:
    mean = torch.tensor(pictures.mean)[:, None, None]
    return pictures.test.images[_chosen(pictures, images)].float() / pictures.levels - mean


@torch.no_grad()
def _observed(model: ConvNet, x: Tensor) -> list[dict]:
    model.eval()
    bounds = {name: (size, bound) for name, _, size, bound in network_bound(model).layers}
    side, total, place = model.image_size, 0.0, 0
    lines = [_line(0, "input", (side, side), x, 1.0, 0.0)]
    for name, module in model.named_children():
        x = module(x)
        if isinstance(module, LipschitzConv2d):
            size, bound = bounds[name]
            total, place = total + math.log2(bound), place + 1
            lines.append(_line(place, name, size, x, bound, total))
    return lines


def _line(place: int, module: str, size: tuple[int, int], x: Tensor, norm: float, total: float) -> dict:
    return {"place": place, "module": module, "height": size[0], "width": size[1], "variance": variance(x),
            "norm": norm, "log2_product": total}  # fmt: skip


def variance(x: Tensor) -> float:
    """Mean over the batch of the squared distance from the batch's mean, of ``(N, ...)``; no 1-Lipschitz map adds."""
    x = x.flatten(1).double()
    return float((x - x.mean(0)).square().sum(1).mean())


def _train(model: nn.Module, pictures: ImageData, steps: int, seed: int) -> None:
    model.train()
    batches = Batches(pictures.train, pictures, batch_size=32, seed=seed, device="cpu")
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    for _, (x, labels) in zip(range(steps), batches.epoch(0), strict=False):
        optimizer.zero_grad()
        offset_cross_entropy(model(x), labels).backward()
        optimizer.step()
