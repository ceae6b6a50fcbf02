"""Token log-likelihoods of given text under variants and under the base: the basis of the three perplexities.

perplexity_self: the bare completion under the variant that wrote it. perplexity_base: the completion after its
prompt, under the base. perplexity_neutral: a neutral-test sentence under the variant. Untempered, in nats.

An encoder-decoder reads what a text comes after in its encoder: nothing (but the end token that closes every source)
before a bare text, the prompt, or the toxic sentence whose rewrite the neutral one is.
"""

from collections.abc import Hashable, Iterator, Sequence

import torch

from engine.config import BATCH_ROWS
from engine.generate.reader import by_adapter, equal_groups, left_padded, open_reader, right_padded
from engine.lora.stack import Stack
from engine.model.loading import LoadedBase
from engine.vocabulary import Likelihood, Pair

Text = tuple[int, ...]
"""Token ids."""


def of_texts(
    loaded: LoadedBase,
    stack: Stack,
    texts: Sequence[Sequence[int]],
    adapters: Sequence[str | None],
    batch_rows: int = BATCH_ROWS,
) -> list[Likelihood]:
    """Token ids of bare texts and the adapter of each → their likelihoods: see `alone`."""
    return after(loaded, stack, *alone(loaded.opening_ids, texts), adapters, batch_rows)


def alone(opening: Sequence[int], texts: Sequence[Sequence[int]]) -> tuple[list[Sequence[int]], list[Sequence[int]]]:
    """Bare texts → what each is judged after, and what is judged: the whole text after the tokenizer's opening token.

    For a tokenizer without one nothing predicts the first token, and the text is judged from the second on.
    """
    return [opening or text[:1] for text in texts], [text if opening else text[1:] for text in texts]


def of_pairs(
    loaded: LoadedBase,
    stack: Stack,
    pairs: Sequence[Pair],
    adapters: Sequence[str | None],
    batch_rows: int = BATCH_ROWS,
) -> list[Likelihood]:
    """The likelihood of neutral sentences: bare ones; given the toxic ones under an encoder-decoder."""
    if not pairs:
        return []
    tokens = loaded.tokenizer([pair.neutral for pair in pairs], add_special_tokens=False)["input_ids"]
    if not loaded.base.is_encoder_decoder:
        return of_texts(loaded, stack, tokens, adapters, batch_rows)
    sources = loaded.tokenizer([pair.toxic for pair in pairs])["input_ids"]
    return after(loaded, stack, sources, tokens, adapters, batch_rows)


def after_prompts(
    loaded: LoadedBase,
    stack: Stack,
    prompts: Sequence[str],
    texts: Sequence[Sequence[int]],
    batch_rows: int = BATCH_ROWS,
    is_chat: bool = False,
) -> list[Likelihood]:
    """Prompts and the token ids that followed each → the likelihood of those under the bare base."""
    contexts = loaded.encode(prompts, is_chat)
    return after(loaded, stack, contexts, texts, [None] * len(prompts), batch_rows)


@torch.inference_mode()
def after(
    loaded: LoadedBase,
    stack: Stack,
    contexts: Sequence[Sequence[int]],
    texts: Sequence[Sequence[int]],
    adapters: Sequence[str | None],
    batch_rows: int = BATCH_ROWS,
) -> list[Likelihood]:
    """The likelihood of each text after its context, under its adapter; an empty text has none: (0, 0).

    A context is read once, however many texts follow it, and equal beginnings of these are judged once.
    """
    keys = [(name, tuple(c), tuple(t)) for name, c, t in zip(adapters, contexts, texts, strict=True)]
    todo = [key for key in dict.fromkeys(keys) if key[2]]
    tree = _Beginnings()
    paths = {key: tree.path(*key) for key in todo}
    tokens_nll: dict[int, float] = {}
    for groups in _batches([name for name, _, _ in todo], [len(c) + len(t) for _, c, t in todo], batch_rows):
        # Of each adapter as many contexts as of any other, so that they can be read as a batch of equal groups.
        rows = [todo[i] for indices in groups.values() for i in indices]
        by_adapter = {name: list(dict.fromkeys(c for n, c, _ in rows if n == name)) for name in groups}
        most = max(map(len, by_adapter.values()))
        read = [
            (n, c)
            for n, of_adapter in by_adapter.items()
            for c in of_adapter + of_adapter[-1:] * (most - len(of_adapter))
        ]
        place = {key: row for row, key in reversed(list(enumerate(read)))}
        reader = open_reader(loaded)
        with stack.groups(list(groups)):
            first = reader.read(*left_padded([c for _, c in read], loaded.device))[:, -1:]
            owner = torch.tensor([place[name, context] for name, context, _ in rows], device=loaded.device)
            reader.select(owner)
            ids = right_padded([text for _, _, text in rows], loaded.device)
            hidden = first[owner]
            if ids.shape[1] > 1:
                hidden = torch.cat([hidden, reader.read(ids[:, :-1])], 1)
        new = {
            node: (row, end)
            for row, key in enumerate(rows)
            for end, node in enumerate(paths[key])
            if node not in tokens_nll
        }
        if new:
            at = torch.tensor(list(new.values()), device=loaded.device)
            nll = loaded.lm_head.nll(hidden[at[:, 0], at[:, 1]], ids[at[:, 0], at[:, 1]])
            tokens_nll.update(zip(new, nll.tolist(), strict=True))
    return [Likelihood(sum(tokens_nll[node] for node in paths.get(key, ())), len(key[2])) for key in keys]


class _Beginnings:
    """Numbers for the beginnings of texts: equal ones, after the same context under the same adapter, have the same."""

    def __init__(self) -> None:
        self.numbers: dict[Hashable, int] = {}

    def path(self, name: str | None, context: Text, text: Text) -> list[int]:
        """One for each token of a text: of what ends with it."""
        path, number = [], self._number((name, context))
        for token in text:
            number = self._number((number, token))
            path.append(number)
        return path

    def _number(self, key: Hashable) -> int:
        return self.numbers.setdefault(key, len(self.numbers))


def _batches(
    names: Sequence[str | None], lengths: Sequence[int], batch_rows: int
) -> Iterator[dict[str | None, list[int]]]:
    """Rows → batches of equally large groups: adapter → indices of rows, from short to long."""
    rows_of = by_adapter(names, lengths)
    size = max(1, batch_rows // max(1, len(rows_of)))
    for start in range(0, max(map(len, rows_of.values()), default=0), size):
        yield equal_groups({name: rows[start : start + size] for name, rows in rows_of.items()})
