"""Training curves: losses → Altair chart. Knows nothing of Streamlit."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from app.labels import Palette, format_number

Layers = alt.LayerChart | alt.FacetChart
"""What `alt.layer` says that it returns."""

HEIGHT = 320
"""Of the chart, in pixels."""
DASHES = ([1, 0], [6, 3], [3, 1.5], [8, 3, 2, 3])
"""Neighbours of one colour family are told apart by these too."""
SHARE = 10
"""A smoothed curve is a mean over so small a part of its steps: one in ten."""


def losses(adapters: pd.DataFrame) -> pd.DataFrame:
    """Adapters (`adapters.list_adapters`, with `label`) → one row a step: label, step (from 1), epoch, loss, mean.

    `epoch` counts passes over the text, so that adapters with more text lie beside those with less. `mean` is that of
    the last steps up to this one: a `SHARE`th of the adapter's steps.
    """
    tables = [pd.DataFrame(columns=["label", "step", "epoch", "loss", "mean"])]
    for label, epochs, values in adapters[["label", "epochs", "losses"]].itertuples(index=False):
        step = pd.Series(range(1, len(values) + 1), dtype="int64")
        loss = pd.Series(values, dtype="float64")
        mean = loss.rolling(window(len(values)), min_periods=1).mean()
        columns = {"label": label, "step": step, "epoch": step / len(values) * epochs, "loss": loss, "mean": mean}
        tables.append(pd.DataFrame(columns))
    return pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)


def window(steps: int) -> int:
    """The steps that a point of a smoothed curve is the mean of."""
    return max(1, round(steps / SHARE))


def curves(rows: pd.DataFrame, is_smoothed: bool, colours: Sequence[str], palette: Palette) -> Layers:
    """The chart of `losses`; where it is smoothed, what was measured stays as a faint line behind."""
    names = list(dict.fromkeys(rows["label"]))
    scale = alt.Scale(domain=names, range=[colours[i % len(colours)] for i in range(len(names))])
    dashes = alt.Scale(domain=names, range=[DASHES[i % len(DASHES)] for i in range(len(names))])
    legend = alt.Legend(
        title=None, orient="top", columns=alt.ExprRef("width < 500 ? 2 : 4"), symbolStrokeWidth=2.5, symbolOpacity=1
    )

    def line(column: str, width: float, opacity: float = 1.0) -> alt.Chart:
        x = alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1), scale=alt.Scale(nice=False, zero=True))
        drawn: alt.Chart = alt.Chart(rows).mark_line(strokeWidth=width, opacity=opacity)
        return drawn.encode(
            x=x,
            y=alt.Y(f"{column}:Q", title="loss (nats per token)", scale=alt.Scale(zero=False)),
            color=alt.Color("label:N", scale=scale, legend=legend),
            strokeDash=alt.StrokeDash("label:N", scale=dashes, legend=legend),
            tooltip=[alt.Tooltip(f"{name}:{kind}") for name, kind in (("label", "N"), ("step", "Q"), ("loss", "Q"))],
        )

    lines = [line("loss", 1, opacity=0.28), line("mean", 2)] if is_smoothed else [line("loss", 1.6)]
    chart: Layers = alt.layer(*lines).properties(height=HEIGHT)
    chart = chart.configure_axis(labelColor=palette.ink, titleColor=palette.ink, labelOpacity=0.8, titleOpacity=0.8)
    chart = chart.configure_legend(labelColor=palette.ink)
    return chart


def alt_text(rows: pd.DataFrame) -> str:
    """The curves in words, for who cannot see them."""
    ends = rows.groupby("label", sort=False)["loss"].agg(["first", "last", "size"])
    sentences = [
        f"{label} from {format_number(first, 2)} to {format_number(last, 2)} in {size} steps"
        for label, first, last, size in ends.itertuples()
    ]
    return f"Loss in nats per token by epoch: {'; '.join(sentences)}"
