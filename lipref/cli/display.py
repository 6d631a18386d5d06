"""What people see while runs are under way, and at their end."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from lipref.runs.records import RunConfig
from lipref.runs.sweeps import Step
from lipref.training.config import TrainingConfig


class Display:
    """One progress display for a whole comparison: a bar for everything, and a line for every task under way.

    On a terminal it is drawn in place; elsewhere a line is printed as each run ends.
    """

    def __init__(self, console: Console, tasks: list[tuple[str, str]]) -> None:
        self.console = console
        self.shares = dict.fromkeys(tasks, 0.0)
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:3.0f}%"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}", markup=False),
            console=console,
            transient=True,
        )
        self.whole = self.progress.add_task("all", total=len(tasks), numbers="")
        self.lines: dict[tuple[str, str], TaskID] = {}

    def __enter__(self) -> Display:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def listen(self, step: Step) -> None:
        """Draw where a task is."""
        self.shares[step.task] = step.share
        self.progress.update(self.whole, completed=sum(self.shares.values()))
        if step.progress is None:
            if step.task in self.lines:
                self.progress.remove_task(self.lines.pop(step.task))
            return
        size, layer = step.task
        if step.task not in self.lines:
            self.lines[step.task] = self.progress.add_task("", total=1.0, numbers="")
        seen = step.progress
        numbers = f"loss {seen.loss:.3f}  accuracy {100 * seen.accuracy:.1f} %  CRA {100 * seen.cra:.1f} %"
        what = printable(f"{layer} {size}, {step.what}")
        self.progress.update(self.lines[step.task], completed=step.share, description=what, numbers=numbers)

    def note(self, text: str) -> None:
        """Print a line that stays."""
        say(text, self.console)

    def finished(self, record: dict) -> None:
        """Print the line that stays of a finished run."""
        config = record["config"]
        self.note(f"{config['layer']:10} {config['size']:3} seed {config['settings']['seed']}: {outcome(record)}")
        for notice in record.get("notices", []):
            self.note(f"{config['layer']:10} {config['size']:3} {notice}")


class Count:
    """A progress bar over a number of things, the current one by name. Elsewhere than on a terminal it is silent."""

    def __init__(self, console: Console, what: str) -> None:
        self.progress = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), MofNCompleteColumn(),
            TimeElapsedColumn(), TextColumn("{task.fields[name]}", markup=False),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self.task = self.progress.add_task(what, total=None, name="")

    def __enter__(self) -> Count:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def update(self, done: int, total: int, name: str) -> None:
        """``done`` of ``total`` are done, ``name`` is under way."""
        self.progress.update(self.task, completed=done, total=total, name=printable(name))


def console() -> Console:
    """Where results and progress go: standard output."""
    return Console()


def printable(text: str) -> str:
    """``text`` with escapes for what a terminal obeys (control characters) or cannot get (bytes that are not UTF-8)."""

    def escape(found: re.Match) -> str:
        sign = found[0]
        return f"\\x{ord(sign) - 0xDC00:02x}" if "\udc80" <= sign <= "\udcff" else repr(sign)[1:-1]

    return re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", escape, text)


def say(text: str, where: Console | None = None) -> None:
    """Print a line as it is, whatever the width of the terminal."""
    (where or console()).print(Text(printable(text)), soft_wrap=True)  # Text: brackets and colons are no markup


def outcome(record: dict) -> str:
    """A record's result in one line."""
    if record["status"] != "done":
        fault = record["diverged"]
        where = f"step {fault['step']} (epoch {fault['epoch']}), layer {fault['layer']}"
        return f"diverged at {where}: {fault['what']}; try a lower --learning-rate or another seed"
    certificate = record["certificate"]
    cra = "  ".join(f"CRA({eps}) {100 * share['value']:.1f} %" for eps, share in certificate["cra"].items())
    bound = f"L {certificate['lipschitz_bound']:.6g}" if certificate["proved"] else "not proved (L = 1 assumed)"
    compiling = record.get("compile_seconds", 0.0)
    seconds = f"{record['train_seconds']:.0f} s" + (f" + {compiling:.0f} s compiling" if compiling else "")
    return f"accuracy {100 * certificate['accuracy']['value']:.1f} %  {cra}  {bound}  {seconds}"


def print_place(console: Console, record: dict, root: Path) -> None:
    """Where the record of a run lies, and where its learning rate comes from."""
    config = RunConfig(**(record["config"] | {"settings": TrainingConfig(**record["config"]["settings"])}))
    rate = f"learning rate {config.settings.learning_rate:.3g} ({record['notes']['hyperparameters']})"
    path = root / config.folder / "record.json"
    say(f"{rate}, record: {path}", console)


def print_table(console: Console, frame: pd.DataFrame) -> None:
    """A table of strings, never cut: where the terminal is too narrow, lines wrap in their cells."""
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in frame.columns:
        table.add_column(Text(printable(str(name))), justify="left" if name == "layer" else "right", overflow="fold")
    for line in frame.itertuples(index=False):
        table.add_row(*(Text(printable(str(value))) for value in line))
    console.print(table)
