"""That the layers are 1-Lipschitz in evaluation, that runs say so, and the layer that is not."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from lipref.errors import LiprefError
from lipref.paper import published
from lipref.paper.claims.claim import Claim, Line
from lipref.paper.claims.estimate import Estimate, at_least, at_most, exact
from lipref.paper.claims.evidence import Evidence, shown
from lipref.paper.comparison import AGREES, DIFFERS
from lipref.paper.style import display_name
from lipref.paths import PAPER

ROUNDING = 1e-6  # of float32 in the published layers, of the proofs' allowances in ours


def seven() -> list[str]:
    """The layers that the paper compares."""
    return [layer for layer in published.complexity().index if layer != "standard"]


def check_bounds(evidence: Evidence) -> list[Line]:
    """A line per layer: the largest constant of the authors' layer in evaluation, and the largest that ours prove."""
    measured = pd.read_csv(PAPER / "lipschitz_measured_layers.csv").query("mode == 'eval'")
    # The plain layer, and AOL with the initialisation of the published networks; not the variants in brackets.
    names = measured.method.replace({"AOL (Dirac init)": "AOL"}).map(published.layer_name)
    largest = measured.groupby(names).sigma_max.max()
    lines = []
    for layer in seven():
        theirs = exact(float(largest[layer]))
        ours, note, files = _proved(evidence, layer)
        lines.append(Line(
            what=f"{display_name(layer)}: largest constant in evaluation", published=theirs.value,
            supported=at_most(1, theirs, ROUNDING), ours=ours, tolerance=ROUNDING,
            verdict=at_most(1, ours, ROUNDING), note=note, files=files,
        ))  # fmt: skip
    return lines


def _proved(evidence: Evidence, layer: str) -> tuple[Estimate, str, tuple[str, ...]]:
    """The largest bound of a network or of one of its layers, over all records; infinite where one is not proved."""
    largest, files = [], []
    for record, path in evidence.runs:
        config = record["config"]
        if config["layer"] != layer or config["layer_sha256"] is not None or record["status"] != "done":
            continue
        bounds = [record["certificate"]["lipschitz_bound"], *(bound for *_, bound in record.get("layer_bounds", []))]
        proved = record["certificate"]["proved"] and all(bound is not None for bound in bounds)
        largest.append(max(bounds) if proved else math.inf)
        files.append(path)
    if not largest:
        return Estimate(), "", ()
    note = f"{len(largest)} networks" if math.isfinite(max(largest)) else "a bound is not proved"
    return exact(max(largest)), note, tuple(dict.fromkeys(files))


def check_logged(evidence: Evidence) -> list[Line]:
    """A line per layer: the share of runs whose log, or record, has a constant that was computed from all layers."""
    logged, lines = published.logged_constants(), []
    for layer in seven():
        constants = logged[logged.layer == layer].constant
        share = exact(100 * float((constants != 1).mean()))
        mine = [(record, path) for record, path in evidence.runs
                if record["config"]["layer"] == layer and record["status"] == "done"]  # fmt: skip
        whole = [record for record, _ in mine if record["certificate"]["proved"] and _counts_all(record)]
        ours = exact(100 * len(whole) / len(mine)) if mine else Estimate()
        lines.append(Line(
            what=f"{display_name(layer)}: runs with a constant of the whole network", unit="% of runs",
            published=share.value, supported=AGREES if share.value == 100 else DIFFERS, ours=ours,
            verdict=at_least(100, ours),
            note="" if share.value else "exactly 1 in every log: no layer of this kind was visited",
            files=tuple(dict.fromkeys(path for _, path in mine)),
        ))  # fmt: skip
    return lines


def _counts_all(record: dict) -> bool:
    """Whether the network's bound is the product of all its layers' bounds, as far as rounding goes."""
    bounds = [bound for *_, bound in record.get("layer_bounds", [])]
    if not bounds or any(bound is None for bound in bounds):
        return False
    return math.isclose(math.prod(bounds), record["certificate"]["lipschitz_bound"], rel_tol=ROUNDING)


def check_eco(evidence: Evidence) -> list[Line]:
    """The largest constant of an ECO layer on sides that are powers of two: above 1."""
    measured = pd.read_csv(PAPER / "lipschitz_measured_layers.csv").query("mode == 'eval' and method == 'ECO'")
    theirs = exact(float(measured.sigma_max.max()))
    found = [(value, path) for path in _excluded(evidence) for value in _eco_constants(path)]
    ours = exact(max(value for value, _ in found)) if found else Estimate()
    above = 1 + ROUNDING
    return [Line(
        what="ECO: largest constant on a power-of-two side", published=theirs.value,
        supported=at_least(above, theirs), ours=ours, tolerance=ROUNDING,
        verdict=at_least(above, ours),
        files=tuple(dict.fromkeys(shown(path) for _, path in found)),
    )]  # fmt: skip


def _excluded(evidence: Evidence) -> list[Path]:
    return sorted(path for root in evidence.roots for path in (root / "excluded").glob("*.csv"))


def _eco_constants(path: Path) -> list[float]:
    """Constants of ECO on sides that are powers of two, from a table that has a column for each.

    Where no column names the layer, the file does: ``eco_sides.csv``.
    """
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise LiprefError(f"{shown(path)} is damaged ({error}); write it again") from error
    layer, side = _column(table, ("layer", "method")), _column(table, ("side", "image_size", "height", "n"))
    constant = _column(table, ("sigma_max", "constant", "norm", "largest", "exact"))
    if side is None or constant is None:
        return []
    names = table[layer] if layer else pd.Series(path.stem.split("_")[0], index=table.index)
    eco = table[names.astype(str).str.lower().eq("eco")]
    sides, values = (pd.to_numeric(eco[column], errors="coerce") for column in (side, constant))
    kept = [(int(n), value) for n, value in zip(sides, values, strict=True) if n == n and value == value]
    return [float(value) for n, value in kept if n >= 2 and not n & (n - 1)]


def _column(table: pd.DataFrame, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in table.columns), None)


CLAIMS = (
    Claim(
        id="bounds", place="text, authors' code",
        statement="In evaluation all seven layers are 1-Lipschitz.",
        needs="runs of the seven layers, any data set: their proved bounds", tolerance=f"{ROUNDING:g}, for rounding",
        published=("lipschitz_measured_layers.csv",), check=check_bounds,
    ),
    Claim(
        id="logged-constants", place="Authors' logs of the 24 h runs",
        statement="The log of a run has the Lipschitz constant of the whole network.",
        needs="runs of the seven layers, any data set: a proved bound of every layer", tolerance="none",
        published=("cifar10_24h_runs.csv",), check=check_logged,
    ),
    Claim(
        id="eco-not-1-lipschitz", place="Appendix B, Figure 6",
        statement="ECO is not 1-Lipschitz in these networks, whose images have power-of-two sides.",
        needs="a table of constants of ECO by side in data/results/excluded", tolerance=f"{ROUNDING:g}, for rounding",
        published=("lipschitz_measured_layers.csv",), check=check_eco,
    ),
)  # fmt: skip
