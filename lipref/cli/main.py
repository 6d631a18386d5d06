"""The command line: ``lipref train``, ``certify``, ``predict``, ``attack``, ``measure``, ``reproduce``, and more."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from lipref.cli import display
from lipref.cli.attack import attack
from lipref.cli.bench import bench
from lipref.cli.certify import audit, certify, predict
from lipref.cli.count import count
from lipref.cli.excluded import excluded
from lipref.cli.gpu import gpu
from lipref.cli.growth import growth
from lipref.cli.measure import measure
from lipref.cli.notebooks import batch, figures, report
from lipref.cli.plan import plan
from lipref.cli.profile import profile
from lipref.cli.race import race
from lipref.cli.reproduce import reproduce
from lipref.cli.soundness import soundness
from lipref.cli.timed import timed
from lipref.cli.train import train
from lipref.cli.verify import verify
from lipref.errors import LiprefError
from lipref.layers import LAYERS
from lipref.layers.registry import excluded as excluded_layers

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="1-Lipschitz layers compared: train, certify, predict, measure, and draw.",
)  # fmt: skip


def _at_home(value: Any) -> Any:
    """``value`` of an option, ``~`` replaced by the home folder where it begins a path: shells do not after ``=``."""
    if isinstance(value, list):
        return [_at_home(each) for each in value]
    if isinstance(value, Path):
        return Path(os.path.expanduser(value))
    if isinstance(value, str):  # such as imagefolder:~/pictures, aol,~/mine.py:Mine or records=~/runs
        return re.sub(r"(?<![^:,;=@])~[^/:,;]*(?=/)", lambda found: os.path.expanduser(found[0]), value)
    return value


def _expanding(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def called(**options: Any) -> None:
        command(**{name: _at_home(value) for name, value in options.items()})

    return called


for command in (
    train, certify, audit, predict, attack, soundness, excluded, measure, bench, count, growth, profile, race, gpu,
    timed, plan, reproduce, verify, figures, report, batch,
):  # fmt: skip
    app.command()(_expanding(command))


@app.command("layers")
def list_layers() -> None:
    """List the layers that every command knows by name."""
    for name, cls in LAYERS.items():
        typer.echo(_described(name, cls))
    typer.echo("excluded by the paper, and not part of 'all':")
    for name, cls in excluded_layers().items():
        typer.echo(_described(name, cls))


def _described(name: str, cls: type) -> str:
    return f"{name:10} {(cls.__doc__ or '').strip().splitlines()[0]}"


def main() -> None:
    """Run the command line; a `LiprefError` is one line on standard error and exit code 2."""
    # A sign that the terminal cannot show is no reason to lose what a command has computed.
    sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(standalone_mode=True)
    except LiprefError as error:
        print(display.printable(f"error: {error}").replace("\n", "\\n"), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
