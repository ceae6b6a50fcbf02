"""Which words of two texts differ, without the app."""

import pytest

from app.text import diff


def marked(text: str, spans: list[diff.Span]) -> list[str]:
    return [text[start:end] for start, end in spans]


@pytest.mark.parametrize(
    ("before", "after", "ours", "theirs"),
    [
        ("The soup is cold.", "The soup is very hot.", ["cold"], ["very hot"]),
        ("one two", "one two three", [], ["three"]),
        ("Straße ist LANG, sehr", "strasse ist lang sehr", [], []),
        ("هذا الحساء بارد جدا", "هذا الحساء ساخن جدا", ["بارد"], ["ساخن"]),
        ("这碗汤太凉了。", "这碗汤很热了。", ["太凉"], ["很热"]),
        ("यह सूप ठंडा है", "यह सूप गरम है", ["ठंडा"], ["गरम"]),
        ("a b", "<b>a</b>", [], ["b"]),
        ("", "new", [], ["new"]),
        ("...", "!", [], []),
    ],
)
def test_what_differs_is_found_in_whole_words(before: str, after: str, ours: list[str], theirs: list[str]) -> None:
    own, other = diff.differences(before, after)
    assert marked(before, own) == ours
    assert marked(after, other) == theirs
