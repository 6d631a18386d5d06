"""The table of `lipref bench`: what networks take, against the plain network and against ours, in the same rounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lipref.bench import rounds
from lipref.bench.failures import ROUND, Failures
from lipref.bench.records import read
from lipref.bench.requests import PLAIN, Against, BenchPlan, Network, shape_of
from lipref.bench.slices import read_ours
from lipref.bench.timing import SECONDS
from lipref.bench.worker import OURS
from lipref.runs import overview
from lipref.training.speed import options_of

COLUMNS = (
    "code", "layer", "size", "image_size", "batch_size", "device", "machine", "threads", "quantity", "unit", "median",
    "low", "high", "n", "rounds", "images_per_second", "epoch_seconds", "ratio_to_standard", "ratio_to_standard_low",
    "ratio_to_standard_high", "ratio_to_ours", "ratio_to_ours_low", "ratio_to_ours_high", "note",
)  # fmt: skip
TIMES = SECONDS | {"prepare": "prepare_seconds"}
PEAKS = {"train memory": "train_peak_bytes", "infer memory": "infer_peak_bytes", "folded memory": "folded_peak_bytes"}
EXHAUSTED = "out of memory"
FAILED = "failed"
NOTE = (
    "train: forward, loss, backward, optimizer. infer: a batch in evaluation as each code does it; ours keeps the "
    "operators, code that prepares them at every batch pays for it. folded: the same without parametrisation. Medians; "
    "in parentheses what they are as a multiple, for ours of the plain network, for others of ours: the "
    "median of the ratios within single rounds [least, largest]. Memory is the peak of allocated bytes."
)


@dataclass(frozen=True)
class Measured:
    """One quantity of one network: in seconds with the median of each round by its number, or in bytes.

    ``value`` is None where memory ran out or the measurement failed, which ``note`` says.
    """

    value: float | None
    low: float = math.nan
    high: float = math.nan
    n: int = 1
    rounds: Mapping[int, float] = field(default_factory=dict)
    note: str = ""

    @classmethod
    def of_rounds(cls, times: Mapping[int, Sequence[float] | None]) -> Measured | None:
        """Of the seconds of every round that there is; None without any."""
        if not times:
            return None
        if not all(times.values()):
            return cls(None, n=0, note=EXHAUSTED)
        filler = {"parameters": 0, "exhausted": False} | dict.fromkeys((*rounds.SECONDS, *rounds.PEAKS))
        found = rounds.combine([filler | {"train_seconds": list(each)} for each in times.values()])["train_seconds"]
        return cls(
            found["median"], found["low"], found["high"], found["repeats"],
            dict(zip(times, found["rounds"], strict=True)),
        )  # fmt: skip


def table(plan: BenchPlan) -> pd.DataFrame:
    """Tidy, of what has been measured of the plan: a row per code, network and quantity, with the columns `COLUMNS`.

    ``median`` is over all timed calls, ``n`` of them in ``rounds`` rounds; ``low`` and ``high`` as in
    `lipref.bench.rounds.combine`. ``images_per_second`` is the batch over the median; ``epoch_seconds`` the median of a
    training step times the steps of an epoch of the data set with such pictures. ``ratio_to_standard`` compares with
    our plain network of that size and side, ``ratio_to_ours`` is others' value over ours: the median of the ratios
    within single rounds, with the least and the largest; others' over the plain network is the product of the two.
    Bytes repeat, so they have no interval. What ran out of memory or failed has an empty median and a note.

    Raises:
        LiprefError: a damaged record.
    """
    lines: list[dict] = []
    failures = Failures(plan.out)
    plain: dict[tuple[str, int], dict[str, Measured]] = {}
    for network in sorted(plan.networks(), key=lambda network: network.label != PLAIN):  # what others are divided by
        place = (network.size, network.image_size)
        ours = _ours(plan, network)
        if why := failures.parts(plan, network).get(ROUND):
            ours = _asked(plan, dict.fromkeys((*TIMES, *PEAKS), _failed(why)) | ours)
        plain.setdefault(place, ours)
        over = {name: _ratios(value, plain[place].get(name)) for name, value in ours.items()}
        lines += [_line(plan, network, OURS, name, ours[name], over[name], {}) for name in ours]
        for against in plan.against:
            theirs, beside = _theirs(plan, network, against, ours)
            if not against.why_not(network):
                for part, why in failures.parts(plan, network, against).items():
                    names = [part] if part in TIMES else [n for n in PEAKS if against.code.folds or "folded" not in n]
                    theirs = _asked(plan, dict.fromkeys(names, _failed(why)) | theirs)
            for name, value in theirs.items():
                ratios = beside.get(name, {})
                times = {n: ratio * over.get(name, {}).get(n, math.nan) for n, ratio in ratios.items()}
                lines.append(_line(plan, network, against.code.name, name, value, times, ratios))
    frame = pd.DataFrame(lines, columns=list(COLUMNS))
    codes = [OURS, *(against.code.name for against in plan.against)]
    orders = {"image_size": lambda column: column, "code": lambda column: column.map(codes.index)}
    return frame.sort_values(
        ["image_size", "size", "layer", "code"], key=lambda column: orders.get(column.name, overview.order)(column),
        kind="stable", ignore_index=True,
    )  # fmt: skip


def _ours(plan: BenchPlan, network: Network) -> dict[str, Measured]:
    """Of our network, by quantity, in the order of the plan; what has not been measured is not there."""
    record = read_ours(plan.ours(network), plan.out)
    found: dict[str, Measured | None] = {}
    if "config" in record:
        for name, key in TIMES.items():
            timed = record[key]
            found[name] = Measured(
                timed["median"], timed["low"], timed["high"], timed["repeats"], dict(enumerate(timed["rounds"]))
            ) if timed else _absent(record["status"] == "out_of_memory")  # fmt: skip
        peaks, exhausted = record, record["status"] == "out_of_memory"
    else:
        parts = record["parts"]
        exhausted = any(part["exhausted"] for part in parts.values())
        for name, key in TIMES.items():
            lists = {n: part[key] for n, part in parts.items()}
            found[name] = Measured.of_rounds(lists) if all(lists.values()) else _absent(exhausted)
        peaks = parts.get(0)
    return _asked(plan, found | (_peaks(peaks, exhausted) if peaks else {}))


def _theirs(
    plan: BenchPlan, network: Network, against: Against, ours: Mapping[str, Measured]
) -> tuple[dict[str, Measured], dict[str, dict[int, float]]]:
    """Of others' network, by quantity, and its multiples of ours by the number of the round."""
    if against.why_not(network):
        return {}, {}
    config = plan.theirs(network, against)
    found: dict[str, Measured | None] = {}
    beside: dict[str, dict[int, float]] = {}
    for name, key in SECONDS.items():
        kept = {n: read(plan.out, config, n, name) for n in range(config.rounds)}
        kept = {n: part for n, part in kept.items() if part is not None}
        found[name] = Measured.of_rounds({n: part["result"]["times"] for n, part in kept.items()})
        beside[name] = {
            n: float(np.median(part["result"]["times"])) / part["ours"][key] for n, part in kept.items()
            if part["result"]["times"] and part["ours"].get(key)
        }  # fmt: skip
    memory = read(plan.out, config, 0, "memory")
    if memory is not None:
        found |= _peaks(memory["result"], memory["result"]["status"] == "out_of_memory")
        beside |= {name: _ratios(found[name], ours.get(name)) for name in PEAKS}
    return _asked(plan, found), beside


def _absent(exhausted: bool) -> Measured | None:
    return Measured(None, n=0, note=EXHAUSTED) if exhausted else None


def _failed(why: str) -> Measured:
    return Measured(None, n=0, note=f"{FAILED}: {why}")


def _peaks(found: Mapping[str, int | None], exhausted: bool) -> dict[str, Measured | None]:
    return {
        name: _absent(exhausted) if found[key] is None else Measured(float(found[key]), rounds={0: float(found[key])})
        for name, key in PEAKS.items()
    }


def _asked(plan: BenchPlan, found: Mapping[str, Measured | None]) -> dict[str, Measured]:
    wanted = [name for name in (*TIMES, *PEAKS) if ("memory" if name in PEAKS else name) in plan.quantities]
    return {name: found[name] for name in wanted if found.get(name) is not None}


def _ratios(value: Measured | None, by: Measured | None) -> dict[int, float]:
    """Value over value in each round that both have."""
    if value is None or by is None:
        return {}
    return {n: each / by.rounds[n] for n, each in value.rounds.items() if n in by.rounds}


def _line(
    plan: BenchPlan, network: Network, code: str, name: str, value: Measured, plain: Mapping[int, float],
    ours: Mapping[int, float],
) -> dict:  # fmt: skip
    config = plan.ours(network)
    line = {"code": code, "layer": network.label, "quantity": name, "unit": "bytes" if name in PEAKS else "s"}
    line |= {n: getattr(config, n) for n in ("size", "image_size", "batch_size", "device", "machine", "threads")}
    line |= {"median": math.nan if value.value is None else value.value, "low": value.low, "high": value.high}
    line |= {"n": value.n, "rounds": len(value.rounds), "note": value.note}
    steps = math.ceil(shape_of(config.image_size).train_images / config.batch_size)
    per_batch = line["median"] if name in SECONDS else math.nan
    line |= {"images_per_second": config.batch_size / per_batch}
    line |= {"epoch_seconds": steps * per_batch if name == "train" else math.nan}
    for column, ratios in (("ratio_to_standard", plain), ("ratio_to_ours", ours)):
        there = [ratio for ratio in ratios.values() if not math.isnan(ratio)]
        ends = (float(np.median(there)), min(there), max(there)) if there else (math.nan,) * 3
        line |= dict(zip((column, f"{column}_low", f"{column}_high"), ends, strict=True))
    return line


def people(table: pd.DataFrame, intervals: bool = True) -> pd.DataFrame:
    """The tidy table as people read it: a row per code and network, times in milliseconds, memory in 10^6 bytes.

    ``intervals``: with the least and the largest ratio of a round, which a terminal has no room for.
    """
    several = {name: table[name].nunique() > 1 for name in ("size", "image_size")}
    names = [name for name in (*TIMES, *PEAKS) if name in set(table.quantity) and name != "folded memory"]
    lines = []
    for (side, size, layer, code), group in table.groupby(["image_size", "size", "layer", "code"], sort=False):
        line = {"layer": layer} | ({"size": size} if several["size"] else {})
        line |= ({"side": side} if several["image_size"] else {}) | {"code": code}
        cells = {row.quantity: _text(row, intervals) for row in group.itertuples()}
        lines.append(line | {_title(name): cells.get(name, "") for name in names})
    return pd.DataFrame(lines)


def _title(name: str) -> str:
    return f"{name.removesuffix(' memory')} MB" if name in PEAKS else f"{name} ms"


def _text(row, intervals: bool) -> str:
    if row.note:
        return row.note.split(":")[0]  # the reason stands below
    text = f"{(1e-6 if row.unit == 'bytes' else 1e3) * row.median:.3g}"
    column = "ratio_to_standard" if row.code == OURS else "ratio_to_ours"
    ratio, low, high = (getattr(row, f"{column}{end}") for end in ("", "_low", "_high"))
    if math.isnan(ratio) or (row.code == OURS and row.layer == PLAIN):
        return text
    return f"{text} ({ratio:.3g})" if low == high or not intervals else f"{text} ({ratio:.3g} [{low:.3g}, {high:.3g}])"


def notes(plan: BenchPlan) -> list[str]:
    """Where others' layers are not the same thing, and which networks cannot be compared or failed: a line for each."""
    lines, failures = [], Failures(plan.out)
    for against in plan.against:
        name, code = against.code.name, against.code
        lines.append(f"{name}: {code.note}. {_version(against)}")
        compared = [network for network in plan.networks() if not against.why_not(network)]
        for layer in dict.fromkeys(network.label for network in compared):
            said = f"; {code.notes[layer]}" if layer in code.notes else ""
            lines.append(f"{name} {layer}: {code.layers[layer]}{said}.")
        reasons: dict[str, list[str]] = {}
        for network in plan.networks():
            if why := against.why_not(network):
                reasons.setdefault(why, []).append(f"{network.label} {network.size} {network.image_size}")
        lines += [f"{name} is left blank at {_few(which)}: {why}." for why, which in reasons.items()]
    for network in plan.networks():
        told = [failures.line(plan, network)]
        told += [failures.line(plan, network, a) for a in plan.against if not a.why_not(network)]
        lines += [f"Failed: {line}" for line in told if line]
    return lines


def _version(against: Against) -> str:
    origin = against.origin
    which = [f"version {origin['version']}"] if origin.get("version") else []
    if origin.get("commit"):
        which.append(f"commit {str(origin['commit'])[:10]}{', edited' if origin['dirty'] else ''}")
    return f"{against.code.url}, {', '.join(which) or f'source {against.sha256[:10]}'}."


def _few(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def setting(plan: BenchPlan) -> str:
    """On which machine and how, in two sentences."""
    first = plan.ours(plan.networks()[0])
    where = first.device if first.device == "cuda" else f"{first.threads} thread{'' if first.threads == 1 else 's'}"
    sides = ", ".join(f"{side}x{side}" for side in plan.image_sizes)
    return (
        f"{', '.join(plan.sizes)} at {sides}, batches of {plan.batch_size} on {first.machine} ({where}), torch "
        f"{first.torch}. Rounds: {plan.rounds}; timed calls in all of them: up to {plan.repeats}."
        + (f" Our training steps with {options_of({'speed': first.speed})}." if first.speed else "")
    )
