"""Published facts about languages and about the bases' training data; sources in data/languages/README.md."""

import pandas as pd

from engine.config import DATA

FOLDER = DATA / "languages"


def syntactic_distances() -> pd.DataFrame:
    """lang_a, lang_b, syntactic (0..1) of the 36 pairs of languages."""
    return pd.read_csv(FOLDER / "distances.csv")


def shares() -> pd.DataFrame:
    """model, lang, percent of the pre-training text, for the bases whose makers say."""
    return pd.read_csv(FOLDER / "shares.csv")
