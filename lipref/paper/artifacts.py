"""The files of a table or figure: figures as PNG and PDF, tables as CSV, Markdown and LaTeX."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from lipref.runs.overview import to_markdown
from lipref.runs.records import make_folder
from lipref.tensor_files import replace_file

_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")


def save(
    out: str | Path, name: str, *, table: pd.DataFrame | None = None, people: pd.DataFrame | None = None,
    notes: str = "", figure=None,
) -> list[Path]:  # fmt: skip
    """Write what is given into the folder ``out``; an empty ``out`` writes nothing. Returns the paths.

    Args:
        name: the files are ``name.csv``, ``name.md``, ``name.tex``, ``name.png`` and ``name.pdf``.
        table: all numbers, tidy; goes into the CSV.
        people: the table as people read it, text; goes into Markdown and LaTeX.
        notes: Markdown below the table.
        figure: a matplotlib figure.
    """
    if not str(out):
        return []
    folder, written = make_folder(Path(out)), []

    def write(suffix: str, text: str) -> None:
        path = folder / f"{name}{suffix}"
        replace_file(path, text.encode())
        written.append(path)

    if table is not None:
        write(".csv", table.to_csv(index=False, lineterminator="\n"))
    if people is not None:
        write(".md", f"{to_markdown(people)}\n\n{notes}\n" if notes else f"{to_markdown(people)}\n")
        write(".tex", to_latex(people))
    if figure is not None:
        from lipref.paper import style

        written += style.save(figure, folder / name)
    return written


class Shown:
    """A table as notebooks show it: without the numbers of its rows."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame

    def __repr__(self) -> str:
        return self.frame.to_string(index=False)

    def _repr_html_(self) -> str:
        return self.frame.to_html(index=False, border=0)


def to_latex(frame: pd.DataFrame) -> str:
    """A LaTeX table (booktabs), by pandas; raised and lowered digits and signs become mathematics."""
    text = frame.to_latex(index=False, escape=True, column_format="l" + "r" * (len(frame.columns) - 1))
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda found: f"$^{{{found[0].translate(_RAISED)}}}$", text)
    text = re.sub("[₀₁₂₃₄₅₆₇₈₉]+", lambda found: f"$_{{{found[0].translate(_LOWERED)}}}$", text)
    return text.replace("±", "$\\pm$").replace("×", "$\\times$")
