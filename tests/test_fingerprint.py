"""The fingerprint of the source: of what decides numbers, of all of it, and of nothing else."""

import ast
from pathlib import Path

import pytest

import lipref
from lipref.runs.provenance import COST, NO_NUMBERS, RUN, fingerprint

PACKAGE = Path(lipref.__file__).parent
APART = ("bench", "certification", "paper", "runs")
SOURCE = {"rule.py": "X = 1\n\n\ndef f(x):\n    return x + X\n", "parts/__init__.py": "", "parts/a.py": "Y = 2\n"}


def of(folder, **changes):
    for name, text in (SOURCE | {name.replace("__", "/") + ".py": text for name, text in changes.items()}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    fingerprint.cache_clear()
    return fingerprint(("rule", "parts"), folder)


def test_it_sees_the_code_and_not_its_dress(tmp_path):
    first = of(tmp_path / "a")
    assert first == of(tmp_path / "b")
    dressed = '"""What it is."""\n# a comment\nX   = (1)\ndef f(x):\n    "Adds."\n    return (x +\n            X)\n'
    assert of(tmp_path / "c", rule=dressed) == first
    assert of(tmp_path / "d", rule=SOURCE["rule.py"].replace("1", "2")) != first
    assert of(tmp_path / "e", parts__a="Y = 3\n") != first
    assert of(tmp_path / "f", parts__b="Y = 2\n") != first  # a new file
    assert fingerprint(RUN) != fingerprint(COST)
    fingerprint.cache_clear()


def imported(path):
    """The library's modules and packages that a file imports, also inside functions: their top names.

    Of packages that reach from what decides a number to what only shows it, each module by itself.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            module = node.module or ""
            parents = ("lipref", *(f"lipref.{name}" for name in APART))
            names = [f"{module}.{alias.name}" for alias in node.names] if module in parents else [module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            _, *parts = name.split(".") if name.startswith("lipref.") else [""]
            top = "/".join(parts[:2] if parts and parts[0] in APART else parts[:1])
            if (PACKAGE / top).is_dir() or (PACKAGE / f"{top}.py").exists():
                yield from [top] if top else []


def reached(name):
    seen, waiting = set(), [name]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            place = PACKAGE / name
            for path in place.rglob("*.py") if place.is_dir() else [PACKAGE / f"{name}.py"]:
                waiting += imported(path)
    return seen


@pytest.mark.parametrize(("start", "names"), [("runs/experiment", RUN), ("bench/cost", COST)])
def test_no_module_is_forgotten(start, names):
    """A module that decides no number goes into ``NO_NUMBERS``, any other one into ``RUN`` or ``COST``."""
    found = reached(start)
    assert found - set(NO_NUMBERS) == set(names)


def test_what_decides_no_number_is_needed_somewhere():
    assert set(NO_NUMBERS) <= reached("runs/experiment") | reached("bench/cost")
