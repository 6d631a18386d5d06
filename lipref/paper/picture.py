"""The figure that the pictures are drawn on. Imports matplotlib: load it where a picture is made."""

from io import BytesIO
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterMathtext

LAYOUT_DPI = 200


class Picture(Figure):
    """A figure that notebooks show without pyplot's global state, and that looks the same however often it is drawn."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=120)
        return buffer.getvalue()

    def savefig(self, *args: Any, **options: Any) -> None:
        from lipref.paper.style import context

        with context():
            self._settle()
            super().savefig(*args, **options)

    def _settle(self) -> None:
        """Lay the figure out, once and for all.

        The constrained layout starts each time from where it came to before: what has been shown would be saved with
        other places than what has not.
        """
        if self.get_layout_engine() is None:
            return
        own = self.dpi
        self.dpi = LAYOUT_DPI
        for _ in range(2):  # the second time from sensible places
            self._write_powers()
            self.draw_without_rendering()
        self.dpi = own
        self._write_powers()
        self.set_layout_engine("none")

    def _write_powers(self) -> None:
        """Have matplotlib's own labels of logarithmic axes read as formulas: the style turns them off for all text."""
        for axis in (axis for axes in self.axes for axis in (axes.xaxis, axes.yaxis)):
            if isinstance(axis.get_major_formatter(), LogFormatterMathtext):
                for label in axis.get_ticklabels(which="both"):
                    label.set_parse_math(True)
