"""What the report looks like, and that it is whole in itself."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from pathlib import Path

from lipref.errors import LiprefError
from lipref.extras import require

LOADING = {"script", "iframe", "frame", "object", "embed", "base"}
STYLE = """\
:root { color-scheme: light; --ink: #1d2430; --soft: #5a6473; --line: #d8dde5; --back: #f5f7fa; --link: #1454a8; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.1rem 4rem; max-width: 68rem; color: var(--ink); background: #fff;
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0.5rem 0 1rem; }
h2 { font-size: 1.45rem; line-height: 1.25; margin: 3rem 0 0.6rem; padding-top: 1.2rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.2rem; } h4, h5, h6 { font-size: 1rem; }
h3, h4, h5, h6 { line-height: 1.3; margin: 1.6rem 0 0.4rem; }
p { margin: 0.6rem 0; max-width: 46rem; }
a { color: var(--link); }
nav { background: var(--back); border-radius: 0.5rem; padding: 0.8rem 1.2rem; margin: 1.5rem 0; }
nav ul { margin: 0.3rem 0; padding-left: 1.2rem; }
nav h3 { font-size: 1rem; margin: 0.9rem 0 0.2rem; } nav li { margin: 0.3rem 0; }
nav h2 { border: 0; padding: 0; margin: 0; font-size: 1rem; }
nav li span { display: inline-block; margin-bottom: 0.2rem; }
nav span, .files { color: var(--soft); font-size: 0.9rem; }
.files a { margin-right: 0.7rem; }
figure, .output_area, .text_cell { margin: 0.8rem 0; }
img { max-width: 100%; height: auto; }
table { display: block; width: max-content; max-width: 100%; overflow-x: auto; border-collapse: collapse;
  margin: 0.8rem 0; font-size: 0.9rem; line-height: 1.4; font-variant-numeric: tabular-nums; }
table, th, td { border: 0; }
th, td { padding: 0.25rem 0.7rem; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { border-bottom: 2px solid var(--soft); vertical-align: bottom; }
.dataframe td { text-align: right; } .dataframe thead th { text-align: right; }
.parameters { font-size: 0.8rem; } .parameters th { font-weight: 400; color: var(--soft); }
pre, code { font-family: ui-monospace, "SFMono-Regular", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: 0.85em; }
code { background: var(--back); padding: 0.1em 0.3em; border-radius: 0.25em; }
pre { background: var(--back); padding: 0.7rem 0.9rem; border-radius: 0.4rem; overflow-x: auto; line-height: 1.45; }
pre code { padding: 0; } .output_stream pre { white-space: pre-wrap; }
.output_stderr pre { border-left: 3px solid #d9a400; }
.formula { display: block; margin: 0.8rem 0; overflow-x: auto; }
blockquote { margin: 0.8rem 0; padding-left: 1rem; border-left: 3px solid var(--line); color: var(--soft); }
@media (max-width: 48rem) {
  .output_area, .text_cell { overflow-x: auto; } .output_area img { min-width: 40rem; }
  .dataframe td { white-space: nowrap; } .dataframe thead th { min-width: 5.5rem; }
}
@media (max-width: 30rem) { h1 { font-size: 1.5rem; } h2 { font-size: 1.25rem; } th, td { padding: 0.2rem 0.45rem; } }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; } a { color: inherit; }
  table { display: table; width: auto; } pre { white-space: pre-wrap; }
  h2, h3, h4 { break-after: avoid; } img, tr, .formula { break-inside: avoid; }
}
"""
# The policy makes the browser itself refuse whatever would come from the network, and every script.
PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
{lead}
</header>
<nav aria-labelledby="contents">
<h2 id="contents">Contents</h2>
{contents}
</nav>
<main>
{sections}
</main>
</body>
</html>
"""


def refuse_network(text: str, origin: Path) -> None:
    """Check a page, or a part of it; ``origin`` is the file that the message names.

    Raises:
        LiprefError: it would load something, run a script, or show an image without a source.
    """

    def refuse(what: str) -> None:
        raise LiprefError(f"{origin}: {what} has no place in a report that needs no network: take it out of the output")

    class Checker(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag in LOADING:
                refuse(f"<{tag}>")
            for name, value in attrs:
                value = (value or "").strip()
                loads = name in ("src", "srcset", "poster", "background", "data") or (
                    name in ("href", "xlink:href") and tag not in ("a", "area")
                )
                if loads and not value.startswith(("data:", "#")):
                    refuse(f'<{tag} {name}="{value[:80]}">')
                if name.startswith("on"):
                    refuse(f"<{tag} {name}>")
                if name == "style":
                    self.handle_style(value)

        def handle_data(self, data: str) -> None:
            if self.cdata_elem == "style":
                self.handle_style(data)

        def handle_style(self, style: str) -> None:
            found = re.search(r"@import|url\(\s*['\"]?(?!data:|#)", style, re.IGNORECASE)
            if found:
                refuse(f"the style {style[found.start() :][:80]!r}")

    checker = Checker()
    checker.feed(text)
    checker.close()


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
