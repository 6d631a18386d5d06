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
    {
        "losses",
        "data",
        "certification/certify",
        "certification/bounds",
        "checkpoint",
        "divergence",
        "memory",
        "names",
        "speed",
    },
    {"certification/float_error", "certification/pair_bounds", "certification/precision", "forward"},
    {"settings", "published", "plots", "capture"},
    {"updates", "evaluation"},
    {"resuming", "stepping"},
    {"training", "budgets"},
    {"provenance", "workloads", "fingerprint"},
    {"runs", "rounds", "pace", "ceilings"},
    {"inputs", "excluded", "step_profile"},
    {"certification/classifier"},
    {"certification/certificate"},
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
BY_MODULE = "certification"  # reaches from margins to files of certificates: each module has a floor of its own


def place(parts):
    """The name in `FLOOR` of a dotted path below lipref, or "" for a package's own ``__init__``."""
    parts = [part.removesuffix(".py") for part in parts]
    name = "/".join(parts[:2] if parts[:1] == [BY_MODULE] else parts[:1])
    return "" if name.endswith("__init__") or name == BY_MODULE else name


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lipref":
            parts = node.module.split(".")[1:]
            found = [place(parts)] if place(parts) else [place([*parts, alias.name]) for alias in node.names]
            yield from (name for name in found if name in FLOOR)
        elif isinstance(node, ast.Import):
            yield from (place(alias.name.split(".")[1:]) for alias in node.names if alias.name.startswith("lipref."))


def test_every_module_has_a_floor():
    found = [p for folder in (PACKAGE, PACKAGE / BY_MODULE) for p in folder.iterdir()]
    found = [p for p in found if p.suffix == ".py" or (p / "__init__.py").exists()]
    assert {place(p.relative_to(PACKAGE).parts) for p in found} - {""} == set(FLOOR)


def test_arrows_run_one_way():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        own = place(path.relative_to(PACKAGE).parts)
        wrong += [f"{path.name} imports {other}" for other in imported(path) if own
                  if other != own and FLOOR[other] >= FLOOR[own]]  # fmt: skip
    assert not wrong


def test_files_are_short():
    assert not [path.name for path in PACKAGE.rglob("*.py") if len(path.read_text().splitlines()) > 350]
