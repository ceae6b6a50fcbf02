"""The errors that users see, and their base class. Every message names the thing and the way out."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches


class XDetError(Exception):
    """Base of all our errors. `str(error)` is written for the user: what is wrong, and what to do."""


class UsageError(XDetError):
    """A word of the command line, or a combination of them, that we do not know."""


class DatasetError(XDetError):
    """A data set that cannot be used; names file and record."""


class ModelError(XDetError):
    """A base model or an adapter that cannot be found, loaded or run."""


class ServerError(XDetError):
    """A server of models that cannot be reached, refuses, or breaks off."""


class StoreError(XDetError):
    """A results file that cannot be opened, read or written."""


class TrainingError(XDetError):
    """A variant whose training broke down (a loss that is no number)."""


def unknown(
    kind: str, name: str, known: Iterable[str], flag: str = "", readable: Callable[[str], str] = str
) -> UsageError:
    """The error for a word that is not one of `known`, with the nearest one that is, by what is `readable` of them."""
    names = list(known)
    by_part = {readable(n.lower()): n.lower() for n in reversed(names)}
    near = get_close_matches(readable(name.lower()), by_part, n=1, cutoff=0.5)
    hint = f" Did you mean {by_part[near[0]]!r}?" if near else ""
    where = f" ({flag})" if flag else ""
    return UsageError(f"unknown {kind} {name!r}{where}.{hint} Known: {', '.join(names)}.")
