"""``lipref verify``: the paper's claims, one by one, against its own numbers and against ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from lipref.cli import display
from lipref.layers import LAYERS
from lipref.paper import claims
from lipref.runs.overview import to_markdown
from lipref.runs.records import make_folder
from lipref.tensor_files import replace_file


def verify(
    records: Annotated[
        list[Path] | None,
        typer.Option(help="A folder with records.json or costs.json; again for more. Default: all that are committed."),
    ] = None,
    only: Annotated[str | None, typer.Option(help="Comma-separated ids of claims; default all.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for verify.csv and verify.md; default none.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="What has not been run fails too.")] = False,
) -> None:
    """Check the paper's claims; the exit code is 1 where one of our values differs, else 0.

    Published numbers that do not support a claim have a column of their own and change nothing. With --only the single
    values are shown too.
    """
    chosen = claims.chosen(only)
    evidence = claims.Evidence(records)
    table = claims.check(chosen, evidence)
    people = claims.by_claim(table, chosen)
    console = display.console()
    if only is not None:
        display.print_table(console, claims.by_value(table).drop(columns=["claim", "evidence"]))
    display.print_table(console, people.drop(columns=["statement", "where"]))
    display.say(claims.say(table))
    if out is not None:
        folder = make_folder(out)
        replace_file(folder / "verify.csv", table.to_csv(index=False, lineterminator="\n").encode())
        replace_file(folder / "verify.md", page(table, people, evidence).encode())
        display.say(f"Tables: {folder / 'verify.csv'}, {folder / 'verify.md'}")
    raise typer.Exit(claims.exit_code(table, strict))


def page(table: pd.DataFrame, people: pd.DataFrame, evidence: claims.Evidence) -> str:
    """The Markdown of ``verify.md``: a row per claim, a row per value, and what would fill the gaps."""
    todo = "\n\n".join(claims.todo(evidence, LAYERS))
    return (
        f"# The paper's claims\n\n{claims.say(table)}\n\n{to_markdown(people)}\n\n{claims.READING}\n\n## Values\n\n"
        f"{to_markdown(claims.by_value(table))}\n" + (f"\n## Not run\n\n{todo}\n" if todo else "")
    )
