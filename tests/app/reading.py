"""What a page shows, as data: the marks of its chart, its tables and its own HTML."""

import json
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
from streamlit.testing.v1 import AppTest

from app import labels

Marks = dict[tuple[str, str], dict[str, Any]]


def page_html(app: AppTest) -> str:
    return "\n".join(str(element.value) for element in app.html)


def marks(app: AppTest, number: int = 0) -> Marks:
    """The marks of a matrix, by row and eval_lang: of the first layer of the first chart, or of another one."""
    return {(mark["row"], mark["eval_lang"]): mark for mark in layer(app, number, 0)}


def layer(app: AppTest, chart: int, number: int) -> list[dict[str, Any]]:
    """The rows behind a layer of a chart; both are counted from 0."""
    proto = app.get("vega_lite_chart")[chart].proto
    spec = json.loads(proto.spec)
    name = {**spec, **spec.get("layer", [spec])[number]}["data"]["name"]  # data that all layers share stand above
    (rows,) = [d.data.data for d in proto.datasets if d.name == name]
    found: list[dict[str, Any]] = pa.ipc.open_stream(rows).read_all().to_pylist()
    return found


def visit(app: AppTest, page: str, /, **address: str) -> AppTest:
    """The app on one of its pages, as a link with these words in its address leads there."""
    app.switch_page(f"app_pages/{page}.py")
    app.query_params.clear()
    app.query_params.update(address)
    return app.run()


def tables(app: AppTest) -> list[ElementTree.Element]:
    """The tables of ours on a page."""
    shown = [str(element.value) for element in app.html]
    return [ElementTree.fromstring(html) for html in shown if html.startswith("<figure")]


def places(table: ElementTree.Element) -> dict[tuple[str, str], ElementTree.Element]:
    """The entries of a table by (name of the row, name of the column)."""
    columns = [head.text or "" for head in table.findall(".//thead/tr/th")][1:]
    found = {}
    for line in table.findall(".//tbody/tr"):
        if line.get("class") != "x-group":
            name = line.findtext("th") or ""
            found.update({(name, column): td for column, td in zip(columns, line.findall("td"), strict=True)})
    return found


def number(entry: ElementTree.Element) -> float:
    """What an entry says, without its mark."""
    return float((entry.text or entry.findtext("b") or "nan").replace(labels.MINUS, "-"))
