"""The paper's Table 1 as symbols: what each method costs in training, to leading order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sympy


@dataclass(frozen=True)
class Complexity:
    """One row of Table 1 (Prach et al., CVPR 2024): leading terms per layer and training forward.

    ``operations`` in words, multiply-accumulates and stored numbers as sympy expressions in b (batch), s (image
    side), c (channels), k (kernel side), t (inner iterations; SOC: t1 series terms, t2 power iterations), once for
    the input and once for the parameter transformation.
    """

    input_operations: str
    input_macs: sympy.Expr
    input_memory: sympy.Expr
    parameter_operations: str
    parameter_macs: sympy.Expr
    parameter_memory: sympy.Expr


@cache
def symbols() -> dict[str, sympy.Expr]:
    """The symbols b, s, c, k, t, t1, t2, and the table's shorthands C, M, P written out.

    ``C = b s^2 c^2 k^2``, ``M = b s^2 c``, ``P = c^2 k^2``.
    """
    import sympy  # a second to import, and needed for tables only

    names = sympy.symbols("b s c k t t1 t2", positive=True)
    b, s, c, k, *_ = names
    table = dict(zip(["b", "s", "c", "k", "t", "t1", "t2"], names, strict=True))
    return table | {"C": b * s**2 * c**2 * k**2, "M": b * s**2 * c, "P": c**2 * k**2, "half": sympy.Rational(1, 2)}
