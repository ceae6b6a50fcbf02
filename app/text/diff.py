"""The words in which two texts differ, as positions in each. Knows nothing of Streamlit or HTML."""

from difflib import SequenceMatcher

from engine.analysis import guards

Span = tuple[int, int]
"""From this character up to, not including, that one."""


def differences(before: str, after: str) -> tuple[list[Span], list[Span]]:
    """The runs of words of either text that the other has not, in the same order.

    Words are those of the guards: runs of letters, marks and digits, and single characters of Chinese. Case and what
    stands between words make no difference.
    """
    words = [list(guards.WORD.finditer(text)) for text in (before, after)]
    words_here, other = ([word.group().casefold() for word in matches] for matches in words)
    runs = SequenceMatcher(None, words_here, other, autojunk=False).get_opcodes()
    ours = [(words[0][a].start(), words[0][b - 1].end()) for tag, a, b, _, _ in runs if tag != "equal" and a < b]
    in_other = [(words[1][a].start(), words[1][b - 1].end()) for tag, _, _, a, b in runs if tag != "equal" and a < b]
    return ours, in_other
