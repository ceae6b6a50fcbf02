"""The Representations page: similarity of sentences across languages, before and after fine-tuning. It computes no
number of its own.
"""

import pandas as pd
import streamlit as st

from app import labels, queries, widgets
from app.charts import space
from engine.analysis.geometry import COMBINED, MAP_SENTENCES
from engine.config import RESULTS
from engine.store import PUBLISHED
from engine.vocabulary import Part

PARTS = {COMBINED: "train and test", Part.TEST.value: "test", Part.TRAIN.value: "train"}
VIEWS = {"both": "before and after", "change": "change"}
SAME = 1e-4
"""Similarities that differ by less are the same."""
COLOURS = ("language", "toxicity")
CHOICE_WIDTH, MATRIX_WIDTH = 320, 620
"""Pixels."""


def main() -> None:
    source = st.session_state["source"]
    variants = queries.represented_variants(source)
    if variants.empty:
        not_there(source)
        return
    with st.container(horizontal=True, key="choices"):
        model = widgets.choose("Model", variants["model"].unique(), "model")
        variants = variants[variants["model"] == model].set_index("row")
        rows = sorted(variants.index.drop("zs", errors="ignore"), key=lambda row: row != "m-ft") or ["zs"]
        after = widgets.choose("Variant", rows, "after", lambda row: labels.row_name(row, long=True))
        part = widgets.choose("Sentences", PARTS, "part", PARTS.__getitem__)
    before = "zs" if "zs" in variants.index else after
    pair = variants.loc[list(dict.fromkeys([before, after]))]
    remarks(source, pair)
    matrices(source, pair)
    clusters(source, variants, pair, part)
    if source == PUBLISHED:
        widgets.note(
            "The paper publishes no map and no distances between toxic and neutral text. Your own runs have both."
        )
        return
    sentence_maps(source, pair, part)
    toxic_from_neutral(source, variants, pair, part)


def not_there(source: str) -> None:
    """What a run without embeddings is told."""
    sweep, path = str(queries.runs().at[source, "sweep"]), queries.results_path()
    file = "" if path.name == RESULTS.name and path.parent.name == RESULTS.parent.name else f" --db {path}"
    st.info("This run has no sentence embeddings. To add them, run the same command again with `--represent`:")
    st.code(f"python run_sweep.py {sweep} …{file} --represent", language=None, wrap_lines=True)


def remarks(source: str, pair: pd.DataFrame) -> None:
    """What these numbers are of."""
    if source == PUBLISHED:
        widgets.note(
            "As in the authors' code, an embedding is the last layer's hidden state at position 0, which is often left "
            "padding. Compare patterns, not levels, with those of a run."
        )
        return
    n_sentences = pair["n_sentences"].astype(int).tolist()[0]
    widgets.note(
        f"An embedding is the mean of the last layer's hidden states over the sentence's tokens; {n_sentences:,} "
        "toxic and neutral sentences from the data set. Distances are cosine distances."
    )


def names_of(pair: pd.DataFrame) -> list[str]:
    return [labels.row_name(row, long=True) for row in pair.index]


def theme() -> tuple[str, labels.Palette]:
    kind = st.context.theme.type or "light"
    return kind, labels.PALETTES[kind]


def matrices(source: str, pair: pd.DataFrame) -> None:
    """The similarity of every two groups, before and after, or how it changed."""
    kind, palette = theme()
    st.subheader("Sentence similarity")
    similarities = queries.similarities(source, tuple(pair["variant_id"]))
    wholes = [space.symmetric(similarities[similarities["variant_id"] == variant]) for variant in pair["variant_id"]]
    moved = space.change(wholes[0], wholes[-1])
    with st.container(width=CHOICE_WIDTH):
        view = widgets.choose("Show", VIEWS if len(pair) > 1 else ["both"], "show", VIEWS.__getitem__)
    widgets.note(
        "Mean cosine similarity over all pairs of two groups of sentences. Each language has four groups: train "
        "toxic, train neutral, test toxic, test neutral."
    )
    names = names_of(pair)
    if view == "change":
        with st.container(width=MATRIX_WIDTH):
            widgets.lead(f"{names[-1]} − {names[0]}")
            ends = space.ends_of(moved["similarity"], is_change=True)
            chart = space.similarity_matrix(moved, ends, palette, kind, is_change=True)
            st.altair_chart(chart, alt=f"Change in similarity, {names[-1]} minus {names[0]}, 4 groups per language")
    else:
        ends = space.ends_of(pd.concat(wholes)["similarity"])
        for column, name, matrix in zip(st.columns(2), names, wholes, strict=False):
            with column:
                widgets.lead(name)
                chart = space.similarity_matrix(matrix, ends, palette, kind)
                st.altair_chart(chart, alt=f"Sentence similarity, {name}, 4 groups per language")
    widgets.lead(same_and_other(wholes, names))


def same_and_other(wholes: list[pd.DataFrame], names: list[str]) -> str:
    """The matrices in a sentence or two."""
    sentences = []
    for name, matrix in zip(names, wholes, strict=True):
        within, between = (labels.format_number(mean, 3) for mean in space.within_and_between(matrix))
        sentences.append(f"{name}: {within} within a language, {between} between languages.")
    if len(wholes) > 1 and space.change(*wholes)["similarity"].abs().max() < SAME:
        sentences.append("No difference before and after fine-tuning.")
    return " ".join(sentences)


def clusters(source: str, variants: pd.DataFrame, pair: pd.DataFrame, part: str) -> None:
    """Silhouettes by language and, of a run, by toxicity."""
    st.subheader("Silhouettes")
    widgets.note(
        "Near 1: close to its own cluster; 0: between two clusters; below 0: closer to another. A lower silhouette by "
        "language means that the languages overlap more."
    )
    silhouettes = queries.silhouettes(source).rename(columns={"silhouette": "value"})
    kinds = {"language": "silhouette, by language", "toxicity": "silhouette, toxic vs. neutral"}
    of_part = silhouettes[silhouettes["part"] == part].groupby("clusters")
    for column, (kind, title) in zip(st.columns(2), kinds.items(), strict=True):
        if kind in of_part.groups:
            with column:
                numbers(of_part.get_group(kind), variants, pair, title)


def toxic_from_neutral(source: str, variants: pd.DataFrame, pair: pd.DataFrame, part: str) -> None:
    """How far toxic text lies from neutral text of its language."""
    st.subheader("Distance of toxic from neutral text")
    distances = queries.distances(source)
    distances = distances[distances["part"] == part]
    kinds = {
        "pair_distance": "distance between a toxic sentence and its rewrite",
        "mean_distance": "distance between the mean toxic and the mean neutral embedding",
    }
    for column, (kind, title) in zip(st.columns(2), kinds.items(), strict=True):
        with column:
            numbers(distances.rename(columns={kind: "value"}), variants, pair, title)


def numbers(values: pd.DataFrame, variants: pd.DataFrame, pair: pd.DataFrame, title: str) -> None:
    """One number a language and variant, before and after: eval_lang, variant_id, value."""
    kind, palette = theme()
    rows = pd.Series(variants.index, index=variants["variant_id"])
    of_rows = values[values["variant_id"].isin(rows.index)]
    of_rows = of_rows.assign(name=of_rows["variant_id"].map(rows).map(lambda row: labels.row_name(row, long=True)))
    if of_rows["value"].isna().all():
        widgets.note(f"Cannot compute {title}: only one language.")
        return
    chart = space.before_and_after(of_rows[["eval_lang", "name", "value"]], names_of(pair), title, palette, kind)
    st.altair_chart(chart, alt=f"{title}, by language: {' and '.join(names_of(pair))}")


def sentence_maps(source: str, pair: pd.DataFrame, part: str) -> None:
    """Where sentences lie, before and after, on the same axes."""
    kind, palette = theme()
    st.subheader("Map of sentences")
    with st.container(width=CHOICE_WIDTH):
        colour = widgets.choose("Colour by", COLOURS, "colour")
    points = queries.points(source, tuple(pair["variant_id"]))
    points = points if part == COMBINED else points[points["part"] == part]
    shares = [f"{share:.0%} {'before' if not i else 'after'}" for i, share in enumerate(pair["map_share"])]
    widgets.note(
        "The first two principal components before fine-tuning, and the same two after. Variance explained: "
        f"{', '.join(shares)}; points that are close here may be far apart in other dimensions. "
        f"At most {MAP_SENTENCES} sentences per group are shown. Click a legend entry to show it alone."
    )
    frame = space.frame_of(points)
    for column, name, variant in zip(st.columns(2), names_of(pair), pair["variant_id"], strict=False):
        with column:
            widgets.lead(name)
            of_variant = points[points["variant_id"] == variant]
            chart = space.sentence_map(of_variant, colour == "language", frame, palette, kind)
            st.altair_chart(chart, alt=f"Sentence map, {name}, coloured by {colour}")


main()
