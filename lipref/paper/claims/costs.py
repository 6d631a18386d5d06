"""What layers cost in time and memory, by ratios."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from lipref.paper import published
from lipref.paper.claims.claim import NOT_PUBLISHED, Claim, Line
from lipref.paper.claims.estimate import Estimate, at_least, at_most, exact, near
from lipref.paper.claims.evidence import BATCH, Evidence
from lipref.paper.claims.measured import CIRCUMSTANCES, compared, estimate, theirs_cost
from lipref.paper.claims.networks import SIZES, Place
from lipref.paper.comparison import AGREES, DIFFERS
from lipref.paper.style import display_name

NOISE = 0.05  # of a time, as a share
RATIO = 0.25  # of a ratio of costs, as a share of the published one
FREE = ("aol", "bcop")  # whose evaluated layers are plain convolutions
Rows = dict[Place, tuple[dict, str]]


def ratio(rows: Rows, above: Place, below: Place, quantity: str) -> Estimate | None:
    """``quantity`` of one network over that of another, measured under the same circumstances; None where one lacks."""
    if above not in rows or below not in rows:
        return None
    return estimate(rows[above][0], quantity).over(estimate(rows[below][0], quantity))


def check_cheaper(evidence: Evidence) -> list[Line]:
    """CPL over SOC at each size: below 1, under any circumstances."""
    return [
        line for what, value, quantity, size in _cpl_soc() for line in compared(
            evidence, what, value, at_most(1, exact(value)),
            partial(ratio, above=("cpl", size), below=("soc", size), quantity=quantity), partial(at_most, 1),
        )
    ]  # fmt: skip


def check_ratio(evidence: Evidence) -> list[Line]:
    """CPL over SOC at each size: the published ratio, on the paper's own kind of machine."""
    return [
        line for what, value, quantity, size in _cpl_soc() for line in compared(
            evidence, what, value, NOT_PUBLISHED,
            partial(ratio, above=("cpl", size), below=("soc", size), quantity=quantity),
            lambda ours, value=value: near(value, ours, RATIO * value), tolerance=RATIO * value,
            misfit=partial(_other_machine, quantity=quantity),
        )
    ]  # fmt: skip


def _cpl_soc() -> list[tuple[str, float, str, str]]:
    found = []
    for quantity, words in CIRCUMSTANCES.items():
        table = theirs_cost(quantity)
        found += [(f"{words}, {size}: CPL over SOC", table["cpl", size] / table["soc", size], quantity, size)
                  for size in SIZES]  # fmt: skip
    return found


def _other_machine(config: dict, quantity: str) -> str:
    """Sizes of ratios depend on the pictures and the machine; the allocator's bytes on any GPU are the same."""
    pictures = (config["image_size"], config["batch_size"]) == (32, BATCH)
    if quantity == "train_seconds" and not (pictures and "A100" in config["machine"]):
        return f"the published size is that of an A100 at 32x32, batch {BATCH}"
    if not (pictures and config["device"] == "cuda"):
        return f"the published size is that of a GPU at 32x32, batch {BATCH}"
    return ""


def check_overhead(evidence: Evidence) -> list[Line]:
    """The folded network over the unconstrained one: bytes everywhere, time on a GPU.

    By the paper's own Table 1 the input transformations are the same.
    """
    table = published.complexity()
    lines = []
    for layer in FREE:
        columns = ["input_operations", "input_macs", "input_memory"]
        same = AGREES if (table.loc[layer, columns] == table.loc["standard", columns]).all() else DIFFERS
        for quantity, words, misfit in (
            ("folded_peak_bytes", "inference memory", lambda config: ""),
            ("folded_seconds", "inference time", _not_a_gpu),
        ):
            for size in SIZES:
                lines += compared(
                    evidence, f"{words}, {size}: {display_name(layer)} folded over unconstrained", 1.0, same,
                    partial(ratio, above=(layer, size), below=("standard", size), quantity=quantity),
                    lambda ours: near(1, ours, NOISE), tolerance=NOISE, misfit=misfit,
                )  # fmt: skip
    return lines


def _not_a_gpu(config: dict) -> str:
    return "" if config["device"] == "cuda" else (
        "Figure 3 is of a GPU; on a shared CPU the times of one and the same convolution differ by more than 5 %"
    )  # fmt: skip


def check_grows(evidence: Evidence, quantity: str) -> list[Line]:
    """A line per layer: the least ratio of one size to the next smaller one."""
    table, lines = theirs_cost(quantity), []
    for layer in published.complexity().index:
        sizes = [size for size in SIZES if (layer, size) in table]
        least = min(table[layer, b] / table[layer, a] for a, b in pairwise(sizes))
        lines += compared(
            evidence, f"{CIRCUMSTANCES[quantity]}, {display_name(layer)}: one size over the one before", least,
            at_least(1, exact(least), NOISE), partial(_growth, layer=layer, quantity=quantity),
            lambda ours: at_least(1, ours, NOISE), tolerance=NOISE,
        )  # fmt: skip
    return lines


def _growth(rows: Rows, layer: str, quantity: str) -> Estimate | None:
    sizes = [size for size in SIZES if (layer, size) in rows]
    ratios = [ratio(rows, (layer, b), (layer, a), quantity) for a, b in pairwise(sizes)]
    return min(ratios, key=lambda found: found.value) if ratios else None


_FILE = "train_time_memory_figure_values.csv"
CLAIMS = (
    Claim(
        id="cpl-cheaper-than-soc", place="Figures 2 and 4, text",
        statement="A training step of CPL takes less time and memory than one of SOC, at every size.",
        needs="measurements of CPL and SOC under the same circumstances, any pictures and machine",
        tolerance="ratio at most 1 within the interval", published=(_FILE,), check=check_cheaper,
    ),
    Claim(
        id="cpl-soc-ratio", place="Figures 2 and 4",
        statement="How small CPL's time and memory of a training step are, as shares of SOC's.",
        needs=f"measurements of CPL and SOC at 32x32, batch {BATCH}: time on an A100, memory on any GPU",
        tolerance=f"{100 * RATIO:g} % of the published ratio", published=(_FILE,), check=check_ratio,
    ),
    Claim(
        id="no-inference-overhead", place="Table 1, Figure 3, text",
        statement="Evaluated with cached weights AOL and BCOP cost what the unconstrained convolution costs.",
        needs="measurements of AOL, BCOP and standard under the same circumstances; for times on a GPU",
        tolerance=f"{100 * NOISE:g} % beyond the intervals of both", published=("complexity_table1.csv",),
        check=check_overhead,
    ),
    *(
        Claim(
            id=f"{name}-grows", place=place,
            statement=f"The {words} grows with the size of the network, for every layer.",
            needs="measurements of a layer at two sizes or more, under the same circumstances",
            tolerance=f"a fall of up to {100 * NOISE:g} %", published=(_FILE,),
            check=partial(check_grows, quantity=key),
        )
        for key, words, name, place in (
            ("train_seconds", "training time", "time", "Figure 2"),
            ("train_peak_bytes", "training memory", "memory", "Figure 4"),
        )
    ),
)  # fmt: skip
