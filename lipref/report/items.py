"""The notebooks of the paper's items: their map, and their execution.

What they take is in `lipref.report.parameters`, how one of them is executed in `lipref.report.execute`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lipref import paths
from lipref.errors import LiprefError
from lipref.extras import require
from lipref.report.execute import Job, run_jobs
from lipref.report.kernels import one_line


@dataclass(frozen=True)
class Item:
    """One entry of the map: a table or a figure of the paper, and the notebook that makes it.

    ``name`` decides the notebook ``<folder>/<name>.ipynb`` and the names of its files; ``item`` is the paper's own name
    ("Table 2"); ``shows`` one line; ``parameters`` the names that it takes; ``inputs`` paths relative to the
    repository; ``outputs`` the names of the files that it writes; ``cost`` and ``status`` text.
    """

    name: str
    item: str
    title: str
    shows: str
    parameters: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    cost: str
    status: str
    folder: Path = paths.ROOT / "notebooks"

    @property
    def notebook(self) -> Path:
        return self.folder / f"{self.name}.ipynb"

    @property
    def of_the_paper(self) -> bool:
        """Whether it is a table or figure of the paper."""
        return self.item.startswith(("Table ", "Figure "))


KEYS = tuple(field.name for field in fields(Item) if field.name != "folder")
LISTS = ("parameters", "inputs", "outputs")


def read_map(path: Path = paths.ROOT / "notebooks" / "paper.yaml") -> list[Item]:
    """The entries of the map, in its order; their notebooks lie beside it.

    Raises:
        LiprefError: not YAML, not a list of mappings with exactly the keys of an `Item`, values of another kind, two
            entries of one name, or a notebook that is missing.
    """
    entries = read_yaml(path)
    if not isinstance(entries, list) or not entries:
        raise LiprefError(f"{path} is not a list of entries: give one mapping per notebook, with {', '.join(KEYS)}")
    items: dict[str, Item] = {}
    for number, entry in enumerate(entries, 1):
        where = f"{path}, entry {number}"
        if not isinstance(entry, dict):
            raise LiprefError(f"{where} is not a mapping: give the keys {', '.join(KEYS)}")
        for verb, wrong in (("lacks", set(KEYS) - set(entry)), ("has the unknown", set(entry) - set(KEYS))):
            if wrong:
                names = ", ".join(sorted(map(str, wrong)))
                raise LiprefError(f"{where} {verb} {names}: the keys are {', '.join(KEYS)}")
        for key, value in entry.items():
            good = isinstance(value, str) and value.strip()
            if key in LISTS:
                good = isinstance(value, list) and all(isinstance(name, str) for name in value)
            if not good:
                raise LiprefError(f"{where}: {key} is {value!r}: give {'a list of texts' if key in LISTS else 'text'}")
        values = {key: tuple(value) if key in LISTS else value for key, value in entry.items()}
        item = Item(**values, folder=Path(path).parent)
        if item.name in items:
            raise LiprefError(f"{where} has the name {item.name!r} of an earlier entry: names must differ")
        if not item.notebook.is_file():
            raise LiprefError(f"{where}: the notebook {item.notebook} is missing: write it, or correct the name")
        items[item.name] = item
    return list(items.values())


def read_yaml(path: Path) -> Any:
    """The contents of a YAML file.

    Raises:
        LiprefError: it cannot be read, or is not YAML.
    """
    yaml = require("yaml")
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LiprefError(f"{path} cannot be read as YAML ({one_line(error)}): correct it") from error


def execute_all(
    jobs: Sequence[tuple[Item, Path, Mapping[str, object]]],
    *,
    out: Path | None = None,
    workers: int = 1,
    timeout: int | None = None,
    on_cell: Callable[[Item, int, int], None] | None = None,
) -> Iterator[tuple[Item, Path | LiprefError]]:
    """`execute` the notebooks of several items, each ``(item, destination, given)``, on ``workers`` kernels at a time.

    Yields:
        An item and its executed notebook, or the error that ended it, as they end. One failure stops no other.

    Raises:
        LiprefError: ``workers`` is not positive, or two jobs have one destination.
        KeyboardInterrupt: on an interrupt; all kernels are stopped first.
    """

    def told(item: Item) -> Callable[[int, int], None] | None:
        return None if on_cell is None else lambda done, total: on_cell(item, done, total)

    todo = [
        Job(item.notebook, destination, given, item.outputs, out, timeout, told(item))
        for item, destination, given in jobs
    ]
    for number, result in run_jobs(todo, workers):
        yield jobs[number][0], result if isinstance(result, LiprefError) else result.notebook
