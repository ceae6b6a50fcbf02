"""Downloads: a table as CSV, LaTeX or Markdown, a chart as PNG or SVG. Knows nothing of Streamlit.

A file holds what the page shows, and a caption that says where it comes from. Pictures are drawn by vl-convert, which
is imported at the click: it brings a browser engine's worth of code.
"""

import csv
import io
import re
from itertools import groupby

import altair as alt

from app.labels import MINUS, Palette, mix
from app.tables.paper_table import Entry, Mark, Table

PICTURE_WIDTH = 900
"""Pixels of a picture whose chart takes the width there is."""
SHARPNESS = 2
"""Pixels of a PNG for each pixel of the chart."""
FONTS = (
    "Liberation Sans, Arial, Helvetica, Noto Sans Ethiopic, Noto Sans Arabic, Noto Sans Devanagari, Noto Sans CJK SC, "
    "sans-serif"
)
"""The first one comes with vl-convert, so that a PNG looks the same everywhere; it has the minus sign and the arrows,
for which a missing glyph would bring in whatever font has one, slanted or bold."""

TEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    MINUS: "$-$",
    "–": "--",
    "×": r"$\times$",
    "Δ": r"$\Delta$",
    "·": r"$\cdot$",
    "≥": r"$\geq$",
    "≠": r"$\neq$",
    "→": r"$\rightarrow$",
    "|": r"\textbar{}",
    "○": r"$\circ$",
    "†": r"$\dagger$",
    "\N{NO-BREAK SPACE}": "~",
}
NOTES = {
    Mark.UNCERTAIN: "uncertain",
    Mark.DEGENERATE: "degenerate",
    Mark.MISSING: "missing",
    Mark.OPPOSITE: "signs differ",
}


Chart = (
    alt.Chart
    | alt.ConcatChart
    | alt.FacetChart
    | alt.HConcatChart
    | alt.LayerChart
    | alt.RepeatChart
    | alt.VConcatChart
)


def to_csv(table: Table) -> str:
    """Numbers with an ASCII minus, missing ones empty; marks in words in the last column, the caption as comment."""
    out = io.StringIO()
    out.write(f"# {table.caption}\n")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["group", table.corner, *table.columns, "marks"])
    for row in table.rows:
        marks = [
            f"{column}: {NOTES[entry.mark]}"
            for column, entry in zip(table.columns, row.entries, strict=True)
            if entry.mark
        ]
        numbers = [entry.text.replace(MINUS, "-") for entry in row.entries]
        writer.writerow([row.group, row.name, *numbers, "; ".join(marks)])
    return out.getvalue()


def to_markdown(table: Table) -> str:
    """A pipe table, the caption below it."""
    align = ":--" if table.is_text else "--:"
    lines = [["", table.corner, *table.columns], [":--", ":--", *[align] * len(table.columns)]]
    for group, rows in groupby(table.rows, key=lambda row: row.group):
        for i, row in enumerate(rows):
            lines.append([group if i == 0 else "", row.name, *map(_markdown_entry, row.entries)])
    text = "\n".join("| " + " | ".join(_markdown(cell) for cell in line) + " |" for line in lines)
    return f"{text}\n\n{_markdown(f'{table.caption} {_key(table)}')}\n"


def _markdown(text: str) -> str:
    """No text of ours has bars; one of a data set's or a model's name must not break the table."""
    return text.replace("|", r"\|").replace("\n", " ")


def _markdown_entry(entry: Entry) -> str:
    words = f"**{entry.text}**" if entry.is_best else entry.text
    return f"{words}{entry.mark}"


def to_latex(table: Table) -> str:
    r"""A whole document, with the table between \begin{table} and \end{table}; it needs booktabs alone."""
    columns = "l" * (len(table.columns) - 1) + "p{4cm}" if table.is_text else "r" * len(table.columns)
    lines = [
        "% To include only the table, copy from \\begin{table}; it needs \\usepackage{booktabs}.",
        r"\documentclass{article}",
        r"\usepackage{booktabs}",
        rf"\usepackage[margin=1.5cm{',landscape' if table.is_text else ''}]{{geometry}}",
        r"\begin{document}",
        r"\begin{table}",
        r"\centering",
        r"\small",
        r"\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{_tex(f'{table.caption} {_key(table)}')}}}",
        rf"\begin{{tabular}}{{ll{columns}}}",
        r"\toprule",
        " & ".join(["", *map(_tex, (table.corner, *table.columns))]) + r" \\",
    ]
    for group, rows in groupby(table.rows, key=lambda row: row.group):
        lines.append(r"\midrule")
        for i, row in enumerate(rows):
            cells = [_tex(group) if i == 0 else "", _tex(row.name), *map(_tex_entry, row.entries)]
            lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}", r"\end{document}"]
    return "\n".join(lines) + "\n"


def _key(table: Table) -> str:
    """What bold and the signs mean, of those that are there."""
    entries = [entry for row in table.rows for entry in row.entries]
    bold = ["Bold: best in the column."] if any(entry.is_best for entry in entries) else []
    signs = [f"{mark} {note}." for mark, note in NOTES.items() if any(entry.mark is mark for entry in entries)]
    return " ".join(bold + signs)


def _tex(text: str) -> str:
    return "".join(TEX.get(c, c) for c in text)


def _tex_entry(entry: Entry) -> str:
    words = rf"\textbf{{{_tex(entry.text)}}}" if entry.is_best else _tex(entry.text)
    sign = _tex(entry.mark).strip("$")
    if sign and entry.text:
        sign = f"^{{{sign}}}"
    return f"{words}${sign}$" if sign else words


def picture(chart: Chart, file_format: str, palette: Palette, background: str) -> bytes:
    """The chart as it stands on the page, as a file: `file_format` is 'png' or 'svg'. Nothing is fetched."""
    import vl_convert

    spec = chart.to_dict()
    if "width" not in spec and not {"hconcat", "vconcat", "concat", "facet", "repeat"} & spec.keys():
        spec["width"] = PICTURE_WIDTH
    version, theme = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2]), _theme(palette, background)
    if file_format == "svg":
        return vl_convert.vegalite_to_svg(spec, version, config=theme, allowed_base_urls=[]).encode()
    return vl_convert.vegalite_to_png(spec, version, scale=SHARPNESS, config=theme, allowed_base_urls=[])


def _theme(palette: Palette, background: str) -> dict[str, object]:
    """What Streamlit's theme does for a chart on the page: fonts, inks, quiet axes."""
    quiet, faint = mix(background, palette.ink, 0.75), mix(background, palette.ink, 0.15)
    text = {"labelColor": quiet, "titleColor": quiet, "titleFontWeight": "normal", "labelFontSize": 13}
    axis = {
        **text,
        "titleFontSize": 13,
        "labelOverlap": True,
        "gridColor": faint,
        "domainColor": faint,
        "tickColor": faint,
    }
    return {
        "background": background,
        "font": FONTS,
        "padding": 16,
        "axis": axis,
        "legend": {**text, "titleFontSize": 13},
        "header": text,
        "title": {"color": palette.ink},
        "view": {"stroke": None},
    }


def file_name(*parts: str) -> str:
    """Parts of a name as one file-system-safe word."""
    return "-".join(re.sub(r"[^\w.]+", "-", part).strip("-") for part in parts if part)
