"""What the report links to, in one folder: the data that the items were drawn from, and the committed notebooks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from lipref.errors import LiprefError
from lipref.paths import ROOT
from lipref.report.items import Item
from lipref.report.parameters import parameters_of
from lipref.runs.records import make_folder
from lipref.tensor_files import replace_file


def gather_data(items: Sequence[Item], out: Path, results: Sequence[Path] = ()) -> dict[str, tuple[Path, ...]]:
    """The data of each item, by its name: files below ``out``, so that the folder is whole in itself.

    Args:
        items: Their ``inputs`` are looked for.
        out: The folder; what is not in it yet is copied to the same place below it (``out/data/...``).
        results: Folders below ``out`` that the items were drawn from: a file of theirs stands for the committed one of
            the same name in ``data/results``.

    Raises:
        LiprefError: a file that cannot be read or written.
    """
    found = {}
    for item in items:
        paths = []
        for name in item.inputs:
            own = [folder / Path(name).name for folder in results if (folder / Path(name).name).is_file()]
            committed = name.startswith("data/results/")
            paths.append(own[0] if own and committed else _copied(ROOT / name, out / name))
        found[item.name] = tuple(dict.fromkeys(paths))
    return found


def gather_committed(items: Sequence[Item], figures: Path, out: Path) -> list[tuple[Item, Path]]:
    """Copy the committed notebooks and their files below ``out``, as if they had just been executed there.

    Args:
        items: The notebooks.
        figures: The folder with their files.
        out: Gets ``notebooks/`` and ``figures/``.

    Raises:
        LiprefError: a file that cannot be read or written.
    """
    copies = []
    for item in items:
        for name in item.outputs:
            _copied(figures / name, out / "figures" / name)
        node = json.loads(item.notebook.read_text(encoding="utf-8"))
        used = {name: parameter.default for name, parameter in parameters_of(item.notebook).items()}
        node["metadata"]["papermill"] = {"parameters": used | {"out": "../figures"}}
        place = make_folder(out / "notebooks") / item.notebook.name
        replace_file(place, f"{json.dumps(node, indent=1, ensure_ascii=False)}\n".encode())
        copies.append((item, place))
    return copies


def _copied(source: Path, place: Path) -> Path:
    try:
        content = source.read_bytes()
    except OSError as error:
        raise LiprefError(f"{source} cannot be read ({error.strerror}): the map names it as data") from None
    make_folder(place.parent)
    replace_file(place, content)
    return place
