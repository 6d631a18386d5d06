"""``lipref gpu``: everything that wants a GPU, in slices."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from lipref import data
from lipref.bench import foreign
from lipref.cli import display
from lipref.cli import options as o
from lipref.cli.bench import Compared, bench
from lipref.cli.race import race
from lipref.cli.reproduce import reproduce
from lipref.cli.running import LEFT, raise_failures
from lipref.errors import LiprefError
from lipref.paths import RUNS
from lipref.runs import plans
from lipref.runs.profiles import RACE
from lipref.runs.race import ENTRIES

PROFILES = {
    "paper": {
        "bench": {"profile": "paper"}, "race": {"profile": "goals"}, "fidelity": {"sizes": "XS,S", "epochs": 100},
    },
    "short": {
        "bench": {"profile": "paper", "sizes": "S,M", "image_size": "32", "repeats": 6},
        "race": {"profile": "goals", "minutes": "1", "seeds": "0"},
    },
    "smoke": {
        "bench": {"profile": "smoke"}, "race": {"profile": "smoke"},
        "fidelity": {"sizes": "XS", "epochs": 1, "learning_rate": 0.01, "weight_decay": 3e-5},
    },
}  # fmt: skip
SEVEN = tuple(entry.layer for entry in ENTRIES)
LEAST = 20.0  # seconds: with less left a part is not begun
CHECKPOINT_SECONDS = 15.0  # what a slice may lose
AGAIN = 5.0  # seconds from one interruption to the next


def gpu(
    profile: Annotated[str, typer.Option(help="paper: everything. short: sizes S and M, one minute and one seed, "
                                         "some 20 minutes in all. smoke: tries all on a CPU.")] = "paper",
    layers: o.Layers = "all",
    dataset: Annotated[str | None, typer.Option(help="To train on, as of lipref train; default cifar10-jpeg.")] = None,
    against: Compared = None,
    device: Annotated[str, typer.Option(help="cuda or cuda:N; cpu for the profile smoke.")] = "cuda",
    weights: Annotated[bool, typer.Option(help="Keep those of the race's runs once they are certified.")] = True,
    seconds: o.Seconds = None,
    out: Annotated[Path | None, typer.Option(help="Folder; default data/runs/gpu, or gpu-PROFILE.")] = None,
    data_root: o.Root = None,
) -> None:  # fmt: skip
    """Measure and train everything that wants a GPU, one after the other: what is there is not done again.

    bench: cost at every size, beside other people's code (lipref bench --profile paper). race: certified robust
    accuracy over minutes of training (lipref race). fidelity: sizes XS and S with the paper's own hyper-parameters for
    100 epochs, to be compared with the authors' learning curves (notebooks/authors_runs.ipynb).
    """
    if profile not in PROFILES:
        raise LiprefError(f"unknown profile {profile!r}; known: {', '.join(PROFILES)}")
    if seconds is not None and not seconds > LEAST:
        raise LiprefError(f"--seconds {seconds:g}: give a number above {LEAST:g}; with less left no part is begun")
    plans.check_device(device)
    for text in against or []:
        foreign.parse(text)  # refuses it now, not after hours
    chosen, out = PROFILES[profile], out or RUNS / ("gpu" if profile == "paper" else f"gpu-{profile}")
    dataset = RACE[chosen["race"]["profile"]]["dataset"] if dataset is None else dataset
    data.shape(dataset, data_root)
    names = plans.check_layers(plans.layer_names(layers))
    seven = ",".join(name for name in names if name in SEVEN)
    if not seven:
        raise LiprefError(f"--layers {layers}: name at least one of {', '.join(SEVEN)}")
    if others := [name for name in names if name not in SEVEN]:
        display.say(f"Only bench takes {', '.join(others)}: race and fidelity are of the seven layers of the paper.")
    given = {"device": device, "data_root": data_root, "dataset": dataset}
    commands = {
        "bench": partial(bench, layers=layers, against=against, device=device),
        "race": partial(race, layers=seven, weights=weights, **given),
        "fidelity": partial(_fidelity, layers=seven, profile="smoke" if profile == "smoke" else "paper", **given),
    }
    parts = {name: partial(commands[name], out=out / name, **options) for name, options in chosen.items()}
    _one_after_the_other(parts, None if seconds is None else time.monotonic() + seconds)


def _one_after_the_other(parts: dict[str, Callable[..., None]], deadline: float | None) -> None:
    """Each part once, with the seconds that are left; what fails does not keep the others from their turn."""
    failures = []
    for place, (name, part) in enumerate(parts.items()):
        left = None if deadline is None else deadline - time.monotonic()
        ended = left is not None and left < LEAST
        if not ended:
            display.say(f"{name}:")
            try:
                part(seconds=left)
            except LiprefError as error:
                failures.append(f"{name}: {error}")
                display.say(f"failed: {failures[-1]}")
            except typer.Exit as end:
                if end.exit_code != LEFT:
                    raise
                ended = True
        if ended:
            display.say(f"Left: {', '.join(list(parts)[place:])}; the same command goes on.")
            raise typer.Exit(LEFT)
    raise_failures(failures, "parts")
    display.say("Nothing is left.")


def _fidelity(seconds: float | None, **given: object) -> None:
    """`lipref reproduce` for so many seconds: its runs go on from their checkpoints."""
    rang = False

    def ring(*_: object) -> None:
        nonlocal rang
        rang = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, ring)
    # 0: never. More than once: an interruption is lost where it falls into a callback whose errors are ignored.
    signal.setitimer(signal.ITIMER_REAL, seconds or 0, AGAIN)
    try:
        reproduce(measure=False, figures=False, checkpoint_seconds=CHECKPOINT_SECONDS, jobs=1, **given)
    except (typer.Exit, KeyboardInterrupt):  # the first is what the second becomes once the runs have begun
        if not rang:
            raise
        raise typer.Exit(LEFT) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
