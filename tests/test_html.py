"""The report: one file, whole in itself."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import nbformat
import pytest
from matplotlib.figure import Figure

from lipref.cli import running
from lipref.errors import LiprefError
from lipref.paths import PAPER, RESULTS, ROOT
from lipref.report.folder import gather_data
from lipref.report.html import write_report
from lipref.report.items import Item, read_map
from lipref.report.page import STYLE, formula
from lipref.runs import overview


def png():
    data = io.BytesIO()
    figure = Figure(figsize=(6, 3), dpi=150)
    axes = figure.subplots()
    axes.bar(["AOL", "BCOP", "CPL"], [1, 3, 2])
    axes.set_ylabel("s per epoch")
    figure.savefig(data, format="png")
    return base64.b64encode(data.getvalue()).decode()


TABLE = (
    '<table border="1" class="dataframe"><thead><tr style="text-align: right;"><th></th>'
    + "".join(f"<th>CRA {radius}/255</th>" for radius in (0, 36, 72, 108, 255))
    + "</tr></thead><tbody>"
    + "".join(f"<tr><th>{name}</th>" + "<td>61.2 ± 0.3</td>" * 5 + "</tr>" for name in ("AOL", "BCOP", "Cayley"))
    + "</tbody></table>"
)


def shown(**data):
    return nbformat.v4.new_output("display_data", data={key.replace("_", "/", 1): value for key, value in data.items()})


def make(folder, name="figure2_time", *outputs, text="", executed=True):
    """An item, and an executed notebook of it with these outputs."""
    folder.mkdir(parents=True, exist_ok=True)
    secret = nbformat.v4.new_code_cell("secret = 1", execution_count=1 if executed else None)
    cells = [
        nbformat.v4.new_markdown_cell(f"# Twice\n\n{text}"),
        secret,
        nbformat.v4.new_code_cell("show()", execution_count=2, outputs=list(outputs)),
    ]
    parameters = {"sizes": "XS,S", "lr": 0.001, "out": "files"}
    node = nbformat.v4.new_notebook(cells=cells, metadata={"papermill": {"parameters": parameters}})
    path = folder / f"{name}.ipynb"
    nbformat.write(node, path)
    (folder / "files").mkdir(exist_ok=True)
    (folder / "files" / f"{name}.csv").write_text("a\n1\n")
    item = Item(
        name,
        "Figure 2",
        "Training time <per epoch>",
        "What a step costs",
        ("sizes",),
        (),
        (f"{name}.csv",),
        "2 min",
        "ok",
        folder,
    )
    return item, path


VOID = {"img", "br", "meta", "link", "hr"}


class Page(HTMLParser):
    """The identifiers, links and images of a page, and its tags that are open when they should not be."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.images, self.open = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [attrs["href"]] if tag == "a" and "href" in attrs else []
        self.images += [attrs] if tag == "img" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        assert tag in VOID


def test_a_report_is_whole(tmp_path):
    text = "## Setting\n\nBound $\\|W\\|_2 \\leq 1$ and [its file](files/a_time.csv), [paper](https://arxiv.org).\n\n$$x^2$$"
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle r="4"/></svg>'
    outputs = [
        shown(image_png=png(), text_plain="<Figure>"),
        shown(**{"image_svg+xml": svg}),
        shown(text_html=TABLE),
        shown(text_latex="$\\displaystyle b c^{2}$", text_plain="b*c**2"),
        shown(application_javascript="alert(1)", text_plain="plain"),
    ]
    outputs.append(nbformat.v4.new_output("stream", name="stdout", text="a < b\n"))
    executed = [make(tmp_path / "done", name, *outputs, text=text) for name in ("a_time", "b_time")]
    path = write_report(tmp_path / "report" / "index.html", "The <paper>", "Seven *layers*.", executed)
    written = path.read_text()
    page = Page(written)
    assert not page.open
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} == {"a_time", "b_time"} <= set(page.ids)
    for link in page.links:
        assert link.startswith(("#", "https:")) or (path.parent / link).is_file()
    assert [image["alt"] for image in page.images[:2]] == [
        "Figure 2: Training time <per epoch>",
        "Figure 2: Training time <per epoch> (2)",
    ]
    assert all(image["src"].startswith("data:image/") and len(image["src"]) > 50 for image in page.images)
    assert len(page.images) == 4
    for there in ("The &lt;paper&gt;", "<em>layers</em>", "XS,S", "a &lt; b", "CRA 36/255", 'aria-label="b c^{2}"'):
        assert there in written
    for absent in ("secret", "show()", "alert(1)", "Twice", "$$", "<script"):
        assert absent not in written
    assert write_report(path, "The <paper>", "Seven *layers*.", executed).read_text() == written


@pytest.mark.parametrize(
    "output",
    [
        '<img src="https://example.org/x.png">',
        '<img src="">',
        "<img src=x.png>",
        "<script>1</script>",
        '<link rel="stylesheet" href="//example.org/x.css">',
        "<style>@import 'x.css';</style>",
        "<p style=\"background: url('https://example.org/x.png')\">x</p>",
        '<p onclick="x()">x</p>',
    ],
)
def test_what_needs_the_network_or_a_script_is_refused(tmp_path, output):
    executed = [make(tmp_path, "n", shown(text_html=output))]
    with pytest.raises(LiprefError, match=r"n\.ipynb: .* no network"):
        write_report(tmp_path / "report.html", "t", "", executed)
    assert not (tmp_path / "report.html").exists()


def test_what_is_not_a_result_is_refused(tmp_path):
    with pytest.raises(LiprefError, match="not executed"):
        write_report(tmp_path / "r.html", "t", "", [make(tmp_path, "n", executed=False)])
    with pytest.raises(LiprefError, match=r"nowhere\.md"):
        write_report(tmp_path / "r.html", "t", "", [make(tmp_path, "n", text="[x](nowhere.md)")])
    executed = [make(tmp_path, "n")]
    (tmp_path / "files" / "n.csv").unlink()
    with pytest.raises(LiprefError, match=r"n\.csv.*missing"):
        write_report(tmp_path / "r.html", "t", "", executed)
    with pytest.raises(LiprefError, match="at least one"):
        write_report(tmp_path / "r.html", "t", "", [])


def test_no_path_of_the_machine_is_shown(tmp_path):
    item, notebook = make(tmp_path / "home")
    node = nbformat.read(notebook, as_version=4)
    given = node.metadata["papermill"]["parameters"]
    given |= {"records": str(tmp_path), "inside": str(tmp_path / "home" / "x"), "elsewhere": "/opt/things/results"}
    nbformat.write(node, notebook)
    text = write_report(tmp_path / "r.html", "t", "", [(item, notebook)]).read_text()
    cells = dict(re.findall(r"<tr><th>(\w+)</th><td>(.*?)</td></tr>", text))
    assert cells == {
        "sizes": "XS,S", "lr": "0.001", "records": tmp_path.name, "inside": "home/x", "elsewhere": "results"
    }  # fmt: skip
    assert str(tmp_path) not in text


def test_wide_things_scroll_on_a_narrow_page():
    """What is wider than the page scrolls in a box of its own; pictures are not shrunk until nobody can read them."""
    narrow = STYLE.split("@media (max-width: 48rem) {")[1].split("\n}")[0]
    assert re.search(r"\.output_area[^{}]*\{ overflow-x: auto; \}", narrow)
    assert re.search(r"img \{ min-width: \d+rem", narrow)
    assert re.search(r"table \{[^}]*overflow-x: auto", STYLE)


def test_the_report_tells_what_it_was_made_with(tmp_path):
    folder = RESULTS / "digits-xs"
    lead = running._lead(folder, ["figure9: broken"])
    (trained,) = re.findall(r"\*\*Trained:\*\* (.*)", lead)
    first = json.loads((folder / "records.json").read_text())[0]["environment"]
    for value in (
        first["commit"][:10],
        first["torch"],
        first["time"][:10],
        first["cpu"],
        "1 thread)",
        "1,437 training",
    ):
        assert value in trained
    assert "**Measured:**" in lead
    assert "**Missing:** figure9: broken" in lead
    assert "Trained" not in running._lead(tmp_path, [])
    assert "Trained" not in running._lead(None, [])


def test_provenance_names_every_value():
    def record(**environment):
        usual = {"commit": "a" * 40, "dirty": False, "time": "2026-01-02T03:04:05+00:00", "torch": "2.15.0", "cpu": "X",
                 "threads": 1, "device": {"type": "cpu"}}  # fmt: skip
        return {"config": {}, "environment": usual | environment}

    text = overview.provenance([
        record(), record(commit=None, dirty=None), record(commit="b" * 40, dirty=True, time="2026-02-03T00:00+00:00"),
        record(device={"type": "cuda", "name": "A100"}, threads=4),
    ])  # fmt: skip
    assert text == (
        "commit aaaaaaaaaa, bbbbbbbbbb with changes; 2026-01-02 to 2026-02-03; X (1 thread), A100; torch 2.15.0"
    )


def test_formulas_are_drawn_or_shown_as_source():
    drawn = formula("\\frac{36}{255} c^2")
    assert re.search(r'<path d="M[-\d. MLQCZe]+" fill="currentColor">', drawn)
    assert drawn == formula("\\frac{36}{255} c^2")
    assert formula("\\begin{matrix}1 & 2\\end{matrix}", block=True) == (
        '<span class="formula"><code>\\begin{matrix}1 &amp; 2\\end{matrix}</code></span>'
    )


def item_of(name, item, folder, inputs=()):
    made, notebook = make(folder, name)
    return replace(made, item=item, inputs=inputs), notebook


def test_the_contents_are_in_the_papers_order_with_links_to_notebook_and_data(tmp_path):
    out = tmp_path / "report"
    names = ["start", "figure1_radar", "table1_cost", "more"]
    titles = ["Quickstart", "Figure 1", "Table 1", "Certificates"]
    inputs = ("data/paper/radar_scores.csv", "data/results/digits-xs/records.json", "data/results/digits-xs/costs.json")
    executed = [item_of(*pair, out / "notebooks", inputs) for pair in zip(names, titles, strict=True)]
    (out / "records.json").write_text("[]")
    data = gather_data([item for item, _ in executed], out, [out])
    text = write_report(out / "report.html", "t", "", executed, data).read_text()
    contents = text.split("<nav")[1].split("</nav>")[0]
    assert re.findall(r"<h3>(.*?)</h3>|href=\"#(\w+)\"", contents) == [
        ("First steps", ""), ("", "start"), ("The paper", ""), ("", "figure1_radar"), ("", "table1_cost"),
        ("Beyond the paper", ""), ("", "more"),
    ]  # fmt: skip
    files = [link for link in Page(contents.split(">", 1)[1]).links if not link.startswith("#")]
    # What was drawn from the folder's own records links to them; the rest has been copied into the folder.
    assert files[:4] == [
        "notebooks/start.ipynb", "data/paper/radar_scores.csv", "records.json", "data/results/digits-xs/costs.json"
    ]  # fmt: skip
    assert all((out / link).is_file() for link in files)
    assert (out / files[1]).read_bytes() == (PAPER / "radar_scores.csv").read_bytes()


def test_the_committed_report_is_one_folder_without_the_repository(tmp_path):
    path = running.do_report(read_map(), ROOT / "figures", tmp_path / "report")
    moved = (tmp_path / "report").rename(tmp_path / "elsewhere")
    page = Page((moved / path.name).read_text())
    links = [link for link in page.links if not link.startswith(("#", "https:"))]
    assert len(links) > 40
    assert [link for link in links if ".." in link or not (moved / link).is_file()] == []
    assert {f"#{item.name}" for item in read_map()} <= set(page.links)


def test_data_that_is_missing_is_named(tmp_path):
    item, _ = item_of("start", "Table 1", tmp_path, ("data/paper/nothing.csv",))
    with pytest.raises(LiprefError, match=r"nothing\.csv cannot be read"):
        gather_data([item], tmp_path)
