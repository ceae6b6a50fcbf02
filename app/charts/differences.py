"""The paired differences behind a cell: completions → one Δ per prompt → Altair chart. Knows nothing of Streamlit.

The mean and the interval that it marks are those of the cell; it works out none.
"""

from collections.abc import Mapping

import altair as alt
import numpy as np
import pandas as pd

from app.labels import Measure, Palette
from engine.vocabulary import Metric

COLUMNS: Mapping[str, str] = {
    Metric.TOXICITY: "toxicity",
    Metric.PERPLEXITY_SELF: "perplexity_self",
    Metric.PERPLEXITY_BASE: "perplexity_base",
}
"""The metrics whose values are kept for every completion, and the column of `reads.side_by_side`."""


def differences(rows: pd.DataFrame, metric: str) -> pd.Series:
    """ZS − variant of every prompt that has a value in both, its samples averaged; nats per token for perplexities.

    `rows`: see `reads.side_by_side`. Empty for a metric that is not in `COLUMNS`.
    """
    if metric not in COLUMNS:
        return pd.Series(dtype=float, name="delta")
    sides = rows[["prompt_index", f"{COLUMNS[metric]}_zs", COLUMNS[metric]]].set_index("prompt_index").astype(float)
    means = (sides if metric == Metric.TOXICITY else sides.transform(np.log)).groupby(level=0).mean()
    return means.iloc[:, 0].sub(means.iloc[:, 1]).rename("delta").dropna()


def histogram(deltas: pd.Series, cell: pd.Series, measure: Measure, palette: Palette) -> alt.LayerChart:
    """How many prompts changed by how much; the cell's Δ as a line and its interval as a band."""
    left, right = (f"← {measure.worse}", f"{measure.better} →")
    if measure.is_reversed:
        left, right = f"← {measure.better}", f"{measure.worse} →"
    unit = f", {measure.delta_unit}" if measure.delta_unit else ""
    title = f"{left}  ·  Δ per prompt{unit}  ·  {right}"
    across = alt.X("from:Q", title=title, axis=alt.Axis(grid=False, tickCount=7), scale=alt.Scale(nice=False))
    bars = alt.Chart(deltas.to_frame()).transform_bin(["from", "to"], field="delta", bin=alt.Bin(maxbins=40))
    bars = bars.mark_bar(color=palette.high, binSpacing=1, aria=False).encode(
        x=across,
        x2="to:Q",
        y=alt.Y("count():Q", title="prompts", axis=alt.Axis(tickMinStep=1, tickCount=4)),
        tooltip=[alt.Tooltip("count():Q", title="prompts"), alt.Tooltip("from:Q"), alt.Tooltip("to:Q")],
    )
    marked = pd.DataFrame([{"delta": cell["delta"], "low": cell["ci_low"], "high": cell["ci_high"], "zero": 0.0}])
    at = alt.Chart(marked)
    colour = palette.better if measure.is_better(cell["delta"]) else palette.worse
    band = at.mark_rect(color=colour, opacity=0.45, aria=False).encode(x="low:Q", x2="high:Q")
    zero = at.mark_rule(color=palette.ink, strokeDash=[3, 3], opacity=0.7, aria=False).encode(x="zero:Q")
    mean = at.mark_rule(color=palette.ink, strokeWidth=2.4, aria=False).encode(x="delta:Q")
    chart: alt.LayerChart = alt.layer(bars, band, zero, mean).properties(height=220).configure_view(stroke=None)
    return chart
