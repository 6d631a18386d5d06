"""Formulas for a page that has no network: LaTeX drawn as SVG, in the size and colour of the text around."""

from __future__ import annotations

import html

from lipref.extras import require

SIZE = 16.0
LETTERS = {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}  # matplotlib.path.Path's codes in SVG's words


def formula(latex: str, block: bool = False) -> str:
    """HTML of one formula.

    matplotlib's mathtext draws it, as one outline with the LaTeX as its alternative text. What mathtext does not know
    (environments such as ``matrix``) is shown as LaTeX source, in ``<code>``.

    Args:
        latex: The formula without its dollar signs.
        block: Whether it stands on a line of its own.
    """
    latex = " ".join(latex.replace("\\displaystyle", " ").split())
    label = html.escape(latex, quote=True)
    try:
        drawn = _svg(latex, label)
    except ValueError:
        drawn = f"<code>{label}</code>"
    return f'<span class="formula">{drawn}</span>' if block else drawn


def _svg(latex: str, label: str) -> str:
    text, parser = require("matplotlib.textpath"), require("matplotlib.mathtext").MathTextParser("path")
    font = require("matplotlib.font_manager").FontProperties(size=SIZE, math_fontfamily="dejavusans")
    width, height, depth, *_ = parser.parse(f"${latex}$", 72, font)
    path = text.TextPath((0, 0), f"${latex}$", size=SIZE, prop=font)
    strokes = []
    for vertices, code in path.iter_segments(simplify=False):
        points = [f"{-v if place % 2 else v:.4g}" for place, v in enumerate(vertices)]  # SVG's y goes down
        strokes.append(LETTERS[int(code)] + ("" if code == 79 else " ".join(points)))
    box = f"0 {depth - height:.4g} {width:.4g} {height:.4g}"
    return (
        f'<svg class="math" role="img" aria-label="{label}" viewBox="{box}" '
        f'style="width:{width / SIZE:.3f}em;height:{height / SIZE:.3f}em;vertical-align:{-depth / SIZE:.3f}em">'
        f'<path d="{"".join(strokes)}" fill="currentColor"></path></svg>'
    )
