"""The options of the command line, and how they change a named sweep."""

import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro
from tyro.conf import FlagCreatePairsOff, arg

from engine.config import SCORERS, Sweep, check
from engine.errors import UsageError, unknown
from engine.vocabulary import Language, Split, Strategy

E = TypeVar("E", bound=StrEnum)

FROM_SEARCH = "from-search"
SCORERS_HELP = (
    f"Toxicity scorers: {', '.join(kind.about for kind in SCORERS.values())}. "
    "Adding a scorer to a finished run scores its stored completions; nothing is regenerated."
)
SET_BY_SWEEP = "(default: set by the sweep)"
Words = Annotated[tuple[str, ...] | None, arg(metavar="WORD ...", help_behavior_hint=SET_BY_SWEEP)]
Number = Annotated[int | None, arg(metavar="N", help_behavior_hint=SET_BY_SWEEP)]
Word = Annotated[str | None, arg(metavar="WORD", help_behavior_hint=SET_BY_SWEEP)]
Decimal = Annotated[float | None, arg(metavar="X", help_behavior_hint=SET_BY_SWEEP)]
Place = Annotated[Path | None, arg(metavar="PATH", help_behavior_hint=SET_BY_SWEEP)]


@dataclass(frozen=True)
class Options:
    """What the command line may change in a named sweep; None, or a flag not given, leaves the sweep's own."""

    config: Annotated[Path | None, arg(metavar="FILE")] = None
    """TOML file with any of these options, as --print-config prints it; the command line overrides it."""
    models: Words = None
    """Base models: gemma-3-270m, aya-expanse-8b, aya-23-8b, bloom-7b1, mt5-large, a hub ID, or a local folder."""
    strategies: Words = None
    """ZS, X-FT, P-FT, M-FT."""
    train_langs: Words = None
    """Training languages for X-FT."""
    eval_langs: Words = None
    """Evaluation languages."""
    languages: Words = None
    """Languages of the sweep, which P-FT and M-FT pool: the paper's am ar de en es hi ru uk zh, or those of a folder
    given to --dataset. Also the default of --train-langs and --eval-langs."""
    splits: Words = None
    """toxic-train, toxic-test, neutral-test."""
    dataset: Word = None
    """sample (bundled), paradetox (from the hub), a folder of sentence pairs, or the hub ID of a data set."""
    toxic_column: Word = None
    """Column of the toxic sentences in tables (toxic_sentence)."""
    neutral_column: Word = None
    """Column of the neutral sentences in tables (neutral_sentence)."""
    allow_overlap: FlagCreatePairsOff[bool] = False
    """Accept more than 10 % of test pairs that share a sentence with the training text."""
    scorers: Annotated[Words, arg(help=SCORERS_HELP)] = None
    backend: Word = None
    """Generation backend: auto, transformers (built in) or vllm. auto uses vllm if installed and a GPU is available.
    Bases whose adapters vLLM cannot load (docs/bases.md) always use the built-in backend."""
    dtype: Word = None
    """Compute dtype: auto, bfloat16 or float32. auto is bfloat16 if the hardware supports it, else float32. It affects
    weights and text, so it is part of the run ID."""
    quantization: Word = None
    """nf4: round the base's weights to 4 bits, as the paper's authors do. Saves no memory; needs the built-in
    backend."""
    seed: Number = None
    """Seed for training and sampling."""
    represent: FlagCreatePairsOff[bool] = False
    """Add sentence embeddings: similarities, silhouettes and a map. Also works on a finished run."""
    db: Place = None
    """Results file (DuckDB)."""
    adapters: Place = None
    """Folder for adapters."""
    epochs: Number = None
    """Passes over the training text."""
    limit_train: Number = None
    """Maximum training pairs per language."""
    learning_rate: Decimal = None
    """Peak learning rate of AdamW; it decays linearly to 0."""
    batch_size: Number = None
    """Sentences per optimiser step."""
    rank: Number = None
    """LoRA rank."""
    alpha: Number = None
    """LoRA α; updates are scaled by α / rank."""
    dropout: Decimal = None
    """LoRA dropout, 0 to below 1."""
    max_tokens: Number = None
    """Maximum tokens per training sentence."""
    lora_targets: Words = None
    """Names of the linear layers to adapt, such as q_proj v_proj (default: docs/bases.md)."""
    hyperparameters: Word = None
    """from-search: use the best rank, α, learning rate and batch size found by `run_sweep.py search` in the same
    results file."""
    prompt: Word = None
    """Prompt template, with {sentence} where the sentence goes."""
    chat_template: FlagCreatePairsOff[bool] = False
    """Give prompts as the user's turn of a chat, in the tokenizer's own template: for instruct models."""
    limit_eval: Number = None
    """Maximum prompts per language and split."""
    samples_per_prompt: Number = None
    """Completions per prompt."""
    max_new_tokens: Number = None
    """Maximum new tokens per completion."""
    temperature: Decimal = None
    """Sampling temperature; 0 is greedy decoding."""
    top_k: Number = None
    """Sample from the k most likely tokens."""
    top_p: Decimal = None
    """Then from the smallest set of these that holds this share of their probability."""

    def applied_to(self, sweep: Sweep) -> Sweep:
        """`sweep` with these in place of its own. Errors: UsageError, before anything is read or loaded."""
        given = (_read(self.config)._given() if self.config else {}) | self._given()
        if (word := given.pop("hyperparameters", None)) is not None:
            if word != FROM_SEARCH:
                raise unknown("hyperparameters", word, [FROM_SEARCH], "--hyperparameters")
            given["from_search"] = True
        for name in ("hyperparameters", "sampling"):
            part = getattr(sweep, name)
            of_part = {f.name: given.pop(f.name) for f in fields(part) if f.name in given}
            given[name] = replace(part, **of_part)
        for name, parse in _PARSERS.items():
            if name in given:
                given[name] = parse(given[name])
        langs = given.get("languages") or _languages_of(given.get("dataset", "")) or sweep.languages
        if langs != sweep.languages:
            given = {"train_langs": langs, "eval_langs": langs} | given | {"languages": langs}
        return check(replace(sweep, **given))

    def _given(self) -> dict[str, Any]:
        """The options that are given."""
        words = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "config"}
        return {name: word for name, word in words.items() if word is not None and word is not False}


def _read(file: Path) -> "Options":
    """The options of a TOML file, which are those of the command line. Errors: UsageError; tyro ends the program where
    an option is not known or a value is of the wrong kind."""
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--config {file}: cannot be read ({error}).") from error
    words = []
    for name, value in content.items():
        values = value if isinstance(value, list) else [] if value is True else [value]
        if value is False or any(isinstance(v, dict | list) for v in values):
            raise UsageError(f"--config {file}: {name} must be a word, a number, true, or a list of words.")
        words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return tyro.cli(Options, prog=f"run_sweep.py --config {file}:", args=words)


def as_toml(sweep: Sweep) -> str:
    """A sweep's settings as a file for --config. What has no limit is left out."""
    parts = (sweep, sweep.hyperparameters, sweep.sampling)
    settings = {f.name: getattr(part, f.name) for part in parts for f in fields(part)}
    settings["hyperparameters"] = FROM_SEARCH if sweep.from_search else None
    lines = [f"# run_sweep.py {sweep.name} --config FILE"]
    for name in (f.name for f in fields(Options)):
        value = settings.get(name)
        if value is not None and value is not False and value != ():
            value = str(value) if isinstance(value, Path) else value
            lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines)


def _languages_of(name: str) -> tuple[Language, ...]:
    """The languages of a folder of pairs, by the names of its files; none where it is no folder."""
    if not name or not Path(name).is_dir():
        return ()
    from engine.data import dataset  # with pandas, which --help does without

    return () if name in dataset.NAMES else dataset.languages_in(Path(name))


def languages(words: tuple[str, ...]) -> tuple[Language, ...]:
    """--train-langs → languages. Errors: UsageError."""
    if not words:
        raise UsageError("--train-langs is empty; leave it out for all.")
    return _members(Language, words, "language", "--train-langs")


def _members(kind: type[E], words: tuple[str, ...], name: str, flag: str) -> tuple[E, ...]:
    """Words → members of `kind`, without repeats, in its order; case and punctuation do not matter."""
    by_letters = {_letters(member.value): member for member in kind}
    for word in words:
        if _letters(word) not in by_letters:
            raise unknown(name, word, [member.value for member in kind], flag)
    chosen = {_letters(word) for word in words}
    return tuple(member for letters, member in by_letters.items() if letters in chosen)


def _letters(word: str) -> str:
    return "".join(c for c in word.upper() if c.isalnum())


_PARSERS: dict[str, Callable[[tuple[str, ...]], tuple[str, ...]]] = {
    "models": lambda words: tuple(dict.fromkeys(words)),
    "lora_targets": lambda words: tuple(dict.fromkeys(words)),
    "scorers": lambda words: tuple(dict.fromkeys(words)),
    "strategies": lambda words: _members(Strategy, words, "strategy", "--strategies"),
    "train_langs": lambda words: _members(Language, words, "language", "--train-langs"),
    "languages": lambda words: _members(Language, words, "language", "--languages"),
    "eval_langs": lambda words: _members(Language, words, "language", "--eval-langs"),
    "splits": lambda words: _members(Split, words, "split", "--splits"),
}
