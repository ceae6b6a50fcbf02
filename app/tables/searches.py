"""Hyperparameter searches: points → chart, table and sentences. Knows nothing of Streamlit."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from app.labels import Palette, format_number
from app.tables.paper_table import Entry, Mark, Row, Table

Layers = alt.LayerChart | alt.FacetChart
"""What `alt.layer` says that it returns."""

DIGITS = 4
FRAME, STEP = 100, 44
"""Height of legend and axis, and of a learning rate and batch size, in pixels."""


def label(search: pd.Series) -> str:
    """What to call a search."""
    langs = search["train_langs"] if len(search["train_langs"].split()) < 9 else "all languages"
    halving = ", halving" if search["cost"] < 1 else ""
    name = f"{search['model']} · {langs} · {search['epochs']} epochs{halving} · {search['dataset']}"
    return f"{name} · seed {search['seed']} · {search['search_id'][:6]}"


def summary(search: pd.Series, points: pd.DataFrame) -> str:
    """What came of a search, in a sentence."""
    if pd.isna(search["finished_at"]):
        return f"Not finished: {len(points)} of {search['n_points']} points are finished."
    best = points.iloc[0]
    gain = search["base_nll"] - best["nll"]
    return (
        f"Chosen: {_name(best)}: {format_number(best['nll'], DIGITS)} nats per token on the validation text, "
        f"{format_number(abs(gain), DIGITS)} {'below' if gain > 0 else 'above'} the base model."
    )


def _name(point: pd.Series) -> str:
    return (
        f"rank {point['rank']}, α {point['alpha']}, learning rate {point['learning_rate']:g}, "
        f"batch {point['batch_size']}"
    )


def chart(points: pd.DataFrame, base_nll: float, colours: Sequence[str], palette: Palette) -> Layers:
    """The likelihood of every point, by learning rate and batch size; what was left behind is hollow, the bare base a
    line (where it is known)."""
    frame = points[points["nll"].notna()].assign(
        trained=lambda t: "LR " + t["learning_rate"].map("{:g}".format) + ", batch " + t["batch_size"].astype(str),
        adapter=lambda t: "rank " + t["rank"].astype(str) + ", α " + t["alpha"].astype(str),
        is_left=lambda t: t["rung"] < t["rung"].max(),
    )
    order = frame.sort_values(["learning_rate", "batch_size"], ascending=[False, True])["trained"].unique().tolist()
    names = sorted(frame["adapter"].unique())
    y = alt.Y("trained:N", sort=order, title=None, axis=alt.Axis(labelLimit=200, grid=True))
    x = alt.X("nll:Q", title="validation loss in nats per token (left: better)", scale=alt.Scale(zero=False))
    legend = alt.Legend(title=None, orient="top", columns=alt.ExprRef("width < 500 ? 2 : 4"), symbolOpacity=1)
    scale = alt.Scale(domain=names, range=[colours[i % len(colours)] for i in range(len(names))])
    shapes = alt.Scale(domain=names, range=["circle", "square", "triangle-up", "diamond"])
    tips = [alt.Tooltip(name) for name in ("adapter:N", "trained:N", "nll:Q", "epochs:Q", "final_loss:Q")]
    base = alt.Chart(frame).encode(
        x=x,
        y=y,
        yOffset=alt.YOffset("adapter:N", sort=names),
        color=alt.Color("adapter:N", scale=scale, legend=legend),
        shape=alt.Shape("adapter:N", scale=shapes, legend=legend),
        tooltip=tips,
    )
    drawn = [
        base.transform_filter("!datum.is_left").mark_point(filled=True, size=70, opacity=1),
        base.transform_filter("datum.is_left").mark_point(filled=False, size=55, strokeWidth=1.5),
    ]
    if pd.notna(base_nll):
        line = alt.Chart(pd.DataFrame({"nll": [base_nll]})).mark_rule(color=palette.ink, strokeDash=[5, 3])
        drawn.append(line.encode(x=x))
    layers: Layers = alt.layer(*drawn).properties(height=FRAME + STEP * len(order))
    layers = layers.configure_axis(labelColor=palette.ink, titleColor=palette.ink)
    return layers


COLUMNS = ("validation loss (nats per token)", "epochs", "final training loss")


def table(points: pd.DataFrame, caption: str) -> Table:
    """All points, the best first."""
    rows = []
    for number, (_, point) in enumerate(points.iterrows()):
        nll = Entry("", Mark.MISSING, remark=str(point["failure"])) if pd.isna(point["nll"]) else None
        entries = (
            nll or Entry(format_number(point["nll"], DIGITS), is_best=number == 0),
            Entry(f"{point['epochs']:g}"),
            Entry(format_number(point["final_loss"], DIGITS)),
        )
        rows.append(Row("", _name(point), entries))
    return Table(caption, "point", COLUMNS, tuple(rows))
