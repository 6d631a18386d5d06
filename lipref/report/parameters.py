"""The parameters of a notebook: what it takes, and whether given values fit.

papermill only warns of an unknown name, lets a notebook without the tag run with its own values, and hands text on as
text. Here each of these is an error.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from lipref.errors import LiprefError
from lipref.extras import require
from lipref.report.kernels import one_line

TYPES = ("str", "int", "float", "bool")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a notebook: ``type`` is "str", "int", "float" or "bool"; ``help`` the comment on its line."""

    name: str
    type: str
    default: str | int | float | bool
    help: str


def read_notebook(path: Path) -> Any:
    """A notebook as nbformat's node, version 4.

    Raises:
        LiprefError: it is missing or damaged.
    """
    nbformat = require("nbformat")
    try:
        notebook = nbformat.read(Path(path), as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # nbformat raises whatever damaged JSON makes it stumble over
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise LiprefError(f"{path} cannot be read as a notebook ({reason}): check the path, or restore it") from error
    return notebook


def parameters_of(notebook: Path) -> dict[str, Parameter]:
    """The parameters of a notebook, from its one cell tagged ``parameters``.

    Every statement of that cell is an annotated assignment of a literal, ``dataset: str = "digits"  # which images``.
    The cell is parsed as Python: papermill's own inspection reads line by line and skips what it does not understand.

    Raises:
        LiprefError: no such cell or several, or a statement that is not of that form.
    """
    cells = read_notebook(notebook).cells
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1 or tagged[0].cell_type != "code":
        raise LiprefError(
            f"{notebook} has {len(tagged)} cells tagged 'parameters': tag exactly one code cell, else values that are "
            "given are overwritten or lost"
        )
    if any("injected-parameters" in cell.metadata.get("tags", []) for cell in cells):
        raise LiprefError(f"{notebook} has a cell tagged 'injected-parameters': give the notebook, not its execution")
    source = tagged[0].source
    found: dict[str, Parameter] = {}
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise LiprefError(f"{notebook}: the cell tagged 'parameters' is not Python ({error}): correct it") from error
    comments = {
        token.start[0]: token.string.lstrip("# ").rstrip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    for statement in statements:
        where = f"{notebook}, the line {ast.unparse(statement)!r} of its parameters"
        kind = ast.unparse(statement.annotation) if isinstance(statement, ast.AnnAssign) else None
        if kind not in TYPES or not isinstance(statement.target, ast.Name) or statement.value is None:
            raise LiprefError(f"{where}: write name: type = value with a type of {', '.join(TYPES)}, and nothing else")
        name = statement.target.id
        try:
            default = ast.literal_eval(statement.value)
        except ValueError as error:
            raise LiprefError(f"{where}: give a literal default, not an expression") from error
        if name in found:
            raise LiprefError(f"{where}: {name} is there twice; keep one")
        found[name] = Parameter(name, kind, _value(where, default, kind), comments.get(statement.end_lineno, ""))
        if isinstance(default, str) and kind != "str":
            raise LiprefError(f"{where}: its default is text; write it as {kind}")
    return found


def check(notebook: Path, given: Mapping[str, object]) -> dict[str, Any]:
    """The given values as the notebook's parameters want them.

    Text from a command line or a YAML file becomes the annotated type: ``"1e-3"`` a float, ``"10"`` an int, ``"true"``
    and ``"false"`` a bool. An int is good for a float.

    Raises:
        LiprefError: an unknown name, or a value that is not of the parameter's type.
    """
    known = parameters_of(notebook)
    unknown = sorted(set(given) - set(known))
    if unknown:
        names = ", ".join(known) or "none"
        raise LiprefError(f"{Path(notebook).name} has no parameter {', '.join(unknown)}: it takes {names}")
    return {name: _value(f"{Path(notebook).name}: {name}", value, known[name].type) for name, value in given.items()}


def _value(where: str, value: object, kind: str) -> str | int | float | bool:
    wanted = {"str": "text", "int": "a whole number", "float": "a finite number", "bool": "true or false"}[kind]
    refusal = LiprefError(f"{where} is {value!r}, not of type {kind}: give {wanted}")
    number = not isinstance(value, bool)
    try:
        if kind == "str" and isinstance(value, str | Path):
            return str(value)
        if kind == "bool" and str(value).lower() in ("true", "false") and isinstance(value, str | bool):
            return str(value).lower() == "true"
        if kind == "int" and (isinstance(value, str) or (isinstance(value, Integral) and number)):
            return int(value)
        if kind == "float" and (isinstance(value, str) or (isinstance(value, Real) and number)):
            result = float(value)
            if abs(result) < float("inf") and (isinstance(value, str) or result == value):
                return result
    except (ValueError, OverflowError):
        raise refusal from None
    raise refusal
