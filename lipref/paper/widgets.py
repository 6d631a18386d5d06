"""Controls for the trade-off: `lipref.paper.explore.Explorer` in a live notebook."""

from __future__ import annotations

import html
from typing import Any

from lipref.errors import LiprefError
from lipref.extras import require
from lipref.layers import LAYERS
from lipref.nets import BASE_WIDTH
from lipref.paper import tradeoffs
from lipref.paper.explore import Explorer
from lipref.paper.published import BUDGETS
from lipref.paper.recommend import parse_weights
from lipref.paper.tables import RADAR_MEASURES

OWN = "records of this notebook"
STATIC = "Here stand controls: run this cell in Jupyter to choose networks and to weigh the six measures."
MOST = 5.0


class Controls:
    """Controls beside the picture; each change draws it again.

    Attributes:
        dataset, sizes, layers, budget: What is compared, as widgets.
        weights: Measure -> its slider, 0 to `MOST`.
        picture: The picture (PNG), empty where there is nothing to rank.
        words: The recommendation with its reason, or what is wrong with the choice.
        box: All of it.
    """

    def __init__(self, explorer: Explorer) -> None:
        w = require("ipywidgets")
        self._records, given = explorer.records, explorer.weights
        names = [*tradeoffs.choices(), *([OWN] if explorer.records else [])]
        wide = {"description_width": "9em"}
        self.dataset = w.Dropdown(
            options=names, value=OWN if explorer.records else explorer.dataset, description="data set", style=wide
        )
        sizes = tuple(size for size in BASE_WIDTH if size in explorer.sizes.split(","))
        self.sizes = w.SelectMultiple(
            options=list(BASE_WIDTH), value=sizes or tuple(BASE_WIDTH), rows=4, description="sizes", style=wide
        )
        layers = [name for name in LAYERS if name != "standard"]
        chosen = tuple(name for name in layers if name in explorer.layers.split(","))
        self.layers = w.SelectMultiple(
            options=layers, value=chosen or tuple(layers), rows=7, description="layers", style=wide
        )
        self.budget = w.Dropdown(options=list(BUDGETS), description="budget (paper)", style=wide)
        self.budget.value = explorer.budget if explorer.budget in BUDGETS else BUDGETS[-1]
        top = max(parse_weights(",".join(f"{name}={value}" for name, value in given.items())).values())
        self.weights = {
            name: w.FloatSlider(
                value=MOST * given[name] / top, min=0, max=MOST, step=0.5, description=name, style=wide,
                continuous_update=False,
            )
            for name in RADAR_MEASURES
        }  # fmt: skip
        self.picture = w.Image(format="png", layout=w.Layout(max_width="100%"))
        self.words = w.HTML()
        choice = w.VBox([self.dataset, self.budget, self.sizes, self.layers])
        self.box = w.VBox([w.HBox([choice, w.VBox(list(self.weights.values()))]), self.words, self.picture])
        for control in (self.dataset, self.sizes, self.layers, self.budget, *self.weights.values()):
            control.observe(self._draw, names="value")
        self._draw()

    def _draw(self, _change: Any = None) -> None:
        own = self.dataset.value == OWN
        try:
            if not self.sizes.value or not self.layers.value:
                raise LiprefError("nothing is chosen: mark at least one size and one layer")
            explorer = Explorer(
                dataset="digits" if own else self.dataset.value, sizes=",".join(self.sizes.value),
                layers=",".join(self.layers.value), budget=self.budget.value,
                weights=",".join(f"{name}={slider.value}" for name, slider in self.weights.items()),
                records=self._records if own else "", say=lambda text: None,
            )  # fmt: skip
            words, picture = explorer.result.reason, explorer.figure()._repr_png_()
        except LiprefError as error:
            words, picture = str(error), b""
        self.words.value = "<br>".join(html.escape(line) for line in words.split("\n"))
        self.picture.value = picture

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        """The controls for a live notebook, a sentence for what shows it later: a file, a page, a report."""
        live = self.box._repr_mimebundle_(**kwargs) or {}
        return live | {"text/plain": STATIC, "text/html": f"<p><em>{STATIC}</em></p>"}
