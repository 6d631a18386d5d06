"""The paper's Table 1 from the layers' own formulas, beside the printed one."""

from __future__ import annotations

import pandas as pd

from lipref.errors import LiprefError
from lipref.layers import LayerSpec
from lipref.layers.complexity import Complexity, symbols
from lipref.paper import comparison, published

# Our column -> the formulas' attribute.
PARTS = {
    "input MACs": "input_macs",
    "input memory": "input_memory",
    "parameter MACs": "parameter_macs",
    "parameter memory": "parameter_memory",
}
SHORTHANDS = (
    "b batch, s image side, c channels, k kernel side, t inner iterations (SOC: t₁ series terms, t₂ power iterations)."
)
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def table(specs: list[LayerSpec], variant: str = "both") -> pd.DataFrame:
    """Leading costs of one layer in a training step: multiply-accumulates (MACs) and stored numbers.

    The formulas are the layers' own; with the variant ``published`` they are the printed ones, and with ``both`` they
    are compared with those.

    Columns: layer, input operations, input MACs, ... as text, and ``as printed``: ``yes`` where all four formulas equal
    those of the paper's Table 1, ``no``, or empty for a layer that is not in it. A layer without ``complexity()`` (or
    without a printed row) has ``not given`` throughout.

    Raises:
        LiprefError: an unknown variant.
    """
    printed = published.complexity()
    lines = []
    for spec in specs:
        row = _row_of(spec, variant)
        if row is None:
            missing = dict.fromkeys(["input operations", *PARTS, "parameter operations"], "not given")
            lines.append({"layer": spec.label, **missing, "as printed": ""})
            continue
        line = {"layer": spec.label, "input operations": row.input_operations}
        line |= {title: text(getattr(row, name)) for title, name in list(PARTS.items())[:2]}
        line |= {"parameter operations": row.parameter_operations}
        line |= {title: text(getattr(row, name)) for title, name in list(PARTS.items())[2:]}
        line["as printed"] = ""
        if spec.label in printed.index:
            theirs = printed.loc[spec.label]
            equal = all((getattr(row, name) - parse(theirs[name])).expand() == 0 for name in PARTS.values())
            line["as printed"] = "yes" if equal else "no"
        lines.append(line)
    found = pd.DataFrame(lines)
    return found if variant == "both" or found.empty else found.drop(columns="as printed")


def numbers(specs: list[LayerSpec], *, batch_size: int, image_size: int, channels: int, kernel_size: int, t: int,
            t1: int, t2: int, variant: str = "both") -> pd.DataFrame:  # fmt: skip
    """The same formulas in numbers, for one layer: 10^9 MACs and 10^6 stored numbers, as text of three digits."""
    for name, value in {"batch_size": batch_size, "image_size": image_size, "channels": channels,
                        "kernel_size": kernel_size, "t": t, "t1": t1, "t2": t2}.items():  # fmt: skip
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise LiprefError(f"{name}={value!r}: give a whole number of at least 1")
    from sympy import sympify

    v = symbols()
    given = {v["b"]: batch_size, v["s"]: image_size, v["c"]: channels, v["k"]: kernel_size,
             v["t"]: t, v["t1"]: t1, v["t2"]: t2}  # fmt: skip
    lines = []
    for spec in specs:
        row = _row_of(spec, variant)
        if row is None:
            continue
        line = {"layer": spec.label}
        for title, name in PARTS.items():
            scale, unit = (1e9, "(10⁹)") if title.endswith("MACs") else (1e6, "(10⁶)")
            line[f"{title} {unit}"] = f"{float(sympify(getattr(row, name)).subs(given)) / scale:.3g}"
        lines.append(line)
    return pd.DataFrame(lines)


def parse(printed: str):
    """A formula of ``data/paper/complexity_table1.csv``, such as ``c^3 k^4`` or ``5/2 M``, as a sympy expression."""
    from sympy import Add, Mul, Pow, Rational

    v = symbols()
    terms = []
    for term in printed.split("+"):
        factors = []
        for factor in term.split():
            base, _, power = factor.partition("^")
            factors.append(Pow(v[base] if base in v else Rational(base), int(power or 1)))
        terms.append(Mul(*factors))
    return Add(*terms)


def text(expression) -> str:
    """A formula for people, with the paper's shorthands where one fits: ``2 C``, ``5/2 M``, ``c s² + P``."""
    from sympy import Add, Symbol, expand, sympify

    v = symbols()
    expression = sympify(expression)
    terms = []
    for term in Add.make_args(expand(expression)):
        for name in ("C", "M", "P"):
            share = term / v[name]
            if share.is_Number or share in (v["t"], v["t1"], v["t2"]):
                terms.append(share * Symbol(name, positive=True))
                break
        else:
            terms.append(term)
    return " + ".join(_product(term) for term in sorted(terms, key=lambda term: (-len(term.free_symbols), str(term))))


def _product(term) -> str:
    number, rest = term.as_coeff_Mul()
    parts = [] if number == 1 and rest != 1 else [str(number)]
    for base, power in sorted(rest.as_powers_dict().items(), key=lambda pair: str(pair[0])):
        if base != 1:
            name = str(base).replace("t1", "t₁").replace("t2", "t₂")
            parts.append(name + ("" if power == 1 else str(power).translate(_RAISED)))
    return " ".join(parts)


def _row_of(spec: LayerSpec, variant: str = "both"):
    if variant not in comparison.VARIANTS:
        raise LiprefError(f"variant={variant!r}: choose one of {', '.join(comparison.VARIANTS)}")
    if variant == "published":
        printed = published.complexity()
        if spec.label not in printed.index:
            return None
        row = printed.loc[spec.label]
        macs_and_memory = {name: parse(row[name]) for name in PARTS.values()}
        return Complexity(row.input_operations, parameter_operations=row.parameter_operations, **macs_and_memory)
    given = getattr(spec.cls, "complexity", None)
    try:
        return given() if given is not None else None
    except NotImplementedError:
        return None
