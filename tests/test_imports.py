"""What imports what: no cycles, and the library knows nothing of what reproduces the paper with it."""

import ast
import graphlib
from pathlib import Path

import lipref

PACKAGE = Path(lipref.__file__).parent
# The library: these folders, and beside them these files.
FOLDERS = {"attacks", "certification", "data", "layers", "linalg", "training"}
FILES = {"activations", "errors", "extras", "losses", "nets", "paths", "tensor_files"}


def dotted(path):
    """``lipref.layers.aol`` of its file; a package of its ``__init__.py``."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {dotted(path): path for path in PACKAGE.rglob("*.py")}


def imports(path, inside_functions):
    """The modules that a file imports when it is imported, and with ``inside_functions`` ever."""

    def nodes(parents):
        for node in parents:
            function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
            if not checking and (inside_functions or not function):
                yield node
                yield from nodes(ast.iter_child_nodes(node))

    for node in nodes(ast.parse(path.read_text()).body):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_no_module_imports_itself_by_way_of_others():
    graph = {
        name: {other for other in imports(path, inside_functions=False) if other in MODULES and other != name}
        for name, path in MODULES.items()
    }
    list(graphlib.TopologicalSorter(graph).static_order())  # raises the cycle


def in_library(name):
    part = name.split(".")[1] if "." in name else ""
    return part in FOLDERS | FILES or name == "lipref.runs.provenance"  # every file that is written names its origin


def test_the_library_imports_nothing_of_the_other_half():
    wrong = [
        f"{name} imports {other}"
        for name, path in MODULES.items()
        if in_library(name)
        for other in imports(path, inside_functions=True)
        if other in MODULES and other != "lipref" and not in_library(other)
    ]
    assert not wrong


def test_only_notebooks_and_commands_import_reports_and_commands():
    above = {"report", "cli"}
    wrong = [
        f"{name} imports {other}"
        for name, path in MODULES.items()
        if name.split(".")[1:2] not in [["report"], ["cli"]]
        for other in imports(path, inside_functions=True)
        if other.split(".")[1:2] in [[part] for part in above]
    ]
    assert not wrong


def test_every_named_folder_and_file_is_there():
    assert all((PACKAGE / name).is_dir() for name in FOLDERS)
    assert all((PACKAGE / f"{name}.py").is_file() for name in FILES)


def test_files_are_short():
    assert not [path.name for path in PACKAGE.rglob("*.py") if len(path.read_text().splitlines()) > 350]
