"""The only reader of sentence pairs: the bundled sample, the hub's data set, a folder.

Two layouts of a folder: `{lang}_{train|test}_{toxic|neutral}.csv` (records of one field, no header), and
`{lang}.{csv,jsonl,parquet}` with the columns `toxic_sentence, neutral_sentence`, which we split ourselves.
"""

import csv
import io
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from engine.config import MIN_EVAL_PAIRS, MIN_TRAIN_PAIRS
from engine.errors import DatasetError, unknown
from engine.splits import partition
from engine.vocabulary import Language, Pair, digest

SAMPLE = Path(__file__).parent.parent / "data" / "sample"
HUB_ID = "textdetox/multilingual_paradetox"
NAMES = ("sample", "paradetox")
COLUMNS = ("toxic_sentence", "neutral_sentence")


class EqualPairsWarning(UserWarning):
    """Pairs whose two sides are the same: they teach nothing, and are kept."""


@dataclass(frozen=True)
class Dataset:
    """Pairs by language, split into train and test. `content_hash` is the identity of the content alone."""

    name: str
    train: Mapping[Language, tuple[Pair, ...]]
    test: Mapping[Language, tuple[Pair, ...]]
    content_hash: str


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
    for lang in Language:
        found = _read_language(folder, lang)
        if found is not None:
            train[lang], test[lang] = found
    missing = [lang.value for lang in needed if lang not in train]
    if missing:
        raise DatasetError(
            f"{folder}: no sentence pairs for {', '.join(missing)}. Expected {missing[0]}_train_toxic.csv, "
            f"{missing[0]}_train_neutral.csv, {missing[0]}_test_toxic.csv, {missing[0]}_test_neutral.csv, "
            f"or {missing[0]}.csv, .jsonl or .parquet with the columns {', '.join(COLUMNS)}."
        )
    _warn_of_equal_pairs(folder, train, test)
    content = [
        [lang, part, [[pair.toxic, pair.neutral] for pair in pairs[lang]]]
        for part, pairs in (("train", train), ("test", test))
        for lang in train
    ]
    return Dataset(name.rstrip("/"), train, test, digest(content, 16))


def _read_language(folder: Path, lang: Language) -> tuple[tuple[Pair, ...], tuple[Pair, ...]] | None:
    """(train, test) of one language, or None when the folder has no file of it."""
    four = [folder / f"{lang}_{part}_{side}.csv" for part in ("train", "test") for side in ("toxic", "neutral")]
    if any(path.exists() for path in four):
        for path in four:
            if not path.exists():
                raise DatasetError(f"{path}: missing, while other files of {lang} are there. Add it.")
        train, test = _read_two_files(*four[:2]), _read_two_files(*four[2:])
        _check_count(four[0], len(train), MIN_TRAIN_PAIRS)
        _check_count(four[2], len(test), MIN_EVAL_PAIRS)
        return train, test
    for ending in ("csv", "jsonl", "parquet"):
        # The hub's files are named {lang}-00000-of-00001.parquet.
        for path in (folder / f"{lang}.{ending}", *sorted(folder.glob(f"{lang}-*.{ending}"))):
            if path.exists():
                pairs = _read_columns(path)
                _check_count(path, len(pairs), MIN_TRAIN_PAIRS + MIN_EVAL_PAIRS + 2)
                return partition(pairs)
    return None


def _check_count(path: Path, count: int, least: int) -> None:
    if count < least:
        raise DatasetError(f"{path}: too few rows: it ends after record {count}; at least {least} are needed.")


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
    for number, record in enumerate(csv.reader(io.StringIO(_read_text(path), newline=""), strict=True), start=1):
        if len(record) > 1:
            raise DatasetError(
                f"{path}, record {number}: {len(record)} fields, expected one. Quote a sentence that has a comma."
            )
        sentences.append(_sentence(record[0] if record else "", path, number))
    return sentences


def _read_columns(path: Path) -> list[Pair]:
    """A table with the columns `toxic_sentence, neutral_sentence`."""
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        elif path.suffix == ".jsonl":
            table = pd.read_json(io.StringIO(_read_text(path)), lines=True, dtype=False)
        else:
            table = pd.read_csv(io.StringIO(_read_text(path)), dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise DatasetError(f"{path}: cannot be read as {path.suffix[1:]}: {error}") from error
    absent = [column for column in COLUMNS if column not in table.columns]
    if absent:
        raise DatasetError(f"{path}: no column {absent[0]!r}; its columns are {', '.join(map(str, table.columns))}.")
    return [
        Pair(_sentence(toxic, path, number), _sentence(neutral, path, number))
        for number, (toxic, neutral) in enumerate(table[list(COLUMNS)].itertuples(index=False), start=1)
    ]


def _read_text(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        record = len(raw[: error.start].splitlines()) or 1
        raise DatasetError(
            f"{path}, record {record}: not valid UTF-8 (byte {error.start}). Save the file as UTF-8."
        ) from error


def _sentence(value: object, path: Path, number: int) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DatasetError(f"{path}, record {number}: empty. Every pair needs both sentences; fill it in or remove it.")
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
