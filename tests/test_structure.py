"""The house's arrows: nothing below knows of anything above (docs/design.md)."""

import ast
from pathlib import Path

import lipref

PACKAGE = Path(lipref.__file__).parent
# From the bottom up; what stands together may not import each other, except within one package.
FLOORS = [
    {"errors", "paths", "curves"},
    {"extras", "profiles"},
    {"linalg", "random_search"},
    {"activations", "layers"},
    {"nets"},
    {"losses", "data", "certify", "audit", "checkpoint", "divergence", "memory", "names", "speed"},
    {"rounding", "heads", "precision", "forward"},
    {"settings", "published", "plots", "capture"},
    {"updates", "evaluation"},
    {"resuming", "stepping"},
    {"training", "budgets"},
    {"provenance", "workloads", "fingerprint"},
    {"runs", "rounds", "pace", "ceilings"},
    {"inputs", "excluded", "step_profile"},
    {"classifier"},
    {"certificates"},
    {"experiment", "cost", "counting"},
    {"recipes", "scoring", "growth"},
    {"report", "comparison"},
    {"artifacts", "complexity", "tables", "readable", "unrun", "attacks"},
    {"plans", "sentences"},
    {"sweeps", "measurements", "soundness"},
    {"selection", "budgeting", "benchmarks", "race"},
    {"study", "display", "notebooks", "planning"},
    {"claims", "explorer", "items"},
    {"commands"},
    {"cli"},
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lipref":
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names if alias.name in FLOOR]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("lipref."))


def test_every_module_has_a_floor():
    names = {
        p.stem if p.is_file() else p.name
        for p in PACKAGE.iterdir()
        if p.suffix == ".py" or (p / "__init__.py").exists()
    }
    assert names - {"__init__"} == set(FLOOR)


def test_arrows_run_one_way():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if place == "__init__":
            continue
        wrong += [f"{path.name} imports {other}" for other in imported(path)
                  if other != place and FLOOR[other] >= FLOOR[place]]  # fmt: skip
    assert not wrong


def test_files_are_short():
    assert not [path.name for path in PACKAGE.rglob("*.py") if len(path.read_text().splitlines()) > 350]
