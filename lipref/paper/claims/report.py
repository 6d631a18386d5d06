"""What checking the claims found, as tables: one row per value, and one per claim for people."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd

from lipref.layers import LAYERS
from lipref.paper import unrun
from lipref.paper.claims.claim import NOT_PUBLISHED, Claim, overall
from lipref.paper.claims.evidence import DATASETS, Evidence
from lipref.paper.claims.networks import of_kernel, theirs
from lipref.paper.comparison import AGREES, DIFFERS, NOT_COMPARABLE, NOT_RUN

COLUMNS = (
    "claim", "place", "what", "unit", "published", "supported", "ours", "low", "high", "tolerance", "verdict", "note",
    "evidence",
)  # fmt: skip
_WORDS = {DIFFERS: "differ", AGREES: "agree", NOT_COMPARABLE: "not comparable", NOT_RUN: "not run"}
READING = (
    "*the paper's numbers*: whether its own published numbers support the claim, which decides nothing else. *ours*: "
    "the verdict from our records alone. A claim differs where one of its values does; it agrees where one does and "
    "none differs; the counts say how many there are."
)


def check(claims: Iterable[Claim], evidence: Evidence) -> pd.DataFrame:
    """Check claims: a row per value, with `COLUMNS`."""
    rows = []
    for claim in claims:
        for line in claim.check(evidence):
            files = (*(f"data/paper/{name}" for name in claim.published), *line.files)
            rows.append((
                claim.id, claim.place, line.what, line.unit, line.published, line.supported, line.ours.value,
                line.ours.low, line.ours.high, line.tolerance, line.verdict, line.note, "; ".join(files),
            ))  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def exit_code(table: pd.DataFrame, strict: bool = False) -> int:
    """1 where one of our values differs, or with ``strict`` has not been run; else 0.

    Published numbers that do not support a claim change nothing.
    """
    wrong = {DIFFERS, NOT_RUN} if strict else {DIFFERS}
    return int(table.verdict.isin(wrong).any())


def by_claim(table: pd.DataFrame, claims: Iterable[Claim]) -> pd.DataFrame:
    """A row per claim as people read it: the paper's support, ours, tolerance and verdict, as text."""
    rows = []
    for claim in claims:
        found = table[table.claim == claim.id]
        rows.append({
            "claim": claim.id, "where": claim.place, "statement": claim.statement,
            "the paper's numbers": _word(found.supported), "ours": _word(found.verdict),
            "verdict": overall(found.verdict), "tolerance": claim.tolerance,
        })  # fmt: skip
    return pd.DataFrame(rows)


def by_value(table: pd.DataFrame) -> pd.DataFrame:
    """A row per value as people read it, text."""
    rows = []
    for row in table.itertuples():
        published = f"{number(row.published)} {row.unit}".strip() if row.published == row.published else ""
        rows.append({
            "claim": row.claim, "value": row.what, "published": published, "supports": row.supported,
            "ours": interval(row), "tolerance": number(row.tolerance) if row.tolerance else "",
            "verdict": row.verdict, "note": row.note, "evidence": row.evidence,
        })  # fmt: skip
    return pd.DataFrame(rows)


def listing(table: pd.DataFrame, claims: Iterable[Claim]) -> pd.DataFrame:
    """A row per claim: what does not depend on our records, as text."""
    rows = []
    for claim in claims:
        word = overall(table[table.claim == claim.id].supported)
        rows.append((f"`{claim.id}`", claim.place, claim.statement, word if word != DIFFERS else f"**{word}**"))
    return pd.DataFrame(rows, columns=["claim", "where", "statement", "the paper's numbers"])


def grid(table: pd.DataFrame, claims: Iterable[Claim]) -> pd.DataFrame:
    """A row per claim and source: ``claim, source, verdict, text``, for the picture (`lipref.paper.verdicts`)."""
    return pd.DataFrame([
        {"claim": claim.id, "source": source, "verdict": overall(words), "text": _word(words)}
        for claim in claims
        for source, column in (("the paper's numbers", "supported"), ("ours", "verdict"))
        for words in (table[table.claim == claim.id][column],)
    ])  # fmt: skip


def say(table: pd.DataFrame) -> str:
    """The counts of all values, in a line."""
    ours = ", ".join(_counts(table.verdict))
    theirs = (table.supported == DIFFERS).sum()
    claims = table[table.supported == DIFFERS].claim.unique()
    return (
        f"{table.claim.nunique()} claims, {len(table)} values of ours: {ours}. The paper's own numbers contradict "
        f"{theirs} values of {len(claims)} claims{': ' + ', '.join(claims) if len(claims) else ''}."
    )


def contradicted(table: pd.DataFrame) -> pd.DataFrame:
    """The values by which the paper's own numbers do not support a claim, as people read them."""
    found = table[table.supported == DIFFERS]
    return pd.DataFrame({
        "claim": found.claim, "value": found.what,
        "published": [f"{number(row.published)} {row.unit}".strip() for row in found.itertuples()], "note": found.note,
    })  # fmt: skip


def missing(evidence: Evidence) -> str:
    """`todo` for all layers, a line each; or that nothing is missing."""
    return "\n".join(todo(evidence, LAYERS)) or "Nothing is missing."


def todo(evidence: Evidence, layers: Iterable[str]) -> list[str]:
    """The commands that would run what is missing, with their GPU hours; empty where nothing is."""
    found = []
    for dataset, (name, *_) in DATASETS.items():
        networks = evidence.networks(dataset)
        missing = [place for place in of_kernel(theirs(dataset, "cra"))
                   if place not in networks or networks[place].reason]  # fmt: skip
        found.append(unrun.networks(missing, name, "24h"))
    pairs = [(layer, size) for layer in layers for size in ("XS", "S", "M", "L")]
    at_32 = {place for _, config, rows in evidence.measured if config["image_size"] == 32 for place in rows}
    found.append(unrun.measurements([pair for pair in pairs if pair not in at_32 and pair != ("lot", "L")], "cifar10"))
    return [text for text in found if text]


def number(value: float) -> str:
    """A number as people read it; empty for NaN."""
    if value is None or math.isnan(value):
        return ""
    if float(value).is_integer():
        return f"{int(value):,}"
    near_one = 0 < abs(value - 1) < 5e-3
    return f"{value:.7g}" if near_one else f"{value:.3g}"


def interval(row) -> str:
    """Our value, with its interval where it has one."""
    text = number(row.ours)
    known = row.low == row.low and row.high == row.high and (row.low, row.high) != (row.ours, row.ours)
    return f"{text} [{number(row.low)}, {number(row.high)}]" if known else text


def _word(words: pd.Series) -> str:
    """``agrees``; or where the values disagree ``5 agree, 2 differ``."""
    return words.iloc[0] if words.nunique() == 1 else ", ".join(_counts(words))


def _counts(words: pd.Series) -> list[str]:
    names = _WORDS | {NOT_PUBLISHED: NOT_PUBLISHED}
    counts = {word: int((words == word).sum()) for word in names}
    return [f"{count} {word if count == 1 else names[word]}" for word, count in counts.items() if count]
