"""Sentence pairs from the bundled sample and from folders: same content, same identity; bad input, a way out."""

import csv
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine.data import dataset
from engine.data.dataset import EqualPairsWarning, load
from engine.data.splits import partition
from engine.errors import DatasetError, UsageError
from engine.vocabulary import NINE, Language, Pair

DE = (Language.DE,)


def pairs(n: int) -> list[Pair]:
    """Pairs with all that a CSV must quote: a comma, quotes, a line break; and a script beyond ASCII."""
    return [Pair(f'toxic {i}, "so"\nsaid ü', f"neutral {i}\n\n你好") for i in range(n)]


def write_records(path: Path, sentences: list[str]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([sentence] for sentence in sentences)


def write_four(folder: Path, train: list[Pair], test: list[Pair], lang: str = "de") -> None:
    for part, found in (("train", train), ("test", test)):
        write_records(folder / f"{lang}_{part}_toxic.csv", [pair.toxic for pair in found])
        write_records(folder / f"{lang}_{part}_neutral.csv", [pair.neutral for pair in found])


def write_columns(path: Path, found: list[Pair]) -> None:
    table = pd.DataFrame([(pair.neutral, 1, pair.toxic) for pair in found])
    table.columns = ["neutral_sentence", "number", "toxic_sentence"]
    match path.suffix:
        case ".csv":
            table.to_csv(path, index=False)
        case ".jsonl":
            table.to_json(path, orient="records", lines=True, force_ascii=False)
        case ".parquet":
            table.to_parquet(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """German in four files, 12 + 3 short pairs."""
    found = [Pair(f"t{i}", f"n{i}") for i in range(1, 16)]
    write_four(tmp_path, found[:12], found[12:])
    return tmp_path


def refusal(folder: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        load(str(folder), DE)
    return str(caught.value)


# --- the bundled sample ---------------------------------------------------------------------------------------------


def test_the_sample_has_40_pairs_a_language_none_with_equal_sides() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load("sample")
    assert list(found.train) == list(found.test) == list(NINE)
    for lang in NINE:
        everything = [*found.train[lang], *found.test[lang]]
        assert (len(found.train[lang]), len(found.test[lang])) == (30, 10)
        assert len(set(everything)) == 40
        assert all(pair.toxic != pair.neutral for pair in everything)


def test_the_sample_written_out_and_read_again_is_the_same_data_set(sample: dataset.Dataset, tmp_path: Path) -> None:
    for lang in NINE:
        write_four(tmp_path, list(sample.train[lang]), list(sample.test[lang]), lang)
    again = load(str(tmp_path))
    assert (again.train, again.test, again.content_hash) == (sample.train, sample.test, sample.content_hash)


# --- layouts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["de.csv", "de.jsonl", "de.parquet", "de-00000-of-00001.parquet"])
def test_both_layouts_give_the_same_pairs_and_the_same_hash(tmp_path: Path, name: str) -> None:
    four, columns = tmp_path / "four", tmp_path / "columns"
    four.mkdir(), columns.mkdir()
    train, test = partition(pairs(40))
    write_four(four, list(train), list(test))
    write_columns(columns / name, pairs(40))
    one, other = load(str(four), DE), load(str(columns), DE)
    assert one.train == other.train == {Language.DE: train}
    assert one.test == other.test == {Language.DE: test}
    assert one.content_hash == other.content_hash


def test_a_table_in_several_hub_files_is_read_whole(tmp_path: Path) -> None:
    write_columns(tmp_path / "de-00000-of-00002.parquet", pairs(40)[:25])
    write_columns(tmp_path / "de-00001-of-00002.parquet", pairs(40)[25:])
    found = load(str(tmp_path), DE)
    assert {*found.train[Language.DE], *found.test[Language.DE]} == set(pairs(40))


def test_four_hundred_rows_are_300_and_100_by_the_documented_permutation(tmp_path: Path) -> None:
    write_columns(tmp_path / "de.csv", pairs(400))
    found = load(str(tmp_path), DE)
    order = np.random.default_rng(42).permutation(400)
    assert list(found.train[Language.DE]) == [pairs(400)[i] for i in order[:300]]
    assert list(found.test[Language.DE]) == [pairs(400)[i] for i in order[300:]]


def test_a_byte_order_mark_belongs_to_no_sentence(folder: Path) -> None:
    before = load(str(folder), DE)
    path = folder / "de_train_toxic.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load(str(folder), DE) == before


@pytest.mark.parametrize("side", ["train_toxic", "train_neutral", "test_toxic", "test_neutral"])
def test_one_character_makes_another_data_set(folder: Path, side: str) -> None:
    before = load(str(folder), DE).content_hash
    path = folder / f"de_{side}.csv"
    path.write_text(path.read_text().replace("1", "X", 1))
    assert load(str(folder), DE).content_hash != before


def test_equal_pairs_are_kept_with_a_warning_that_counts_them(folder: Path) -> None:
    same = [Pair("t", "t"), Pair("u", "u")]
    write_four(folder, [Pair(f"t{i}", f"n{i}") for i in range(10)] + same, [Pair("a", "b"), Pair("v", "v")])
    with pytest.warns(EqualPairsWarning, match=r"3 pairs have two equal sides \(de 3\)"):
        found = load(str(folder), DE)
    assert found.train[Language.DE][-2:] == tuple(same)


# --- bad input ------------------------------------------------------------------------------------------------------


def records(side: str, change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Path], None]:
    """Changes the lines of one of the four files."""

    def edit(folder: Path) -> None:
        path = folder / f"de_{side}.csv"
        path.write_bytes(b"".join(line + b"\n" for line in change(path.read_bytes().split())))

    return edit


def fifth(raw: bytes, before: bytes = b"x") -> Callable[[list[bytes]], list[bytes]]:
    """The fifth record becomes `raw`, the fourth `before`."""
    return lambda lines: [*lines[:3], before, raw, *lines[5:]]


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda folder: (folder / "de_test_neutral.csv").unlink(), ["de_test_neutral.csv: missing", "Add it"]),
        (
            records("train_neutral", lambda lines: lines[:-1]),
            ["de_train_toxic.csv has 12", "de_train_neutral.csv has 11", "de_train_neutral.csv ends after record 11"],
        ),
        (records("train_toxic", fifth(b'""')), ["de_train_toxic.csv, record 5: empty", "fill it in or remove it"]),
        (records("train_toxic", fifth(b"")), ["de_train_toxic.csv, record 5: empty"]),
        (records("test_neutral", lambda lines: [lines[0], b"", lines[2]]), ["de_test_neutral.csv, record 2: empty"]),
        (records("train_toxic", fifth(b" \t ")), ["de_train_toxic.csv, record 5: empty"]),
        (records("train_toxic", fifth("\u3000\u00a0".encode())), ["de_train_toxic.csv, record 5: empty"]),
        (records("train_toxic", fifth(b"xx\xffx")), ["de_train_toxic.csv, record 5: not valid UTF-8", "Save the file"]),
        (records("train_toxic", fifth(b"\xffx")), ["de_train_toxic.csv, record 5: not valid UTF-8"]),
        (records("train_toxic", fifth(b"x\xff", before=b'"two\nlines"')), ["record 5: not valid UTF-8"]),
        (records("train_toxic", fifth(b"x,y")), ["de_train_toxic.csv, record 5: 2 fields", "Quote"]),
        (records("train_toxic", fifth(b'"x"y')), ["de_train_toxic.csv", "record 5"]),
        (records("train_toxic", lambda lines: [*lines[:-1], b'"x']), ["de_train_toxic.csv"]),
    ],
    ids=[
        "one file missing",
        "unequal counts",
        "empty, quoted",
        "blank line",
        "blank line in test",
        "blanks",
        "blanks beyond ASCII",
        "UTF-8 within a record",
        "UTF-8 at its start",
        "UTF-8 after a quoted line break",
        "two fields",
        "text after a quote",
        "quote never closed",
    ],
)
def test_four_bad_files_are_refused_by_file_and_record(
    folder: Path, edit: Callable[[Path], None], says: list[str]
) -> None:
    edit(folder)
    message = refusal(folder)
    assert [part for part in says if part not in message] == [], message


@pytest.mark.parametrize(
    ("train", "test", "says"),
    [
        (9, 3, "de_train_toxic.csv: too few rows: it ends after record 9; at least 10 are needed"),
        (12, 1, "de_test_toxic.csv: too few rows: it ends after record 1; at least 2 are needed"),
        (12, 0, "de_test_toxic.csv: too few rows: it ends after record 0; at least 2 are needed"),
    ],
)
def test_too_few_records_are_refused(tmp_path: Path, train: int, test: int, says: str) -> None:
    write_four(tmp_path, pairs(train), pairs(test))
    assert says in refusal(tmp_path)


HEADER = b"toxic_sentence,neutral_sentence\n"
LINES = [f"t{i},n{i}\n".encode() for i in range(1, 15)]


def table(fifth: bytes, header: bytes = HEADER) -> bytes:
    return header + b"".join([*LINES[:4], fifth, *LINES[5:]])


def objects(fifth: str) -> bytes:
    lines = [json.dumps({"toxic_sentence": f"t{i}", "neutral_sentence": f"n{i}"}) for i in range(1, 15)]
    return "\n".join([*lines[:4], fifth, *lines[5:]]).encode()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "de.csv",
            table(b"t,n\n", b"toxic_sentence,neutral\n"),
            ["no column 'neutral_sentence'", "toxic_sentence, neutral"],
        ),
        ("de.csv", HEADER + b"".join(LINES[:13]), ["too few rows", "record 13", "at least 14"]),
        ("de.csv", table(b"t,\n"), ["record 5: empty"]),
        ("de.csv", table(b"t\n"), ["record 5: empty"]),
        ("de.csv", table(b"  ,n\n"), ["record 5: empty"]),
        ("de.csv", table(b"t\xff,n\n"), ["record 5: not valid UTF-8"]),
        ("de.csv", HEADER + b"".join(line.replace(b"\n", b",x\n") for line in LINES), []),
        ("de.csv", b"", []),
        ("de.jsonl", objects('{"toxic_sentence": "t", "neutral_sentence": ""}'), ["record 5: empty"]),
        ("de.jsonl", objects('{"toxic_sentence": "t"}'), ["record 5: empty"]),
        ("de.jsonl", objects('{"toxic_sentence": "t", "neutral_sentence": null}'), ["record 5: empty"]),
        ("de.jsonl", objects('{"toxic_sentence": '), []),
        ("de.jsonl", objects("5"), []),
        ("de.jsonl", b'{"toxic_sentence": "t"}\n', ["no column 'neutral_sentence'"]),
        ("de.parquet", b"no parquet", ["parquet"]),
    ],
    ids=[
        *("csv, column missing", "csv, too few", "csv, empty", "csv, one field", "csv, blanks", "csv, UTF-8"),
        *("csv, three fields under two names", "csv, nothing", "jsonl, empty", "jsonl, key missing", "jsonl, null"),
        *("jsonl, broken", "jsonl, no object", "jsonl, column missing", "parquet, no parquet"),
    ],
)
def test_a_bad_table_is_refused_by_file_and_record(tmp_path: Path, name: str, content: bytes, says: list[str]) -> None:
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path)
    assert [part for part in [name, *says] if part not in message] == [], message


def test_an_empty_sentence_of_a_parquet_file_is_refused_by_record(tmp_path: Path) -> None:
    found = pairs(14)
    write_columns(tmp_path / "de.parquet", [*found[:4], Pair("t", " "), *found[5:]])
    assert "de.parquet, record 5: empty" in refusal(tmp_path)


def test_a_missing_language_is_named_with_the_files_that_would_do(folder: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        load(str(folder), (Language.DE, Language.EN, Language.ZH))
    message = str(caught.value)
    assert "no sentence pairs for en, zh" in message
    assert all(name in message for name in ("en_train_toxic.csv", "en_test_neutral.csv", "en.csv", "toxic_sentence"))


@pytest.mark.parametrize(("name", "nearest"), [("sampel", "sample"), ("paradetoxx", "paradetox")])
def test_an_unknown_name_is_refused_with_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UsageError, match=f"Did you mean '{nearest}'.*sample, paradetox"):
        load(name)


def test_a_missing_folder_and_a_file_in_its_place_are_refused(folder: Path) -> None:
    for path in (folder / "absent", folder / "de_test_toxic.csv"):
        with pytest.raises(DatasetError, match="no such folder.*--dataset"):
            load(str(path))


@pytest.mark.usefixtures("offline")
def test_a_hub_out_of_reach_is_said_with_a_way_out() -> None:
    with pytest.raises(DatasetError, match="multilingual_paradetox could not be downloaded.*--dataset sample"):
        load("paradetox")


def test_two_tables_of_a_language_are_refused(tmp_path: Path) -> None:
    (tmp_path / "de.csv").write_bytes(HEADER + b"".join(LINES))
    (tmp_path / "de.jsonl").write_bytes(objects("{}"))
    assert refusal(tmp_path) == f"{tmp_path / 'de.csv'} and de.jsonl: two tables of de. Keep one."
