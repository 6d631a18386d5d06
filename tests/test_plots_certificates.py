"""The certificates' pictures: every number of their tables is drawn, and wrong tables are refused."""

import numpy as np
import pandas as pd
import pytest

from lipref.errors import LiprefError
from lipref.paper import certificates_figure, style


def specimens(**changes):
    rows = [("plain", 100, 93, 90, 94, 0), ("cold", 100, 40, 7, 41, 0)]
    names = ["specimen", "images", "certified_claimed", "refuted_claimed", "certified_proved", "refuted_proved"]
    return pd.DataFrame(rows, columns=names).assign(**changes)


def gaps(**changes):
    rows = [
        {"layer": layer, "moment": moment, "module": module, "visited": layer != "cpl", "gap": gap}
        for layer in ("aol", "cpl", "MyConv") for moment in ("initial", "trained")
        for module, gap in (("first", 0.0), ("head", 3e-5), ("product", 0.02))
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(**changes)


def curves(**changes):
    rows = [
        {"layer": layer, "way": way, "radius": radius / 255, "share": share}
        for layer in ("bcop", "soc", "MyConv")
        for way, shares in (("certified", (0.9, 0.5)), ("attacked", (0.9, 0.75)))
        for radius, share in zip((0, 36), shares, strict=True)
    ]
    return pd.DataFrame(rows).assign(**changes)


def texts(figure):
    import matplotlib.text

    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


def test_refuted_certificates_are_drawn_and_counted(tmp_path):
    figure = certificates_figure.refuted(specimens())
    left, right = figure.axes
    assert [patch.get_width() for patch in left.patches] == [93, 40, 90, 7]
    assert [patch.get_width() for patch in right.patches] == [94, 41, 0, 0]
    assert {"90 of 93 refuted", "0 of 41 refuted"} <= set(texts(figure))
    first, second = (style.save(certificates_figure.refuted(specimens()), tmp_path / name) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_every_gap_is_drawn_and_nothing_below_the_axis():
    figure = certificates_figure.gaps(gaps())
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["before training", "after training"]
    for axis in figure.axes:
        values = np.concatenate([line.get_ydata() for line in axis.lines])
        assert sorted(values) == sorted(3 * [1e-16, 3e-5, 0.02])
        assert axis.get_yscale() == "log"
    assert "CPL\n(not visited)" in texts(figure)
    assert "AOL" in texts(figure)


def test_attacks_are_drawn_above_certificates():
    figure = certificates_figure.certified_and_attacked(curves())
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title(loc="left") for axis in shown] == ["BCOP", "SOC", "MyConv"]
    for axis in shown:
        certified, attacked = axis.lines
        assert list(certified.get_ydata()) == [90, 50]
        assert list(attacked.get_ydata()) == [90, 75]
        # Between two radii neither line may claim more than its points.
        assert (certified.get_drawstyle(), attacked.get_drawstyle()) == ("steps-pre", "steps-post")
    only = certificates_figure.certified_and_attacked(curves().query("way == 'certified'"))
    assert not any("attack (" in text for text in texts(only))


@pytest.mark.parametrize(
    ("draw", "table", "named"),
    [
        (certificates_figure.refuted, specimens(refuted_proved=99), "plain"),
        (certificates_figure.refuted, specimens().drop(columns="images"), "images"),
        (certificates_figure.gaps, gaps(gap=2.0), "gap 2.0"),
        (certificates_figure.gaps, gaps()[:0], "no rows"),
        (certificates_figure.certified_and_attacked, curves(share=1.5), "share 1.5"),
        (certificates_figure.certified_and_attacked, curves(way="hoped"), "hoped"),
    ],
)
def test_tables_that_cannot_be_drawn_are_refused(draw, table, named):
    with pytest.raises(LiprefError, match=named):
        draw(table)
