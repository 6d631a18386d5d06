"""The network itself, Tables 5 to 7: stages, shapes, multiply-accumulates and parameters, read from its modules."""

from __future__ import annotations

import math

import pandas as pd
import torch
from torch import nn

from lipref.activations import MaxMin
from lipref.errors import LiprefError
from lipref.layers import LAYERS
from lipref.nets import FirstChannels, PadChannels, convnet, count_parameters, width_at
from lipref.paper import comparison, published
from lipref.paper.comparison import AGREES, DIFFERS, NOT_RUN
from lipref.paths import PAPER

OPERATIONS = {
    PadChannels: "zero channels", MaxMin: "MaxMin", FirstChannels: "first channels", nn.Flatten: "flatten",
    nn.PixelUnshuffle: "pixel unshuffle",
}  # fmt: skip
CONVOLUTION = "Lipschitz convolution"
REASONS = {
    "bcop": "ours stores half of each orthogonal frame",
    "cayley": "ours has a scale per layer from the start, theirs the head's until the first batch",
}
NOT_OURS = "left out of the comparison: not in the library"


def modules(size: str, layer: str = "standard", image_size: int = 32, num_classes: int = 10) -> pd.DataFrame:
    """Every module of the network, in order: a row each, with the shapes that one zero picture gives.

    Returns:
        ``module`` (its name), ``operation``, ``kernel`` (side; NaN for what is no convolution), ``channels`` and
        ``side`` of its output, ``parameters`` (trained), ``macs``: multiply-accumulates per picture of a plain
        convolution of that shape (Prach et al. 2024, Table 1: c_in c_out k² s²), 0 for what is no convolution.

    Raises:
        LiprefError: a network that does not exist.
    """
    model = convnet(size, layer, num_classes, image_size=image_size).eval()
    rows: list[dict] = []

    def watch(name: str):
        def hook(module: nn.Module, given: tuple, result: torch.Tensor) -> None:
            rows.append(_module(name, module, given[0].shape, result.shape))

        return hook

    for name, module in model.named_children():
        module.register_forward_hook(watch(name))
    with torch.no_grad():
        model(torch.zeros(1, model.in_channels, image_size, image_size))
    return pd.DataFrame(rows)


def _module(name: str, module: nn.Module, given: torch.Size, result: torch.Size) -> dict:
    operation = OPERATIONS.get(type(module), CONVOLUTION)
    side = result[-1] if len(result) == 4 else 1
    kernel, macs = math.nan, 0
    if operation == CONVOLUTION:
        kernel = module.kernel_size[0] if isinstance(module.kernel_size, tuple) else module.kernel_size
        macs = given[1] * result[1] * kernel**2 * side**2
    count = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return {"module": name, "operation": operation, "kernel": kernel, "channels": result[1], "side": side,
            "parameters": count, "macs": macs}  # fmt: skip


def stages(found: pd.DataFrame) -> pd.DataFrame:
    """Table 5: the modules put together to stages, a downsize block in one row, with the columns of `published_rows`.

    Args:
        found: `modules`.
    """
    width = found.channels.iloc[0]
    lines = []
    for stage, group in found.groupby(found.module.map(_stage), sort=False):
        if stage == "flatten":  # a head's output has one pixel: the shape alone changes
            continue
        last, block = group.iloc[-1], stage.startswith("block")
        convolutions = group[group.operation == CONVOLUTION]
        lines.append({
            "stage": stage, "operation": "downsize block" if block else last.operation, "repetitions": 1,
            "kernel": convolutions.kernel.iloc[0] if len(convolutions) else math.nan,
            "channels": math.nan if stage == "logits" else last.channels / width, "side": float(last.side),
            "parameters": int(group.parameters.sum()), "macs": int(group.macs.sum()),
        })  # fmt: skip
    return pd.DataFrame(lines)


def block(found: pd.DataFrame, number: int = 0) -> pd.DataFrame:
    """Table 6: one downsize block, equal modules counted; channels and side relative to its input.

    Args:
        found: `modules`.
        number: Which block, from 0.

    Raises:
        LiprefError: the network has no such block.
    """
    rows = found[found.module.str.startswith(f"block{number}_")]
    if rows.empty:
        last = sum(found.module.str.endswith("_down")) - 1
        raise LiprefError(f"block={number}: the network has blocks 0 to {last}")
    first = rows.iloc[0]
    lines = []
    for operation, group in rows.groupby("operation", sort=False):
        last = group.iloc[-1]
        lines.append({
            "stage": f"block{number}", "operation": operation, "repetitions": len(group),
            "kernel": last.kernel, "channels": last.channels / first.channels, "side": last.side / first.side,
            "parameters": int(group.parameters.sum()), "macs": int(group.macs.sum()),
        })  # fmt: skip
    return pd.DataFrame(lines)


def published_rows(number: int, image_size: int) -> pd.DataFrame:
    """The rows of Table 5 or 6 for pictures of that side; none where the paper has no such network.

    Args:
        number: 5 or 6.
        image_size: 32 or 64. Table 6 is the same for both.

    Returns:
        ``stage, operation, repetitions, kernel, channels, side``: Table 5 has channels as a multiple of the width and
        the side in pixels, Table 6 both relative to the block's input.
    """
    table = pd.read_csv(PAPER / "architecture.csv")
    table = table[(table.table == number) & table.input_side.isin([image_size] if number == 5 else [32, 64])]
    return table.drop(columns=["table", "input_side", "source"]).reset_index(drop=True)


def both(ours: pd.DataFrame, paper: pd.DataFrame, variant: str = "both") -> pd.DataFrame:
    """The rows of `stages` or `block` and of `published_rows`, one below the other, with their ``source``."""
    parts = {"paper": paper, "ours": ours}
    shown = [parts[source].assign(source=source) for source in comparison.VARIANTS[variant] if len(parts[source])]
    found = pd.concat(shown, ignore_index=True) if shown else ours[:0].assign(source="")
    return found[["source", *(name for name in found.columns if name != "source")]]


def say(found: pd.DataFrame) -> str:
    """What the network computes, in a line: multiply-accumulates and trained parameters.

    Args:
        found: `modules`.
    """
    macs, width = int(found.macs.sum()), int(found.channels.iloc[0])
    return (
        f"Plain convolutions of these shapes take {macs:,} multiply-accumulates per picture, {macs // width**2:,} w² "
        f"at width w = {width}; the network has {int(found.parameters.sum()):,} trained parameters."
    )


def summary(verdicts: pd.Series) -> str:
    """How many rows have which verdict: ``agrees: 104, differs: 40``."""
    counts = verdicts.value_counts(sort=False)
    return ", ".join(f"{name}: {count}" for name, count in counts.items()) or "nothing to compare"


def compare(ours: pd.DataFrame, paper: pd.DataFrame, variant: str = "both") -> pd.DataFrame:
    """Ours beside the published rows, in order, as text, and for ``"both"`` the verdict of each row.

    A row agrees where operation, repetitions, kernel, channels and side all do. A published kernel of NaN stands for
    "whatever the network's": only Table 6 has it.

    Args:
        ours: `stages` or `block`.
        paper: `published_rows`.
        variant: One of `comparison.VARIANTS`.

    Raises:
        LiprefError: an unknown variant.
    """
    if variant not in comparison.VARIANTS:
        raise LiprefError(f"variant={variant!r}: choose one of {', '.join(comparison.VARIANTS)}")
    shown = comparison.VARIANTS[variant]
    lines = []
    for number in range(max(len(ours) if "ours" in shown else 0, len(paper) if "paper" in shown else 0)):
        mine = ours.iloc[number] if number < len(ours) else None
        theirs = paper.iloc[number] if number < len(paper) else None
        line = {"stage": (mine if theirs is None else theirs).stage}
        if "paper" in shown:
            line["paper"] = "" if theirs is None else _text(theirs)
        if "ours" in shown:
            line["ours"] = "" if mine is None else _text(mine)
            line |= {name: "" if mine is None else f"{mine[name]:,}" for name in ("parameters", "macs")}
        if variant == "both":
            line["verdict"] = _verdict(mine, theirs)
        lines.append(line)
    return pd.DataFrame(lines)


def sizes() -> pd.DataFrame:
    """Table 7 and the parameter counts: widths and parameters, ours beside theirs, with verdict and known reason.

    Returns:
        ``input_side, size, layer, measure, paper, ours, difference, verdict, reason``; measures ``width``,
        ``trained parameters``, ``all parameters`` (with those that power iterations keep) and ``millions of
        parameters`` (as Table 7 rounds them). Counts have to be equal; the rounded ones, equal when rounded.
    """
    lines = []
    printed = pd.read_csv(PAPER / "sizes.csv")
    for row in printed.itertuples(index=False):
        lines.append(_line(row.input_side, row.size, "all", "width", row.width, width_at(row.size, row.input_side)))
        mine = round(count(row.size, "standard", row.input_side)[0] / 1e6, 2)
        place = (row.input_side, row.size, "standard")
        lines.append(_line(*place, "millions of parameters", row.parameters_millions, mine))
    for row in pd.read_csv(PAPER / "model_parameter_counts.csv").itertuples(index=False):
        layer = published.known_layer(row.method)
        trained, every = count(row.size, layer, row.input_side)
        for measure, theirs, mine in (
            ("trained parameters", row.trainable_parameters, trained), ("all parameters", row.all_parameters, every)
        ):  # fmt: skip
            lines.append(_line(row.input_side, row.size, layer, measure, theirs, mine))
    return pd.DataFrame(lines)


def tidy(found: pd.DataFrame) -> pd.DataFrame:
    """The trained parameters of `sizes` as a tidy table (`lipref.paper.tables`), for the picture."""
    rows = found[found.measure == "trained parameters"]
    lines = []
    for source in ("paper", "ours"):
        for row in rows[rows[source].notna()].itertuples(index=False):
            side = f"{row.input_side}x{row.input_side} pictures"
            lines.append({
                "source": source, "setting": side, "layer": row.layer, "size": row.size, "measure": "parameters",
                "value": float(getattr(row, source)), "low": math.nan, "high": math.nan, "n": 1, "unit": "parameters",
                "of": 1, "note": "",
            })  # fmt: skip
    return pd.DataFrame(lines)


def numbers(found: pd.DataFrame, variant: str = "both") -> pd.DataFrame:
    """`sizes` with the columns that a variant shows: both have differences, verdicts and reasons."""
    if variant == "both":
        return found
    (source,) = comparison.VARIANTS[variant]
    rows = found[found[source].notna()]
    return rows[["input_side", "size", "layer", "measure", source]].reset_index(drop=True)


def people(found: pd.DataFrame, variant: str = "both") -> pd.DataFrame:
    """`sizes` as people read it, text; a variant keeps its own column."""
    kept = [source for source in ("paper", "ours") if source in comparison.VARIANTS[variant]]
    rows = found[found[kept[0]].notna()] if len(kept) == 1 else found
    shown = rows[["input_side", "size", "layer", "measure"]].astype(str)
    for source in kept:
        shown[source] = rows[source].map(lambda value: "" if pd.isna(value) else f"{value:,.10g}")
    return shown.assign(verdict=rows.verdict, reason=rows.reason) if len(kept) == 2 else shown


def count(size: str, layer: str, side: int) -> tuple[float, float]:
    """Trained and all parameters of our network; NaN for a layer that the library lacks.

    The modules are the real ones, without memory and without initial values: for these SOC, CPL and Cayley compute.
    """
    if layer not in LAYERS:
        return math.nan, math.nan
    empty = type(LAYERS[layer].__name__, (LAYERS[layer],), {"reset_parameters": lambda self: None})
    model = convnet(size, empty, image_size=side, device="meta")
    return count_parameters(model), sum(p.numel() for p in model.parameters())


def _line(side: int, size: str, layer: str, measure: str, paper: float, ours: float) -> dict:
    verdict = comparison.verdict(paper, ours, comparison.EXACT.at(paper))
    reason = ""
    if verdict == NOT_RUN:
        reason = NOT_OURS
    elif verdict == DIFFERS:
        reason = REASONS.get(layer, "")
        if measure == "all parameters" and layer in ("bcop", "soc"):
            vectors = "theirs counts the vectors of power iterations, which are buffers here"
            reason = f"{reason}; {vectors}" if reason else vectors
    return {"input_side": side, "size": size, "layer": layer, "measure": measure, "paper": paper, "ours": ours,
            "difference": ours - paper, "verdict": verdict, "reason": reason}  # fmt: skip


def _stage(module: str) -> str:
    """``first_act`` and ``head`` are stages of their own, all of a block is one."""
    return module.split("_")[0] if module.startswith("block") else module


def _text(row: pd.Series) -> str:
    """``downsize block, kernel 3, 2 w, side 16``."""
    parts = [row.operation if row.repetitions == 1 else f"{row.repetitions} x {row.operation}"]
    if not pd.isna(row.kernel):
        parts.append(f"kernel {row.kernel:g}")
    if not pd.isna(row.channels):
        parts.append(f"channels x {row.channels:g}")
    return ", ".join([*parts, f"side {row.side:g}"])


def _verdict(mine: pd.Series | None, theirs: pd.Series | None) -> str:
    if mine is None or theirs is None:
        return "not published" if theirs is None else NOT_RUN
    names = ["operation", "repetitions", "kernel", "channels", "side"]
    free = {"kernel"} if theirs.operation == CONVOLUTION and pd.isna(theirs.kernel) else set()
    equal = [
        mine[name] == theirs[name] or (pd.isna(mine[name]) and pd.isna(theirs[name])) for name in names
        if name not in free
    ]  # fmt: skip
    return AGREES if all(equal) else DIFFERS
