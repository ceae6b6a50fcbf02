"""The only reader of sentence pairs: the bundled sample, the hub's data set, a folder.

Two layouts of a folder: `{lang}_{train|test}_{toxic|neutral}.csv` (records of one field, no header), and
`{lang}.{csv,jsonl,parquet}` with the columns `toxic_sentence, neutral_sentence`, which we split ourselves, but for
ParaDetox, whose authors published a split.
"""

import csv
import io
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from engine.config import DATA, MIN_EVAL_PAIRS, MIN_TRAIN_PAIRS
from engine.data import authors_split
from engine.data.authors_split import Halves
from engine.data.splits import partition
from engine.errors import DatasetError, unknown
from engine.vocabulary import Language, Pair, digest

SAMPLE = DATA / "sample"
HUB_ID = "textdetox/multilingual_paradetox"
NAMES = ("sample", "paradetox")
COLUMNS = ("toxic_sentence", "neutral_sentence")
BY_FILES, BY_AUTHORS, BY_US = "as in its files", "the authors' published split", "our own permutation"


class EqualPairsWarning(UserWarning):
    """Pairs whose two sides are the same: they teach nothing, and are kept."""


@dataclass(frozen=True)
class Dataset:
    """Pairs by language, split into train and test. `content_hash` is the identity of the content alone; `split_by`
    says whose split it is."""

    name: str
    train: Mapping[Language, tuple[Pair, ...]]
    test: Mapping[Language, tuple[Pair, ...]]
    content_hash: str
    split_by: str


def load(name: str, needed: Iterable[Language] = tuple(Language)) -> Dataset:
    """`sample`, `paradetox` or a folder, complete for the `needed` languages.

    Errors: UsageError (no such data set), DatasetError (names file and record, and what to do).
    """
    if name == "sample":
        folder = SAMPLE
    elif name == "paradetox":
        folder = _hub_folder()
    elif Path(name).is_dir():
        folder = Path(name)
    elif "/" in name or Path(name).exists():
        raise DatasetError(f"{name}: no such folder. Give --dataset {', '.join(NAMES)} or an existing folder.")
    else:
        raise unknown("data set", name, NAMES, "--dataset; or a folder")

    train: dict[Language, tuple[Pair, ...]] = {}
    test: dict[Language, tuple[Pair, ...]] = {}
    split_by: dict[str, None] = {}
    for lang in Language:
        of_lang = _read_language(folder, lang)
        if of_lang is not None:
            (train[lang], test[lang]), by = of_lang
            split_by[by] = None
    missing = [lang.value for lang in needed if lang not in train]
    if missing:
        raise DatasetError(
            f"{folder}: no sentence pairs for {', '.join(missing)}. Expected {missing[0]}_train_toxic.csv, "
            f"{missing[0]}_train_neutral.csv, {missing[0]}_test_toxic.csv, {missing[0]}_test_neutral.csv, "
            f"or {missing[0]}.csv, .jsonl or .parquet with the columns {', '.join(COLUMNS)}. "
            "P-FT and M-FT need all nine languages; leave them out with --strategies zs xft."
        )
    _warn_of_equal_pairs(folder, train, test)
    content = [
        [lang, part, [[pair.toxic, pair.neutral] for pair in pairs[lang]]]
        for part, pairs in (("train", train), ("test", test))
        for lang in train
    ]
    return Dataset(name.rstrip("/"), train, test, digest(content, 16), "; ".join(split_by))


def _read_language(folder: Path, lang: Language) -> tuple[Halves, str] | None:
    """(train, test) of one language and whose split it is, or None when the folder has no file of it."""
    four = [folder / f"{lang}_{part}_{side}.csv" for part in ("train", "test") for side in ("toxic", "neutral")]
    if any(path.exists() for path in four):
        for path in four:
            if not path.exists():
                raise DatasetError(f"{path}: missing, while other files of {lang} are there. Add it.")
        train, test = _read_two_files(*four[:2]), _read_two_files(*four[2:])
        _check_count(four[0], len(train), MIN_TRAIN_PAIRS)
        _check_count(four[2], len(test), MIN_EVAL_PAIRS)
        return (train, test), BY_FILES
    parts = []
    for ending in ("csv", "jsonl", "parquet"):
        # The hub's files are named {lang}-00000-of-00001.parquet.
        whole = folder / f"{lang}.{ending}"
        if files := [whole] if whole.exists() else sorted(folder.glob(f"{lang}-*.{ending}")):
            parts.append(files)
    if not parts:
        return None
    if len(parts) > 1:
        raise DatasetError(f"{parts[0][0]} and {parts[1][0].name}: two tables of {lang}. Keep one.")
    pairs = [pair for path in parts[0] for pair in _read_columns(path)]
    _check_count(parts[0][-1], len(pairs), MIN_TRAIN_PAIRS + MIN_EVAL_PAIRS + 2)
    published = authors_split.split(lang, pairs)
    return (published, BY_AUTHORS) if published else (partition(pairs), BY_US)


def _check_count(path: Path, count: int, least: int) -> None:
    if count < least:
        raise DatasetError(
            f"{path}: too few rows: it ends after record {count}; at least {least} are needed (training "
            f"{MIN_TRAIN_PAIRS}, test {MIN_EVAL_PAIRS}; one table for both {MIN_TRAIN_PAIRS + MIN_EVAL_PAIRS + 2})."
        )


def _read_two_files(toxic_path: Path, neutral_path: Path) -> tuple[Pair, ...]:
    toxic, neutral = _read_records(toxic_path), _read_records(neutral_path)
    if len(toxic) != len(neutral):
        shorter = min((len(toxic), toxic_path), (len(neutral), neutral_path))
        raise DatasetError(
            f"{toxic_path} has {len(toxic)} records and {neutral_path} has {len(neutral)}; record i of one is the "
            f"pair of record i of the other. {shorter[1].name} ends after record {shorter[0]}."
        )
    return tuple(map(Pair, toxic, neutral))


def _read_records(path: Path) -> list[str]:
    """CSV records of one field, no header; a quoted field may hold line breaks."""
    sentences = []
    for number, record in enumerate(_csv(path), start=1):
        if len(record) > 1:
            raise DatasetError(
                f"{path}, record {number}: {len(record)} fields, expected one. Quote a sentence that has a comma."
            )
        sentences.append(_sentence(record[0] if record else "", path, number))
    return sentences


def _read_columns(path: Path) -> list[Pair]:
    """A table with the columns `toxic_sentence, neutral_sentence`; record 1 of a CSV is the one after the header."""
    match path.suffix:
        case ".parquet":
            columns, rows = _parquet(path)
        case ".jsonl":
            columns, rows = _jsonl(path)
        case _:
            columns, *rows = [*_csv(path)] or [[]]
    absent = [column for column in COLUMNS if column not in columns]
    if absent:
        raise DatasetError(f"{path}: no column {absent[0]!r}; its columns are {', '.join(columns)}.")
    places = [list(columns).index(column) for column in COLUMNS]
    pairs = []
    for number, row in enumerate(rows, start=1):
        if len(row) > len(columns):
            raise DatasetError(
                f"{path}, record {number}: {len(row)} fields under {len(columns)} names. "
                f"Quote a sentence that has a comma."
            )
        pairs.append(Pair(*(_sentence(row[i] if i < len(row) else "", path, number) for i in places)))
    return pairs


def _csv(path: Path) -> Iterator[list[str]]:
    done = 0
    try:
        for record in csv.reader(io.StringIO(_read_text(path), newline=""), strict=True):
            yield record
            done += 1
    except csv.Error as error:
        raise DatasetError(
            f"{path}, record {done + 1}: not CSV ({error}). Double the quotes within a field."
        ) from error


def _jsonl(path: Path) -> tuple[Sequence[str], list[list[object]]]:
    rows = []
    for number, line in enumerate(_read_text(path).rstrip("\n").split("\n"), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DatasetError(f"{path}, record {number}: not JSON ({error}). Write one object a line.") from error
        if not isinstance(row, dict):
            raise DatasetError(f"{path}, record {number}: no object. Write one object a line.")
        rows.append(row)
    absent = [column for column in COLUMNS if not any(column in row for row in rows)]
    if absent:
        return sorted({key for row in rows for key in row}), []
    return COLUMNS, [[row.get(column) for column in COLUMNS] for row in rows]


def _parquet(path: Path) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
    try:
        table = pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise DatasetError(f"{path}: cannot be read as parquet: {error}") from error
    return list(map(str, table.columns)), table.itertuples(index=False)


def _read_text(path: Path) -> str:
    """Bytes that are not UTF-8 come out as lone surrogates, so that `_sentence` can say in which record they stand."""
    try:
        return path.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}).") from error


def _sentence(value: object, path: Path, number: int) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DatasetError(f"{path}, record {number}: empty. Every pair needs both sentences; fill it in or remove it.")
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise DatasetError(f"{path}, record {number}: not valid UTF-8. Save the file as UTF-8.")
    return value.strip()


def _warn_of_equal_pairs(folder: Path, *parts: Mapping[Language, tuple[Pair, ...]]) -> None:
    counts = {
        lang.value: n
        for lang in parts[0]
        if (n := sum(pair.toxic == pair.neutral for part in parts for pair in part[lang]))
    }
    if counts:
        named = ", ".join(f"{lang} {n}" for lang, n in counts.items())
        warnings.warn(f"{folder}: {sum(counts.values())} pairs have two equal sides ({named}).", EqualPairsWarning, 2)


def _hub_folder() -> Path:
    """The hub data set's parquet files, `{lang}-….parquet`, downloaded once by the hub's own cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(HUB_ID, repo_type="dataset", allow_patterns=["data/*.parquet"])) / "data"
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise DatasetError(
            f"{HUB_ID} could not be downloaded ({type(error).__name__}). Check the network, or give --dataset sample "
            f"or a folder with its sentence pairs."
        ) from error
