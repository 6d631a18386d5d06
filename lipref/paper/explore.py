"""What the notebook `explore` asks for: the networks of one comparison, ranked by what matters to its reader."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import pandas as pd

from lipref.layers import resolve
from lipref.paper import artifacts, recommend, style, tradeoff, tradeoffs
from lipref.runs import plans
from lipref.runs.study import Study


class Explorer:
    """A choice of networks and weights, and what follows from it. Nothing is trained or measured.

    Args:
        dataset: One of `lipref.paper.tradeoffs.choices`; with ``records`` the name of its data set, or as it is.
        sizes, layers: Names separated by commas; ``all`` layers. What has no value is left out.
        budget: Of the paper's values: ``"2h"``, ``"10h"``, ``"24h"``.
        weights: How much each measure counts, ``"robust accuracy=2,training time=1"``.
        records: A folder with ``records.json`` and, if measured, ``costs.json``; empty for committed values.
        out: The folder for files; empty writes none.
        say: Called with a line of text where the records have something else than what was asked for.

    Raises:
        LiprefError: an unknown name, or nothing that can be ranked.
    """

    def __init__(
        self, *, dataset: str, sizes: str = "XS,S,M,L", layers: str = "all", budget: str = "24h",
        weights: str = "robust accuracy=1", records: str = "", out: str = "", say: Callable[[str], None] = print,
    ) -> None:  # fmt: skip
        self.dataset, self.budget, self.records, self.out = dataset, budget, records, out
        self.sizes, self.layers, self.say = sizes, layers, say
        self.weights = recommend.parse_weights(weights)
        self._labels = {resolve(name).label for name in plans.check_layers(plans.layer_names(layers))}
        self._chosen = plans.check_sizes(plans.split_names(sizes, "sizes"))

    @cached_property
    def table(self) -> pd.DataFrame:
        """The six measures as a tidy table (`lipref.paper.tradeoffs`)."""
        if not self.records and self.dataset.endswith(tradeoffs.SUFFIX):
            found = tradeoffs.of_paper(self.dataset, self.budget)
        else:
            found = self._ours()
        kept = found["size"].isin(self._chosen) & (found.layer.isin(self._labels) | (self.layers.strip() == "all"))
        return found[kept].reset_index(drop=True)

    def _ours(self) -> pd.DataFrame:
        # A paper's title beside a folder of records asks for nothing: the records' own data set is taken.
        name = "digits" if self.dataset.endswith(tradeoffs.SUFFIX) else self.dataset
        folder = Path(self.records or tradeoffs.folder(name))
        study = Study(
            dataset=name, sizes=self.sizes, layers=self.layers, records=str(folder),
            say=self.say if self.records else lambda text: None,
        )  # fmt: skip
        parts = {
            name: getattr(study, name) if (study.records / f"{file}.json").exists() else pd.DataFrame()
            for name, file in (("runs", "records"), ("costs", "costs"))
        }
        return tradeoffs.of_ours(**parts, dataset=study.name, images=study.train_images)

    @cached_property
    def result(self) -> recommend.Recommendation:
        """The ranking, the recommendation and its reason."""
        return recommend.recommend(self.table, self.weights)

    def figure(self):
        """The trade-off and the ranking as a picture (`lipref.paper.tradeoff.tradeoff`)."""
        found = recommend.values(self.table)
        axes = recommend.axes(self.weights, found)
        front = recommend.front(found, *axes) if axes else found
        return tradeoff.tradeoff(found, front, axes, self.result.ranking, self.result.best)

    def people(self) -> pd.DataFrame:
        """The ranking as people read it: scores per measure, from 0 to 1."""
        shown = self.result.ranking.copy()
        shown["layer"] = shown.layer.map(style.display_name)
        for name in shown.columns[2:]:
            shown[name] = shown[name].map("{:.2f}".format)
        return shown

    def save(self, name: str) -> None:
        """Write the values with the scores, the ranking, the reason and the picture into ``out``."""
        scores = self.result.ranking[["layer", "size", "score"]]
        table = self.table.merge(scores, how="left", on=["layer", "size"])
        notes = f"{self.result.reason}\n\n{recommend.RULE}"
        artifacts.save(self.out, name, table=table, people=self.people(), notes=notes, figure=self.figure())
