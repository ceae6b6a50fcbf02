"""Every table and figure of the paper, and the view of the app that corresponds to it. Facts alone."""

from collections.abc import Mapping
from dataclasses import dataclass

from engine.vocabulary import Metric, Split


@dataclass(frozen=True)
class Item:
    """A table or figure: its name, what it shows, the page that shows the like ('' for none), and its address there."""

    name: str
    shows: str
    page: str
    address: Mapping[str, str]


NUMBERS: Mapping[tuple[str, Split], tuple[int, int, int, int]] = {
    ("aya-expanse-8b", Split.TOXIC_TRAIN): (1, 10, 14, 21),
    ("aya-expanse-8b", Split.TOXIC_TEST): (3, 11, 15, 22),
    ("aya-expanse-8b", Split.NEUTRAL_TEST): (4, 12, 16, 23),
    ("aya-23-8b", Split.TOXIC_TRAIN): (5, 3, 17, 24),
    ("aya-23-8b", Split.TOXIC_TEST): (6, 13, 18, 25),
    ("aya-23-8b", Split.NEUTRAL_TEST): (7, 14, 19, 26),
    ("mt5-large", Split.TOXIC_TRAIN): (8, 15, 20, 27),
    ("mt5-large", Split.TOXIC_TEST): (9, 16, 21, 28),
    ("mt5-large", Split.NEUTRAL_TEST): (10, 17, 22, 29),
    ("bloom-7b1", Split.TOXIC_TRAIN): (11, 18, 23, 30),
    ("bloom-7b1", Split.TOXIC_TEST): (12, 19, 24, 31),
    ("bloom-7b1", Split.NEUTRAL_TEST): (13, 20, 25, 32),
}
"""By model and split: the table of X-FT toxicity, the figure of P-FT and M-FT toxicity, and both of perplexity."""

OVERVIEWS = {"aya-23-8b": 2, "aya-expanse-8b": 4, "mt5-large": 5, "bloom-7b1": 6}
"""By model: the figure with all strategies on the three splits."""


def series(model: str, split: Split) -> list[Item]:
    """The two tables and two figures of a model and split."""
    x_tox, p_tox, x_ppl, p_ppl = NUMBERS[model, split]
    printed = {"source": "published", "model": model, "split": split.value}
    drawn = {"model": model, "split": split.value}
    toxicity, published, ours = Metric.TOXICITY.value, Metric.PERPLEXITY_PUBLISHED.value, Metric.PERPLEXITY_SELF.value
    return [
        Item(f"Table {x_tox}", "X-FT toxicity", "models", printed | {"metric": toxicity}),
        Item(f"Figure {p_tox}", "P/M-FT toxicity", "strategies", drawn | {"metric": toxicity}),
        Item(f"Table {x_ppl}", "X-FT perplexity", "models", printed | {"metric": published}),
        Item(f"Figure {p_ppl}", "P/M-FT perplexity", "strategies", drawn | {"metric": ours}),
    ]


def others() -> list[Item]:
    """What stands outside the series, in the paper's order of figures."""
    toxicity = {"metric": Metric.TOXICITY.value, "split": Split.TOXIC_TEST.value}
    overviews = [
        Item(
            f"Figure {number}",
            f"{model}: toxicity by strategy and language on the three splits",
            "strategies",
            {"model": model} | toxicity,
        )
        for model, number in OVERVIEWS.items()
    ]
    first = Item(
        "Figure 1",
        "example: a completion before and after fine-tuning on German, shown side by side here",
        "heatmap",
        {"row": "x-ft-de", "eval": "es"} | toxicity,
    )
    space = ("representations", {"source": "published", "model": "aya-23-8b", "after": "m-ft"})
    shapes = [
        Item("Figure 7", "aya-23-8b, zero-shot: similarity of the languages' embeddings", *space),
        Item("Figure 8", "aya-23-8b after M-FT: similarity of the languages' embeddings", *space),
        Item("Figure 9", "how well each base's embeddings separate by language (silhouettes)", *space),
    ]
    return [first, *overviews, *shapes]
