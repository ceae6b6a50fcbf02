"""The split of ParaDetox that its authors published.

Owns `data/authors_split.csv`, which holds a hash of every pair and no sentence. The hub has the same pairs in one table
for each language, unsplit; a split of our own would put most of the authors' training pairs among the test prompts.

`python -m engine.data.authors_split FOLDER` makes the file again from a folder in the layout of four files a language.
"""

import csv
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from engine.config import DATA
from engine.vocabulary import Language, Pair, digest

FILE = DATA / "authors_split.csv"
COLUMNS = ("eval_lang", "part", "pair")
PARTS = ("train", "test")

Halves = tuple[tuple[Pair, ...], tuple[Pair, ...]]


def split(lang: Language, pairs: Sequence[Pair], file: Path = FILE) -> Halves | None:
    """The authors' (train, test) in their order, where `pairs` are exactly theirs in any order; else None."""
    order = _orders(file).get(lang)
    by_hash: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_hash.setdefault(_hash(pair), []).append(pair)
    if order is None or sorted(_hash(pair) for pair in pairs) != sorted(order["train"] + order["test"]):
        return None
    # A pair that stands in the table twice is handed out twice.
    train, test = (tuple(by_hash[pair].pop() for pair in order[part]) for part in PARTS)
    return train, test


def write(train: Mapping[Language, Sequence[Pair]], test: Mapping[Language, Sequence[Pair]], file: Path = FILE) -> None:
    """Makes the file of pairs in the authors' order."""
    with open(file, "w", encoding="utf-8", newline="") as target:
        rows = csv.writer(target, lineterminator="\n")
        rows.writerow(COLUMNS)
        for lang in train:
            for part, pairs in zip(PARTS, (train[lang], test[lang]), strict=True):
                rows.writerows((lang.value, part, _hash(pair)) for pair in pairs)


@cache
def _orders(file: Path) -> dict[str, dict[str, list[str]]]:
    """Language → part → the hashes of its pairs, in order."""
    orders: dict[str, dict[str, list[str]]] = {}
    with open(file, encoding="utf-8", newline="") as source:
        for row in csv.DictReader(source):
            parts = orders.setdefault(row["eval_lang"], {part: [] for part in PARTS})
            parts[row["part"]].append(row["pair"])
    return orders


def _hash(pair: Pair) -> str:
    return digest([pair.toxic, pair.neutral], 16)


if __name__ == "__main__":
    import sys

    from engine.data.dataset import load

    pairs = load(sys.argv[1])
    write(pairs.train, pairs.test)
