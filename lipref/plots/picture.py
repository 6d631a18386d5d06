"""The figure that the pictures are drawn on. Imports matplotlib: load it where a picture is made."""

from io import BytesIO

from matplotlib.figure import Figure


class Picture(Figure):
    """A figure that notebooks show without pyplot's global state."""

    def _repr_png_(self) -> bytes:
        from lipref.plots.style import context

        buffer = BytesIO()
        with context():
            self.savefig(buffer, format="png", dpi=120)
        return buffer.getvalue()
