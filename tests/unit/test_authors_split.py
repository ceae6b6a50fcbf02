"""The authors' split is taken where a table holds their pairs and nothing else."""

import random
from pathlib import Path

import pytest

from engine.data import authors_split
from engine.data.dataset import load
from engine.vocabulary import NINE, Language, Pair

DE = Language.DE
TRAIN = [Pair(f"toxic {i}", f"neutral {i}") for i in range(12)]
TEST = [Pair("toxic 3", "neutral 3"), *(Pair(f"toxic {i}", f"neutral {i}") for i in range(20, 23))]
"""One pair stands in both."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    authors_split.write({DE: TRAIN}, {DE: TEST}, tmp_path / "split.csv")
    return tmp_path / "split.csv"


def test_their_pairs_in_any_order_are_split_as_they_did(file: Path) -> None:
    table = TRAIN + TEST
    random.Random(5).shuffle(table)
    assert authors_split.split(DE, table, file) == (tuple(TRAIN), tuple(TEST))


@pytest.mark.parametrize(
    "table",
    [
        (TRAIN + TEST)[1:],
        [*TRAIN, *TEST, Pair("one", "more")],
        [*TRAIN, *TEST, TRAIN[0]],
        [Pair("toxic 0", "neutral 1"), *TRAIN[1:], *TEST],
    ],
)
def test_a_table_of_other_pairs_is_not_theirs(file: Path, table: list[Pair]) -> None:
    assert authors_split.split(DE, table, file) is None


def test_other_languages_are_not_theirs(file: Path) -> None:
    assert authors_split.split(Language.EN, TRAIN + TEST, file) is None


def test_the_file_holds_hashes_alone(file: Path) -> None:
    assert "toxic 1" not in file.read_text() and len(file.read_text().splitlines()) == 1 + 16
    lines = authors_split.FILE.read_text().splitlines()[1:]
    parts = [tuple(line.split(",")[:2]) for line in lines]
    assert {(lang, parts.count((lang, "train")), parts.count((lang, "test"))) for lang, _ in parts} == {
        (lang.value, 300, 100) for lang in NINE
    }
    assert all(len(line.split(",")[2]) == 16 for line in lines)


def test_a_data_set_says_whose_split_it_has(tmp_path: Path) -> None:
    assert load("sample").split_by == "our own permutation"
    for part, n in (("train", 10), ("test", 2)):
        for side in ("toxic", "neutral"):
            (tmp_path / f"de_{part}_{side}.csv").write_text("".join(f"{side} {part} {i}\n" for i in range(n)))
    assert load(str(tmp_path), [DE]).split_by == "as in its files"
