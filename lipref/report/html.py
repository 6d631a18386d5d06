"""The report: executed notebooks in one HTML file that needs no network."""

from __future__ import annotations

import base64
import html
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from lipref.errors import LiprefError
from lipref.extras import require
from lipref.report.execute import WIDGET
from lipref.report.items import Item
from lipref.report.kernels import runs
from lipref.report.page import PAGE, STYLE, formula, refuse_network
from lipref.report.parameters import read_notebook
from lipref.tensor_files import replace_file

IMAGES = ("image/png", "image/jpeg", "image/svg+xml")
# A page that does not change has no use for them; the output's text or image is shown instead.
LIVE = ("application/javascript", WIDGET)


def write_report(
    path: Path,
    title: str,
    lead: str,
    executed: Sequence[tuple[Item, Path]],
    data: Mapping[str, Sequence[Path]] | None = None,
) -> Path:
    """Write executed notebooks as one HTML file: text, tables and figures, without code, in the order given.

    Images are embedded, formulas drawn, links to the notebooks and their files relative. Nothing is loaded from the
    network, and no script runs; of an interactive output its text or image is shown.

    Args:
        path: The file.
        title: Its title, plain text.
        lead: What stands before the contents, in Markdown; links relative to the folder of ``path``.
        executed: Every item with its executed notebook, see `lipref.report.execute.execute`; its files lie in the
            folder that its parameter ``out`` names, or beside it. The contents have the same order: what stands before
            the first item of the paper are first steps, what stands after its last goes beyond it.
        data: The files that an item was drawn from, by its name.

    Returns:
        ``path``.

    Raises:
        LiprefError: a notebook that is not executed, a file that is missing, a link to nowhere, or an output that
            wants the network or a script.
    """
    path = Path(path).resolve()
    if not executed:
        raise LiprefError(f"{path}: no notebook to report: execute at least one")
    names = [item.name for item, _ in executed]
    for name in names:
        if names.count(name) > 1:
            raise LiprefError(f"{name} is in the report twice: give each item once")
    data = data or {}
    entries, sections = [], []
    for item, notebook in executed:
        heading = html.escape(f"{item.item}: {item.title}")
        place = Path(notebook).resolve()
        links = [_file(place, path.parent, "notebook"), *(_file(file, path.parent) for file in data.get(item.name, ()))]
        entries.append(
            f'<li><a href="#{quote(item.name)}">{heading}</a><br>'
            f'<span class="files">{html.escape(item.shows)} {" ".join(links)}</span></li>'
        )
        sections.append(_section(path, item, place, heading, data.get(item.name, ())))
    renderer, markdown = _renderer("lead", [path.parent], path.parent)
    page = PAGE.format(
        title=html.escape(title),
        style=STYLE,
        lead=markdown(renderer(escape=False, embed_images=True, path=str(path.parent))).render(lead),
        contents=_contents([item for item, _ in executed], entries),
        sections="\n".join(sections),
    )
    refuse_network(page, path)
    replace_file(path, page.encode())
    return path


def _contents(items: Sequence[Item], entries: Sequence[str]) -> str:
    """The table of contents: the items of the paper in one list, what stands before and after in two others."""
    paper = [number for number, item in enumerate(items) if item.of_the_paper]
    first, last = (paper[0], paper[-1] + 1) if paper else (len(items), len(items))
    parts = {"First steps": entries[:first], "The paper": entries[first:last], "Beyond the paper": entries[last:]}
    return "\n".join(f"<h3>{title}</h3>\n<ul>\n{chr(10).join(lines)}\n</ul>" for title, lines in parts.items() if lines)


def _file(file: Path, home: Path, name: str | None = None) -> str:
    return f'<a href="{_relative(Path(file).resolve(), home)}">{html.escape(name or Path(file).name)}</a>'


def _section(path: Path, item: Item, notebook: Path, heading: str, data: Sequence[Path]) -> str:
    node = read_notebook(notebook)
    if any(runs(cell) and cell.execution_count is None for cell in node.cells):
        raise LiprefError(f"{notebook} is not executed: execute it, then report it")
    parameters = dict(node.metadata.get("papermill", {}).get("parameters", {}))
    folder = notebook.parent / parameters.pop("out", ".")
    links = []
    for file in (notebook, *(folder / name for name in item.outputs)):
        if not file.is_file():
            raise LiprefError(f"{file}, a file of {item.name}, is missing: execute the notebook again")
        links.append(_file(file, path.parent))
    drawn_from = " ".join(_file(file, path.parent) for file in data)
    rows = [
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(_shown(value, path.parent))}</td></tr>"
        for name, value in parameters.items()
    ]
    table = f'<table class="parameters"><tbody>{"".join(rows)}</tbody></table>' if rows else ""
    body = _body(_prepared(node, item), item, notebook, path.parent)
    refuse_network(body, notebook)
    return f"""\
<section id="{html.escape(item.name)}">
<h2>{heading}</h2>
<p>{html.escape(item.shows)}</p>
{body}
{table}
<p class="files">{" ".join(links)}</p>
{f'<p class="files">Data: {drawn_from}</p>' if drawn_from else ""}
</section>"""


def _prepared(node: Any, item: Item) -> Any:
    """The notebook with what is shown alone, images with their alternative text, formulas drawn."""
    first = next((cell for cell in node.cells if cell.cell_type == "markdown"), None)
    if first is not None:
        first.source = re.sub(r"\A\s*# .*\n?", "", first.source)  # the section has a heading already
    images = 0
    for number, cell in enumerate(node.cells):
        cell.id = f"{item.name}-{number}"  # unique in the whole page
        for output in cell.get("outputs", []):
            data, metadata = output.get("data", {}), output.get("metadata", {})
            for mime in LIVE:
                data.pop(mime, None)
            if "text/latex" in data and "text/html" not in data:
                latex = data["text/latex"].strip()
                data["text/html"] = formula(latex.strip("$"), block=True)
            for mime in set(IMAGES) & set(data):
                images += 1
                alt = f"{item.item}: {item.title}" + (f" ({images})" if images > 1 else "")
                given = metadata.get(mime)
                alt = given.get("alt", alt) if isinstance(given, dict) else alt
                metadata[mime] = (given if isinstance(given, dict) else {}) | {"alt": alt}
                if mime == "image/svg+xml":  # nbconvert would leave out the text
                    code = base64.b64encode(data.pop(mime).encode()).decode()
                    data["text/html"] = f'<img src="data:{mime};base64,{code}" alt="{html.escape(alt)}">'
    node.cells = [cell for cell in node.cells if cell.cell_type == "markdown" or cell.get("outputs")]
    node.metadata.pop("widgets", None)
    return node


def _body(node: Any, item: Item, notebook: Path, home: Path) -> str:
    html_exporter = require("nbconvert").HTMLExporter
    renderer, markdown = _renderer(item.name, [item.folder.resolve(), notebook.parent], home)

    class Exporter(html_exporter):
        @require("jinja2").pass_context
        def markdown2html(self, context: Any, source: str) -> str:
            attachments = context.get("cell", {}).get("attachments", {})
            rendering = renderer(
                escape=False, attachments=attachments, embed_images=True, path=str(item.folder.resolve())
            )
            return markdown(rendering).render(source)

    exporter = Exporter(
        template_name="basic",
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_raw=True,
    )
    return exporter.from_notebook_node(node)[0]


def _renderer(prefix: str, folders: Sequence[Path], home: Path) -> tuple[type, type]:
    """A Markdown renderer for one section, and nbconvert's parser for it.

    Headings go below the section's own and get identifiers that begin with ``prefix``; relative links are looked for in
    ``folders`` and written relative to ``home``.
    """
    nbconvert = require("nbconvert.filters.markdown_mistune")
    taken: set[str] = set()

    class Renderer(nbconvert.IPythonRenderer):
        def heading(self, text: str, level: int, **_: Any) -> str:
            slug = re.sub(r"\W+", "-", re.sub(r"<[^>]*>", "", text)).strip("-").lower()
            name = base = f"{prefix}-{slug}"
            number = 1
            while name in taken:
                number += 1
                name = f"{base}-{number}"
            taken.add(name)
            depth = min(level + 2, 6)
            return f'<h{depth} id="{html.escape(name)}">{text}</h{depth}>\n'

        def link(self, text: str, url: str, title: str | None = None) -> str:
            parts = urlsplit(url)
            if not parts.scheme and not parts.netloc and parts.path:
                found = [place for folder in folders if (place := folder / unquote(parts.path)).exists()]
                if not found:
                    raise LiprefError(f"{prefix} links to {url}, which is not there: correct the link")
                url = _relative(found[0], home) + (f"#{parts.fragment}" if parts.fragment else "")
            return super().link(text, url, title)

        def inline_math(self, body: str) -> str:
            return formula(html.unescape(body))

        def block_math(self, body: str) -> str:
            return formula(html.unescape(body), block=True)

        def latex_environment(self, name: str, body: str) -> str:
            return formula(f"\\begin{{{name}}}{body}\\end{{{name}}}", block=True)

    return Renderer, nbconvert.MarkdownWithMath


def _shown(value: object, home: Path) -> str:
    """A parameter's value; an absolute path relative to ``home``, or where it is not below that, its name."""
    place = Path(str(value))
    if not isinstance(value, str) or not place.is_absolute():
        return str(value)
    inside = place != home and place.is_relative_to(home)
    return place.relative_to(home).as_posix() if inside else place.name or str(value)


def _relative(file: Path, home: Path) -> str:
    return quote(Path(os.path.relpath(file, home)).as_posix())
