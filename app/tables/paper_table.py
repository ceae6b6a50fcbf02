"""Tables in the paper's style: a grid of cells → rows of entries → HTML. Knows no Streamlit.

A ZS row of scores, below it Δ by strategy, means at the ends; the best of every column is marked, and so is what is
degenerate, uncertain or missing. What a table says is worked out here once: the page and the exports show the same.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from html import escape
from itertools import groupby
from typing import Any

import pandas as pd

from app.labels import MEAN, Measure, format_number, lang_name
from app.tables.grid import State
from engine.vocabulary import Language, Strategy, Verdict, parse_label


class Mark(StrEnum):
    """What a reader must know of an entry before believing it, and the sign for it."""

    PLAIN = ""
    UNCERTAIN = "○"
    DEGENERATE = "†"
    MISSING = "×"
    OPPOSITE = "≠"


@dataclass(frozen=True)
class Entry:
    """One place of a table: what it says ('' when missing), its mark, and what there is to say about it."""

    text: str
    mark: Mark = Mark.PLAIN
    is_best: bool = False
    remark: str = ""


@dataclass(frozen=True)
class Row:
    """`group` stands once for all rows that follow each other in it; a summary is set apart from what it sums up."""

    group: str
    name: str
    entries: tuple[Entry, ...]
    is_summary: bool = False


@dataclass(frozen=True)
class Table:
    """`columns` are those of the entries; `corner` is the head of the rows' names."""

    caption: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    is_text: bool = False
    """Entries are words too, and set to the left."""


GROUPS = {strategy.value: f"{strategy} (Δ)" for strategy in Strategy} | {Strategy.ZS.value: "ZS (score)"}
DIGITS = 2
"""As the paper prints."""


def of_grid(grid_cells: pd.DataFrame, measure: Measure, caption: str) -> Table:
    """The table of a grid with its means: languages and their mean across, ZS and then every variant down."""
    cells = grid_cells.assign(is_best=_are_best(grid_cells, measure))
    places = {(c["row"], c["eval_lang"]): _entry(c, measure) for c in cells.to_dict("records")}
    grid_cells = grid_cells[(grid_cells["row"] != MEAN) & (grid_cells["eval_lang"] != MEAN)]
    columns = [*dict.fromkeys(grid_cells["eval_lang"]), MEAN]
    strategies = dict(zip(grid_cells["row"], grid_cells["strategy"], strict=True))
    rows: list[Row] = []
    for strategy, names in groupby(strategies, key=strategies.__getitem__):
        rows += [_row(name, GROUPS[strategy], columns, places) for name in names]
        if strategy == Strategy.X_FT:
            rows.append(_row(MEAN, GROUPS[strategy], columns, places))
    return Table(caption, "trained on", tuple(columns), tuple(rows))


def _row(name: str, group: str, columns: Sequence[str], places: Mapping[tuple[str, str], Entry]) -> Row:
    nothing = Entry("", Mark.MISSING, remark="not in the plan")
    entries = tuple(places.get((name, column), nothing) for column in columns)
    return Row(group, _short(name), entries, is_summary=name == MEAN)


def _short(row: str) -> str:
    """A row's name within its group: `x-ft-de` → 'de', `p-ft-10` → '10 %'."""
    strategy, trained_on = (None, MEAN) if row == MEAN else parse_label(row)
    match strategy:
        case Strategy.ZS:
            return "none"
        case Strategy.M_FT:
            return "all"
        case Strategy.P_FT:
            return f"{trained_on} %"
        case _:
            return trained_on


def _are_best(cells: pd.DataFrame, measure: Measure) -> pd.Series:
    """Whether a cell has the best Δ of its column, by what is shown. Degenerate ones, and means over other
    languages than those of the others, are not compared."""
    in_contest = (cells["row"] != "zs") & (cells["row"] != MEAN) & (cells["verdict"] != Verdict.DEGENERATE)
    in_contest &= cells["is_whole"].astype("boolean").fillna(True).astype(bool)
    rounded = cells["shown"].where(in_contest).round(DIGITS)
    by_column = rounded.groupby(cells["eval_lang"])
    return rounded.notna() & (rounded == by_column.transform("min" if measure.is_reversed else "max"))


def _entry(cell: Mapping[Hashable, Any], measure: Measure) -> Entry:
    if cell["state"] == State.MISSING:
        return Entry("", Mark.MISSING, remark=f"missing: {cell['why']}")
    mark = Mark.UNCERTAIN if cell["state"] == State.UNCERTAIN else Mark.PLAIN
    if cell["verdict"] == Verdict.DEGENERATE:
        mark = Mark.DEGENERATE
    remarks = [str(word) for word in (cell["verdict"], cell["verdict_reason"]) if isinstance(word, str)]
    parts = [": ".join(remarks)] if remarks else []
    if not pd.isna(cell["ci_low"]):
        low, high = (format_number(cell[end], DIGITS) for end in ("ci_low", "ci_high"))
        parts.append(f"95\N{NO-BREAK SPACE}% interval {low} to {high}")
    if not pd.isna(cell["n_pairs"]) and not pd.isna(cell["n"]):
        parts.append(f"{cell['n_pairs']:.0f} of {cell['n']:.0f} prompts")
    return Entry(format_number(cell["shown"], DIGITS), mark, bool(cell["is_best"]), "; ".join(parts))


def footnotes(table: Table) -> list[str]:
    """What is degenerate or missing, and why: a line for every reason, its languages and its rows."""
    places: dict[tuple[str, str, str], list[str]] = {}
    for row in (row for row in table.rows if not row.is_summary):
        for column, entry in zip(table.columns, row.entries, strict=True):
            if entry.mark in (Mark.DEGENERATE, Mark.MISSING) and column != MEAN:
                why = entry.remark.partition("; 95")[0]
                places.setdefault((row.group, row.name, why), []).append(column)
    lines: dict[tuple[str, str, str], list[str]] = {}
    for (group, name, why), columns in places.items():
        lines.setdefault((group, " ".join(columns), why), []).append(name)
    return [f"{group} {' '.join(names)} in {columns}: {why}" for (group, columns, why), names in lines.items()]


def html(table: Table) -> str:
    """The table in a box of its own that scrolls sideways, with a first column that stays."""
    heads = "".join(_head(column) for column in table.columns)
    wide = len(table.columns) + 1
    bodies = []
    for group, rows in groupby(table.rows, key=lambda row: row.group):
        title = f'<tr class="x-group"><th colspan="{wide}" scope="rowgroup"><span>{escape(group)}</span></th></tr>'
        bodies.append(f"<tbody>{title if group else ''}{''.join(_line(table.columns, row) for row in rows)}</tbody>")
    kind = "x-table x-words" if table.is_text else "x-table"
    return (
        f'<figure class="{kind}"><figcaption>{escape(table.caption)}</figcaption>'
        f'<div class="x-scroll" tabindex="0" role="region" aria-label="{escape(table.caption)}"><table>'
        f'<thead><tr><th scope="col">{escape(table.corner)}</th>{heads}</tr></thead>{"".join(bodies)}'
        "</table></div></figure>"
    )


def _head(column: str) -> str:
    title = f' title="{escape(lang_name(column))}"' if column in set(Language) else ""
    return f'<th scope="col"{title}>{escape(column)}</th>'


def _line(columns: Sequence[str], row: Row) -> str:
    name = f'<th scope="row">{escape(row.name)}</th>'
    kind = ' class="x-sum"' if row.is_summary else ""
    return f"<tr{kind}>{name}{''.join(map(_place, columns, row.entries))}</tr>"


def _place(column: str, entry: Entry) -> str:
    words = f"<b>{escape(entry.text)}</b>" if entry.is_best else escape(entry.text)
    mark = f"<sup>{entry.mark}</sup>" if entry.text and entry.mark else entry.mark.value
    kinds = [f"x-{entry.mark.name.lower()}"] * bool(entry.mark) + ["x-mean"] * (column == MEAN)
    kind = f' class="{" ".join(kinds)}"' if kinds else ""
    title = f' title="{escape(entry.remark)}"' if entry.remark else ""
    return f"<td{kind}{title}>{words}{mark}</td>"
