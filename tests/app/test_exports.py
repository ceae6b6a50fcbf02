"""What a reader takes along says what the page shows, in files that other programs read."""

import io
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import altair as alt
import pandas as pd
import pytest

from app import labels
from app.tables import exports
from app.tables.paper_table import Entry, Mark, Row, Table, html
from tests.app.conftest import MAIN

TABLE = Table(
    "Toxicity (× 100): a_base on 50 % & more. Run #1 {x}",
    "trained on",
    ("de", "en", "mean"),
    (
        Row("ZS (score)", "none", (Entry("13.30"), Entry("8.00"), Entry("10.65"))),
        Row("X-FT (Δ)", "de", (Entry("−1.25", Mark.UNCERTAIN), Entry("2.50", is_best=True), Entry("0.63"))),
        Row("X-FT (Δ)", "en", (Entry("", Mark.MISSING), Entry("9.00", Mark.DEGENERATE), Entry("9.00"))),
    ),
)
CHART = alt.Chart(pd.DataFrame({"lang": ["አማርኛ", "العربية", "हिन्दी"], "delta": [1, -2, 3]})).mark_bar()
CHART = CHART.encode(x="delta:Q", y="lang:N").properties(title="Δ toxicity − in points →")


def test_the_csv_holds_the_numbers_that_are_shown() -> None:
    text = exports.to_csv(TABLE)
    assert text.startswith(f"# {TABLE.caption}\n")
    found = pd.read_csv(io.StringIO(text.partition("\n")[2]))
    assert list(found.columns) == ["group", "trained on", "de", "en", "mean", "marks"]
    for line, row in zip(found.itertuples(index=False), TABLE.rows, strict=True):
        shown = [float(entry.text.replace(labels.MINUS, "-") or "nan") for entry in row.entries]
        assert list(line[2:5]) == pytest.approx(shown, nan_ok=True)
    assert list(found["marks"].fillna("")) == ["", "de: uncertain", "de: missing; en: degenerate"]


def test_the_latex_has_as_many_cells_as_columns() -> None:
    text = exports.to_latex(TABLE)
    (columns,) = re.findall(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert columns == "llrrr"
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 1 + len(TABLE.rows)
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {len(columns) - 1}
    assert r"\caption{Toxicity ($\times$ 100): a\_base on 50 \% \& more. Run \#1 \{x\}" in text
    assert r"$-$1.25$^{\circ}$ & \textbf{2.50} & 0.63 \\" in text
    assert r"$\times$ & 9.00$^{\dagger}$" in text
    assert text.isascii()
    for name in ("document", "table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") - text.startswith("% To include") * (name == "table") == 1
        assert text.count(rf"\end{{{name}}}") == 1


def test_the_markdown_has_as_many_cells_as_columns() -> None:
    lines = exports.to_markdown(TABLE).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert {line.count("|") for line in rows} == {len(TABLE.columns) + 3}
    assert "| X-FT (Δ) | de | −1.25○ | **2.50** | 0.63 |" in rows
    assert lines[-1].startswith(TABLE.caption)


def test_markup_in_a_name_is_text() -> None:
    name = '<script>alert("x")</script>'
    shown = html(Table(name, name, (name,), (Row(name, name, (Entry(name, remark=name),)),)))
    assert "<script" not in shown
    assert ElementTree.fromstring(shown).findtext("figcaption") == name
    assert r"a\|b" in exports.to_markdown(Table("", "", ("a|b",), ()))


@pytest.mark.parametrize("theme", labels.PALETTES)
def test_a_chart_as_png_and_svg(theme: str) -> None:
    png = exports.picture(CHART, "png", labels.PALETTES[theme], "#ffffff")
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width = int.from_bytes(png[16:20], "big")
    assert width > exports.SHARPNESS * exports.PICTURE_WIDTH
    svg = ElementTree.fromstring(exports.picture(CHART, "svg", labels.PALETTES[theme], "#ffffff"))
    assert svg.tag.endswith("svg")
    said = "".join(svg.itertext())
    assert all(word in said for word in ("አማርኛ", "العربية", "हिन्दी", "Δ toxicity − in points →"))


def test_the_name_of_a_file_is_one_word() -> None:
    assert exports.file_name("run:0f base/a b") == "run-0f-base-a-b"


def test_the_picture_maker_is_imported_at_the_click_alone(full: Path) -> None:
    script = (
        "import sys; from streamlit.testing.v1 import AppTest\n"
        f"sys.argv = ['main.py', '--db', {str(full)!r}]\n"
        f"app = AppTest.from_file({str(MAIN)!r}, default_timeout=20).run()\n"
        "app.switch_page('app_pages/strategies.py').run()\n"
        "assert app.get('vega_lite_chart') and app.get('download_button') and not app.exception\n"
        "print({'vl_convert', 'torch', 'transformers'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.stdout.strip() == "set()", found.stdout + found.stderr[-2000:]
