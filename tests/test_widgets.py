"""The controls of the notebook `explore`, without a browser; and that what they leave in files is stable."""

import base64

import nbformat
import pytest
from test_html import make, shown

from lipref.errors import LiprefError
from lipref.paper import widgets
from lipref.paper.explore import Explorer
from lipref.paths import RESULTS
from lipref.report.execute import WIDGET, execute
from lipref.report.html import write_report
from lipref.report.items import read_map

PAPER = "CIFAR-10 (paper)"


@pytest.fixture
def controls():
    return widgets.Controls(Explorer(dataset=PAPER, weights="robust accuracy=2,training time=1"))


def test_they_begin_with_what_was_given(controls):
    values = {name: slider.value for name, slider in controls.weights.items() if slider.value}
    assert values == {"robust accuracy": 5.0, "training time": 2.5}
    reason = Explorer(dataset=PAPER, weights="robust accuracy=2,training time=1").result.reason
    assert controls.words.value.split("<br>")[1] == reason.split("\n")[1]
    assert bytes(controls.picture.value).startswith(b"\x89PNG")


def test_a_change_draws_again(controls):
    before = controls.words.value, bytes(controls.picture.value)
    controls.weights["robust accuracy"].value = 0
    controls.weights["training time"].value = 0
    assert "all weights are 0" in controls.words.value
    assert not controls.picture.value
    controls.weights["training memory"].value = 1
    expected = Explorer(dataset=PAPER, weights="training memory=1").result.reason
    assert controls.words.value == "<br>".join(expected.split("\n"))
    assert bytes(controls.picture.value) != before[1]


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("layers", ("aol", "lot"), None),
        ("layers", (), "nothing is chosen"),
        ("sizes", ("XS",), None),
        ("budget", "2h", None),
        ("dataset", "digits", None),
        ("dataset", "Tiny ImageNet (paper)", None),
    ],
)
def test_every_control_has_an_effect(controls, name, value, word):
    before = controls.words.value
    getattr(controls, name).value = value
    assert controls.words.value != before
    assert word is None or word in controls.words.value
    assert bool(controls.picture.value) == (word is None)


def test_layers_that_are_not_marked_are_not_ranked(controls):
    controls.layers.value = ("aol", "lot")
    assert "SOC" not in controls.words.value


def test_records_of_ones_own():
    records = str(RESULTS / "digits-xs")
    explorer = Explorer(dataset=PAPER, sizes="XS", records=records, weights="accuracy=1", say=lambda text: None)
    assert set(explorer.table.source) == {"ours"}
    own = widgets.Controls(explorer)
    assert own.dataset.value == widgets.OWN
    before = own.words.value
    own.dataset.value = PAPER
    assert own.words.value != before


def test_what_a_file_shows_is_a_sentence(controls):
    bundle = controls._repr_mimebundle_()
    assert WIDGET in bundle
    assert bundle["text/plain"] == widgets.STATIC
    assert widgets.STATIC in bundle["text/html"]


def test_the_committed_notebook_has_no_widget():
    (item,) = (item for item in read_map() if item.name == "explore")
    text = item.notebook.read_text()
    assert WIDGET not in text
    assert "model_id" not in text
    assert widgets.STATIC in text


def test_an_executed_widget_leaves_the_same_bytes_twice(tmp_path):
    cells = [
        nbformat.v4.new_code_cell('out: str = ""  # a folder', metadata={"tags": ["parameters"]}, id="p"),
        nbformat.v4.new_code_cell("import ipywidgets\n\nipywidgets.IntSlider(3)", id="w"),
    ]
    source = tmp_path / "w.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), source)
    once = execute(source, tmp_path / "a" / "done.ipynb", {}).read_bytes()
    assert once == execute(source, tmp_path / "b" / "done.ipynb", {}).read_bytes()
    assert b"IntSlider(value=3)" in once
    assert b"widget-view" not in once
    assert b"widget-state" not in once


def test_the_report_shows_the_sentence_in_place_of_a_widget(tmp_path):
    live = {WIDGET: {"model_id": "0123abcd", "version_major": 2}}
    output = shown(text_html=f"<p>{widgets.STATIC}</p>", text_plain=widgets.STATIC)
    output.data |= live
    executed = make(tmp_path, "n", output)
    node = nbformat.read(executed[1], as_version=4)
    node.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {"0123abcd": {}}}}
    nbformat.write(node, executed[1])
    text = write_report(tmp_path / "r.html", "t", "", [executed]).read_text()
    assert widgets.STATIC in text
    assert "0123abcd" not in text
    assert base64.b64encode(b"0123abcd").decode() not in text


def test_what_cannot_be_explored_is_refused():
    with pytest.raises(LiprefError, match="no committed records"):
        Explorer(dataset="mnist").table  # noqa: B018
    with pytest.raises(LiprefError, match="unknown size"):
        Explorer(dataset=PAPER, sizes="XXL")
    with pytest.raises(LiprefError, match="budget='20 epochs'"):
        Explorer(dataset=PAPER, budget="20 epochs").table  # noqa: B018
