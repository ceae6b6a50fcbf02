"""What a page shows, as data: the marks of its chart and its own HTML."""

import json
from typing import Any

import pyarrow as pa
from streamlit.testing.v1 import AppTest

Marks = dict[tuple[str, str], dict[str, Any]]


def page_html(app: AppTest) -> str:
    return "\n".join(str(element.value) for element in app.html)


def marks(app: AppTest) -> Marks:
    """The marks of the first layer of the chart, by row and eval_lang."""
    (chart,) = app.get("vega_lite_chart")
    name = json.loads(chart.proto.spec)["layer"][0]["data"]["name"]
    (data,) = [d.data.data for d in chart.proto.datasets if d.name == name]
    return {(mark["row"], mark["eval_lang"]): mark for mark in pa.ipc.open_stream(data).read_all().to_pylist()}
