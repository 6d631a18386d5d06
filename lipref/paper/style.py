"""How a layer looks in every picture: its colour, marker, line style and hatch; the pictures' common style and files.

Functions that draw take a tidy table and return a `matplotlib.figure.Figure`, which needs no display and which
notebooks show; `save` writes it as PNG and PDF. matplotlib and seaborn are optional (``pip install
'lipref[notebooks]'``) and are imported when the first picture is made.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from lipref.errors import LiprefError
from lipref.extras import require
from lipref.tensor_files import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend


WIDTH = 7.0  # inches: the text width of a page with two columns
FONT = 8.0  # points
DARK = "#222222"
GREY = "#777777"

_NAMES = {
    "standard": "Standard",
    "aol": "AOL",
    "bcop": "BCOP",
    "cayley": "Cayley",
    "cpl": "CPL",
    "lot": "LOT",
    "sll": "SLL",
    "soc": "SOC",
    "eco": "ECO",
    "sandwich": "Sandwich",
    "bnb": "BnB",
}


@dataclass(frozen=True)
class LayerStyle:
    """A layer's look, in matplotlib's notation. Without colour, marker, line style and hatch still tell it apart."""

    color: str
    marker: str
    linestyle: str | tuple[int, tuple[float, ...]]
    hatch: str


# Colours of Okabe and Ito, "Color Universal Design" (2008), without the yellow that is too pale on white; wine is from
# P. Tol, "Colour Schemes" (2021).
_STYLES = {
    "standard": LayerStyle("#000000", "x", (0, (1, 2.5)), ""),
    "aol": LayerStyle("#E69F00", "o", "-", "////"),
    "bcop": LayerStyle("#56B4E9", "s", "--", "...."),
    "cayley": LayerStyle("#009E73", "^", "-.", "\\\\\\\\"),
    "cpl": LayerStyle("#0072B2", "D", (0, (1, 1)), "----"),
    "lot": LayerStyle("#D55E00", "v", (0, (6, 1.5, 1, 1.5, 1, 1.5)), "xxxx"),
    "sll": LayerStyle("#CC79A7", "P", (0, (8, 2)), "||||"),
    "soc": LayerStyle("#882255", "*", (0, (4, 1, 1, 1)), "++++"),
    # Excluded by the paper.
    "eco": LayerStyle("#661100", "X", (0, (5, 1)), "**"),
    "sandwich": LayerStyle("#44AA99", "d", (0, (3, 1, 1, 1, 1, 1)), "oo.."),
    "bnb": LayerStyle("#6699CC", "H", (0, (2, 2)), "xx.."),
}
# For users' own layers, also after P. Tol. Lists of coprime lengths: a whole look comes again after 4 * 5 * 3 layers.
_SPARE_COLORS = ("#332288", "#117733", "#999933", "#AA4499", "#5F5F5F")
_SPARE_MARKERS = ("p", "<", ">", "h")
_SPARE_LINES = ((0, (3, 3)), (0, (10, 3, 2, 3)), (0, (2, 1, 2, 4)))
_SPARE_HATCHES = ("oo", "//..", "OO", "\\\\--")


def display_name(label: str) -> str:
    """The name in print of a layer of the library (``cayley`` -> ``Cayley``); any other label as it is."""
    return _NAMES.get(label, label)


def layer_styles(labels: Iterable[str]) -> dict[str, LayerStyle]:
    """The look of each label: the library's layers first, in their fixed order, then others as they first appear.

    The library's layers look the same in every picture. The k-th other label always gets the k-th spare look.
    """
    labels = list(dict.fromkeys(labels))
    known = {label: _STYLES[label] for label in _STYLES if label in labels}
    others = [label for label in labels if label not in _STYLES]
    return known | {label: _spare(number) for number, label in enumerate(others)}


def _spare(number: int) -> LayerStyle:
    def pick(choices: tuple) -> Any:
        return choices[number % len(choices)]

    return LayerStyle(pick(_SPARE_COLORS), pick(_SPARE_MARKERS), pick(_SPARE_LINES), pick(_SPARE_HATCHES))


@contextmanager
def context() -> Iterator[None]:
    """The common style, for making and for saving pictures; the caller's own settings come back afterwards."""
    matplotlib, seaborn = require("matplotlib"), require("seaborn")
    small = FONT - 1
    settings = {
        **seaborn.axes_style("whitegrid"),
        **seaborn.plotting_context("paper"),
        "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same picture on every machine
        "font.size": FONT,
        "axes.titlesize": FONT,
        "axes.labelsize": FONT,
        "xtick.labelsize": FONT,
        "ytick.labelsize": FONT,
        "legend.fontsize": FONT,
        "legend.title_fontsize": small,
        "axes.titlelocation": "left",
        "axes.edgecolor": GREY,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": "#dddddd",
        "grid.linewidth": 0.5,
        "text.color": DARK,
        "axes.labelcolor": DARK,
        "xtick.color": DARK,
        "ytick.color": DARK,
        "xtick.major.pad": 2.5,
        "ytick.major.pad": 2.5,
        "hatch.linewidth": 0.5,
        "legend.frameon": False,
        "pdf.fonttype": 42,  # TrueType, which publishers ask for
        "text.usetex": False,
        "text.parse_math": False,  # a name may have dollar signs
    }
    with matplotlib.rc_context(settings):
        yield


def new_figure(height: float) -> Figure:
    """An empty figure of the page's width, ``height`` inches high, which makes room for all its text."""
    require("matplotlib")
    from lipref.paper.picture import Picture

    figure = Picture(figsize=(WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06)
    return figure


def wrap(text: str, inches: float, size: float = FONT) -> str:
    """``text`` in lines that fit into ``inches``; long words are broken, nothing is cut off."""
    letters = max(4, int(inches * 72 / (0.58 * size)))  # the mean width of DejaVu's letters
    return "\n".join(textwrap.wrap(text, letters)) or text


def legend(
    figure: Figure, handles: list, title: str | None = None, inches: float = WIDTH - 1.0, notes: Sequence[str] = ()
) -> Legend:
    """One legend for the whole figure, below its panels, where it can cover nothing; the figure grows by its height.

    Labels are broken into lines of ``inches``. ``notes`` are entries without a mark: what the figure has a gap for.
    """
    from matplotlib.lines import Line2D

    handles = [*handles, *(Line2D([], [], linestyle="none", label=note) for note in notes)]
    for handle in handles:
        handle.set_label(wrap(handle.get_label(), inches))
    labels = [handle.get_label().split("\n") for handle in handles]
    letters = max(len(line) for lines in labels for line in lines)
    columns = int(WIDTH * 72 / (0.58 * FONT * letters + 5 * FONT))
    columns = max(1, min(columns, len(handles)))
    rows = math.ceil(len(handles) / columns) * max(len(lines) for lines in labels)
    grow(figure, rows + (title.count("\n") + 1 if title else 0) + 1)
    return figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, title=title, handlelength=3.2, columnspacing=1.2,
    )  # fmt: skip


def grow(figure: Figure, lines: int) -> None:
    """Make ``figure`` higher, for so many lines of text."""
    figure.set_figheight(figure.get_figheight() + lines * 1.55 * FONT / 72)


def line_handles(styles: dict[str, LayerStyle], markers: bool = True) -> list:
    """Legend entries of lines."""
    from matplotlib.lines import Line2D

    return [Line2D([], [], label=display_name(label), **line_format(style, markers)) for label, style in styles.items()]


def line_format(style: LayerStyle, markers: bool = True) -> dict[str, Any]:
    """Keyword arguments of a line and its markers."""
    marker = {"marker": style.marker, "markersize": 5.5 if style.marker == "*" else 4.5} if markers else {}
    return {"color": style.color, "linestyle": style.linestyle, "linewidth": 1.2, "markeredgewidth": 0.9} | marker


# No dates and no versions, so that a picture that has not changed is the same file.
_FORMATS: dict[str, dict[str, Any]] = {
    "png": {"dpi": 200, "metadata": {"Software": None}},
    "pdf": {
        "metadata": {"Creator": "lipref", "Producer": "matplotlib", "CreationDate": None, "ModDate": None},
    },
}


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write ``stem.png`` (200 dpi) and ``stem.pdf`` (fonts embedded as TrueType), each atomically.

    With the same versions of the libraries, the same picture gives the same bytes.

    Args:
        figure: The picture.
        stem: The path without suffix; dots in its name are kept.

    Returns:
        The two paths, PNG first.

    Raises:
        LiprefError: a file cannot be written.
    """
    stem = Path(stem)
    paths = []
    for suffix, options in _FORMATS.items():
        buffer = BytesIO()
        figure.savefig(buffer, format=suffix, **options)
        path = stem.with_name(f"{stem.name}.{suffix}")
        replace_file(path, buffer.getvalue())
        paths.append(path)
    return paths


@context()
def blank(text: str) -> Figure:
    """An empty frame with ``text``: what is missing, and what would fill it.

    Raises:
        LiprefError: there is no text.
    """
    if not text:
        raise LiprefError("an empty picture needs a text that says what is missing")
    lines = wrap(text, WIDTH - 1.2)
    figure = new_figure(0.8 + (lines.count("\n") + 1) * 1.55 * FONT / 72)
    axis = figure.add_subplot()
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)
    axis.text(0.5, 0.5, lines, ha="center", va="center", transform=axis.transAxes)
    return figure


def or_blank(draw: Callable[[pd.DataFrame], Figure], table: pd.DataFrame, missing: str) -> Figure:
    """``draw(table)``, or `blank` where no row of ``table`` has a value."""
    return blank(missing) if table.empty or table.value.isna().all() else draw(table)
