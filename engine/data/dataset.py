"""The only reader of sentence pairs: the bundled sample, the hub's data set, a folder.

Two layouts of a folder: `{lang}_{train|test}_{toxic|neutral}.csv` (records of one field, no header), and
`{lang}.{csv,tsv,jsonl,parquet}` with the columns `toxic_sentence, neutral_sentence` (or others that are named), which
we split ourselves, but for ParaDetox, whose authors published a split.
"""

import codecs
import csv
import io
import json
import re
import unicodedata
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
from engine.vocabulary import NINE, Language, Pair, digest

SAMPLE = DATA / "sample"
HUB_ID = "textdetox/multilingual_paradetox"
NAMES = ("sample", "paradetox")
COLUMNS = ("toxic_sentence", "neutral_sentence")
"""Of the toxic and of the neutral sentences, unless other names are given."""
ENDINGS = ("csv", "tsv", "jsonl", "parquet")
HEADERS = frozenset({*COLUMNS, "toxic", "neutral", "text", "sentence", "sentences"})
"""First records of the four-file layout that are no sentences."""
DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
MAX_OVERLAP = 0.1
"""The share of a language's test pairs that may have a sentence of its training pairs."""
BY_FILES, BY_AUTHORS, BY_US = "as in its files", "the authors' published split", "our own permutation"


class EqualPairsWarning(UserWarning):
    """Pairs whose two sides are the same: they teach nothing, and are kept."""


class DataWarning(UserWarning):
    """What is odd about a data set and does not stop it: repeated pairs, files that are not read."""


@dataclass(frozen=True)
class Dataset:
    """Pairs by language, split into train and test. `content_hash` is the identity of the content alone; `split_by`
    says whose split it is."""

    name: str
    train: Mapping[Language, tuple[Pair, ...]]
    test: Mapping[Language, tuple[Pair, ...]]
    content_hash: str
    split_by: str


def load(
    name: str,
    needed: Iterable[Language] = NINE,
    columns: tuple[str, str] = COLUMNS,
    allow_overlap: bool = False,
) -> Dataset:
    """`sample`, `paradetox`, a folder or a data set of the hub, complete for the `needed` languages.

    `columns`: of tables. `allow_overlap`: test sentences may be in the training text, however many. Errors: UsageError
    (no such data set), DatasetError (names file and record, and what to do).
    """
    if name == "sample":
        folder = SAMPLE
    elif name == "paradetox":
        folder = _hub_folder(HUB_ID)
    elif Path(name).is_dir():
        folder = Path(name)
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith("."):
        folder = _hub_folder(name)
    elif "/" in name or Path(name).exists():
        raise DatasetError(f"{name}: no such folder. Give --dataset {', '.join(NAMES)} or an existing folder.")
    else:
        raise unknown("data set", name, NAMES, "--dataset; or a folder")

    train: dict[Language, tuple[Pair, ...]] = {}
    test: dict[Language, tuple[Pair, ...]] = {}
    split_by: dict[str, None] = {}
    needed = tuple(needed)
    # The nine as always, and others where they are asked for: a data set that gains a language keeps its identity.
    for lang in (lang for lang in Language if lang in NINE or lang in needed):
        of_lang = _read_language(folder, lang, columns)
        if of_lang is not None:
            (train[lang], test[lang]), by = of_lang
            split_by[by] = None
    missing = [lang.value for lang in needed if lang not in train]
    if missing:
        raise DatasetError(
            f"{folder}: no sentence pairs for {', '.join(missing)}. Expected {missing[0]}_train_toxic.csv, "
            f"{missing[0]}_train_neutral.csv, {missing[0]}_test_toxic.csv, {missing[0]}_test_neutral.csv, "
            f"or {missing[0]}.csv, .tsv, .jsonl or .parquet with the columns {', '.join(columns)}. "
            "Or choose the languages of the sweep with --languages."
        )
    _warn_of_equal_pairs(folder, train, test)
    _warn_of_other_files(folder)
    _check_overlap(folder, train, test, allow_overlap)
    content = [
        [lang, part, [[pair.toxic, pair.neutral] for pair in pairs[lang]]]
        for part, pairs in (("train", train), ("test", test))
        for lang in train
    ]
    return Dataset(name.rstrip("/"), train, test, digest(content, 16), "; ".join(split_by))


def languages_in(folder: Path) -> tuple[Language, ...]:
    """The languages of a folder's files, by their names."""
    names = {re.split(r"[_.-]", path.name, maxsplit=1)[0] for ending in ENDINGS for path in folder.glob(f"*.{ending}")}
    return tuple(lang for lang in Language if lang.value in names)


def _read_language(folder: Path, lang: Language, columns: tuple[str, str]) -> tuple[Halves, str] | None:
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
    for ending in ENDINGS:
        # The hub's files are named {lang}-00000-of-00001.parquet.
        whole = folder / f"{lang}.{ending}"
        if files := [whole] if whole.exists() else sorted(folder.glob(f"{lang}-*.{ending}")):
            parts.append(files)
    if not parts:
        return None
    if len(parts) > 1:
        raise DatasetError(f"{parts[0][0]} and {parts[1][0].name}: two tables of {lang}. Keep one.")
    pairs = [pair for path in parts[0] for pair in _read_columns(path, columns)]
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
    """CSV records of one field; a quoted field may hold line breaks. A header is left out, and so are blank lines at
    the end."""
    records = [*_csv(path)]
    while records and not "".join(records[-1]).strip():
        records.pop()
    if records and len(records[0]) == 1 and records[0][0].strip().lower() in HEADERS:
        warnings.warn(f"{path}: its first record is taken for a header: {records[0][0]!r}.", DataWarning, 2)
        records = records[1:]
    sentences = []
    for number, record in enumerate(records, start=1):
        if len(record) > 1:
            raise DatasetError(
                f"{path}, record {number}: {len(record)} fields, expected one. Quote a sentence that has a comma."
            )
        sentences.append(_sentence(record[0] if record else "", path, number))
    return sentences


def _read_columns(path: Path, wanted: tuple[str, str]) -> list[Pair]:
    """A table with the wanted columns; record 1 of a CSV is the one after the header."""
    match path.suffix:
        case ".parquet":
            columns, rows = _parquet(path)
        case ".jsonl":
            columns, rows = _jsonl(path, wanted)
        case _:
            columns, *rows = [*_csv(path, _delimiter(path, wanted))] or [[]]
            while rows and not "".join(map(str, rows[-1])).strip():
                rows.pop()
    absent = [column for column in wanted if column not in columns]
    if absent:
        raise DatasetError(
            f"{path}: no column {absent[0]!r}; its columns are {', '.join(columns)}. "
            "Name yours with --toxic-column and --neutral-column."
        )
    places = [list(columns).index(column) for column in wanted]
    pairs = []
    for number, row in enumerate(rows, start=1):
        if len(row) > len(columns):
            raise DatasetError(
                f"{path}, record {number}: {len(row)} fields under {len(columns)} names. "
                f"Quote a sentence that has a comma."
            )
        pairs.append(Pair(*(_sentence(row[i] if i < len(row) else "", path, number) for i in places)))
    return pairs


def _delimiter(path: Path, wanted: tuple[str, str]) -> str:
    """What divides the header of a table where the wanted columns come out; else what the file's ending says."""
    header = _read_text(path).partition("\n")[0].rstrip("\r")
    for delimiter in DELIMITERS:
        if set(wanted) <= {name.strip().strip('"') for name in header.split(delimiter)}:
            return delimiter
    return "\t" if path.suffix == ".tsv" else ","


def _csv(path: Path, delimiter: str = ",") -> Iterator[list[str]]:
    done = 0
    try:
        for record in csv.reader(io.StringIO(_read_text(path), newline=""), strict=True, delimiter=delimiter):
            yield record
            done += 1
    except csv.Error as error:
        raise DatasetError(
            f"{path}, record {done + 1}: not CSV with {DELIMITERS[delimiter]} between fields ({error}). "
            "Double the quotes within a field."
        ) from error


def _jsonl(path: Path, wanted: tuple[str, str]) -> tuple[Sequence[str], list[list[object]]]:
    rows = []
    for number, line in enumerate(_read_text(path).rstrip("\n").split("\n"), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DatasetError(f"{path}, record {number}: not JSON ({error}). Write one object a line.") from error
        if not isinstance(row, dict):
            raise DatasetError(f"{path}, record {number}: no object. Write one object a line.")
        rows.append(row)
    absent = [column for column in wanted if not any(column in row for row in rows)]
    if absent:
        return sorted({key for row in rows for key in row}), []
    return wanted, [[row.get(column) for column in wanted] for row in rows]


def _parquet(path: Path) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
    try:
        table = pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise DatasetError(f"{path}: cannot be read as parquet: {error}") from error
    return list(map(str, table.columns)), table.itertuples(index=False)


def _read_text(path: Path) -> str:
    """Bytes that are not UTF-8 come out as lone surrogates, so that `_sentence` can say in which record they stand."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}).") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DatasetError(f"{path}: it is UTF-16. Save the file as UTF-8.")
    return content.decode("utf-8-sig", errors="surrogateescape")


def _sentence(value: object, path: Path, number: int) -> str:
    if isinstance(value, bool | int | float) and value == value:  # a missing one is NaN
        raise DatasetError(f"{path}, record {number}: {value!r} is a number, not a sentence. Write text.")
    if not isinstance(value, str) or all(unicodedata.category(c)[0] in "CZ" and not _is_lone(c) for c in value):
        raise DatasetError(f"{path}, record {number}: empty. Every pair needs both sentences; fill it in or remove it.")
    if any(map(_is_lone, value)):
        raise DatasetError(f"{path}, record {number}: not valid UTF-8{_other_encoding(value)}. Save the file as UTF-8.")
    return value.strip()


def _is_lone(character: str) -> bool:
    """Whether it stands for a byte that was not UTF-8."""
    return "\ud800" <= character <= "\udfff"


def _other_encoding(value: str) -> str:
    """The encoding that it may be, in words; '' where it is none that we know."""
    try:
        read = value.encode("utf-8", errors="surrogateescape").decode("cp1252")
    except UnicodeDecodeError:
        return ""
    return f"; as Windows-1252 (cp1252) it reads {read[:40]!r}"


def _warn_of_other_files(folder: Path) -> None:
    """Tables that are not read, since their names are those of no language here."""
    known = [lang.value for lang in Language]
    others = sorted(
        path.name
        for ending in ENDINGS
        for path in folder.glob(f"*.{ending}")
        if re.split(r"[_.-]", path.name, maxsplit=1)[0] not in known
    )
    if others:
        named = ", ".join(others[:5]) + (", …" if len(others) > 5 else "")
        warnings.warn(
            f"{folder}: not read, since their names are of no known language ({' '.join(known)}): {named}.",
            DataWarning,
            2,
        )


def _check_overlap(
    folder: Path,
    train: Mapping[Language, tuple[Pair, ...]],
    test: Mapping[Language, tuple[Pair, ...]],
    is_allowed: bool,
) -> None:
    """Repeated pairs, and test pairs with a sentence of the training text. Errors: DatasetError above `MAX_OVERLAP`."""
    repeats = {lang: n for lang in train if (n := len(train[lang]) - len(set(train[lang])))}
    if repeats:
        named = ", ".join(f"{lang} {n}" for lang, n in repeats.items())
        warnings.warn(f"{folder}: training pairs that are repeated ({named}).", DataWarning, 2)
    overlaps, most = {}, 0.0
    for lang, pairs in test.items():
        known = {side for pair in train[lang] for side in (pair.toxic, pair.neutral)}
        if n := sum(pair.toxic in known or pair.neutral in known for pair in pairs):
            overlaps[lang], most = n, max(most, n / len(pairs))
    if not overlaps:
        return
    named = ", ".join(f"{lang} {n} of {len(test[lang])}" for lang, n in overlaps.items())
    text = f"{folder}: test pairs with a sentence that is in the training text ({named})"
    if most > MAX_OVERLAP and not is_allowed:
        raise DatasetError(f"{text}. Remove them, or give --allow-overlap.")
    warnings.warn(f"{text}.", DataWarning, 2)


def _warn_of_equal_pairs(folder: Path, *parts: Mapping[Language, tuple[Pair, ...]]) -> None:
    counts = {
        lang.value: n
        for lang in parts[0]
        if (n := sum(pair.toxic == pair.neutral for part in parts for pair in part[lang]))
    }
    if counts:
        named = ", ".join(f"{lang} {n}" for lang, n in counts.items())
        warnings.warn(f"{folder}: {sum(counts.values())} pairs have two equal sides ({named}).", EqualPairsWarning, 2)


def _hub_folder(hub_id: str) -> Path:
    """The tables of a data set of the hub, `{lang}.…` or `{lang}-….…`, downloaded once by the hub's own cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        patterns = [f"{place}*.{ending}" for place in ("", "data/") for ending in ENDINGS]
        folder = Path(snapshot_download(hub_id, repo_type="dataset", allow_patterns=patterns))
        return folder / "data" if (folder / "data").is_dir() else folder
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise DatasetError(
            f"{hub_id} could not be downloaded ({type(error).__name__}). Check the network, or give --dataset sample "
            f"or a folder with its sentence pairs."
        ) from error
