"""Tables and files as people have them: read where that is certain, else refused with what they are."""

import json
from pathlib import Path

import pytest

from engine.data.dataset import DataWarning, load
from engine.errors import DatasetError
from engine.vocabulary import Language, Pair
from tests.unit.test_dataset import pairs, write_columns, write_four

DE = (Language.DE,)
PLAIN = [Pair(f"toxic {i}", f"neutral {i}") for i in range(20)]


def table(delimiter: str, names: tuple[str, str] = ("toxic_sentence", "neutral_sentence")) -> str:
    return "\n".join([delimiter.join(names), *(delimiter.join((pair.toxic, pair.neutral)) for pair in PLAIN)]) + "\n"


@pytest.fixture
def expected(tmp_path: Path) -> str:
    folder = tmp_path / "expected"
    folder.mkdir()
    write_columns(folder / "de.csv", PLAIN)
    return load(str(folder), DE).content_hash


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("de.csv", table(";").encode()),
        ("de.csv", table("\t").encode()),
        ("de.csv", table("|").encode()),
        ("de.tsv", table("\t").encode()),
        ("de.csv", table(",").replace("\n", "\r\n").encode()),
        ("de.csv", (table(",") + "\n\n").encode()),
        ("de.csv", b"\xef\xbb\xbf" + table(",").encode()),
        ("de.csv", b"\xef\xbb\xbf" + table(";").encode()),
    ],
    ids=["semicolon", "tab", "bar", "tsv", "crlf", "blank last lines", "BOM", "BOM and semicolon"],
)
def test_delimiters_line_ends_and_marks_are_recognised(
    tmp_path: Path, expected: str, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    assert load(str(tmp_path), DE).content_hash == expected


def test_columns_of_other_names(tmp_path: Path, expected: str) -> None:
    (tmp_path / "de.csv").write_text(table(",", ("bad", "good")))
    with pytest.raises(DatasetError, match="no column 'toxic_sentence'.*--toxic-column"):
        load(str(tmp_path), DE)
    assert load(str(tmp_path), DE, ("bad", "good")).content_hash == expected


def test_a_header_and_blank_last_lines_of_the_four_files_are_no_sentences(tmp_path: Path) -> None:
    plain, other = tmp_path / "plain", tmp_path / "other"
    plain.mkdir(), other.mkdir()
    write_four(plain, pairs(12), pairs(15)[12:])
    write_four(other, [Pair("toxic_sentence", "Text"), *pairs(12)], pairs(15)[12:])
    for path in other.iterdir():
        path.write_bytes(path.read_bytes() + b"\n\n")
    with pytest.warns(DataWarning, match="taken for a header"):
        found = load(str(other), DE)
    assert found.content_hash == load(str(plain), DE).content_hash


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (table(",").encode("utf-16"), "it is UTF-16. Save the file as UTF-8"),
        (table(",").replace("toxic 3", "straße").encode("cp1252"), "record 4: not valid UTF-8; as Windows-1252"),
        (table(",").replace("toxic 3", "\u200b\u200d\ufeff").encode(), "record 4: empty"),
        (table(",").replace("toxic 3", "\x00\x07").encode(), "record 4: empty"),
        (table(";").replace("neutral 3", '"neutral').encode(), "not CSV with a semicolon between fields"),
    ],
    ids=["utf-16", "cp1252", "zero width", "control", "quote"],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "de.csv").write_bytes(content)
    with pytest.raises(DatasetError) as caught:
        load(str(tmp_path), DE)
    assert says in str(caught.value)


def test_a_number_is_no_sentence(tmp_path: Path) -> None:
    rows = [{"toxic_sentence": pair.toxic, "neutral_sentence": pair.neutral} for pair in PLAIN]
    rows[2]["toxic_sentence"] = 3.5  # type: ignore[assignment]
    (tmp_path / "de.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DatasetError, match="record 3: 3.5 is a number, not a sentence"):
        load(str(tmp_path), DE)


def test_tables_of_no_known_language_are_named(tmp_path: Path) -> None:
    write_columns(tmp_path / "de.csv", PLAIN)
    write_columns(tmp_path / "xx.csv", PLAIN)
    (tmp_path / "notes.txt").touch()
    with pytest.warns(DataWarning, match=r"not read, since their names are of no known language .*: xx.csv"):
        load(str(tmp_path), DE)


def test_another_language_beside_the_nine_does_not_change_what_the_data_set_is(tmp_path: Path) -> None:
    write_columns(tmp_path / "de.csv", PLAIN)
    before = load(str(tmp_path), DE)
    write_columns(tmp_path / "fr.csv", PLAIN)
    assert load(str(tmp_path), DE) == before
    assert set(load(str(tmp_path), (Language.DE, Language.FR)).train) == {Language.DE, Language.FR}


def test_repeated_pairs_and_test_sentences_that_are_trained_on(tmp_path: Path) -> None:
    test = [Pair(f"t{i}", f"n{i}") for i in range(30)]
    write_four(tmp_path, [*PLAIN, PLAIN[0], Pair("t1", "other")], test)
    with pytest.warns(DataWarning) as caught:
        load(str(tmp_path), DE)
    said = [str(warning.message) for warning in caught]
    assert any("repeated (de 1)" in text for text in said)
    assert any("in the training text (de 1 of 30)" in text for text in said)
    write_four(tmp_path, [*PLAIN, *test[:4]], test)
    with pytest.raises(DatasetError, match="de 4 of 30.*--allow-overlap"):
        load(str(tmp_path), DE)
    with pytest.warns(DataWarning, match="de 4 of 30"):
        load(str(tmp_path), DE, allow_overlap=True)
