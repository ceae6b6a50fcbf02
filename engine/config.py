"""The named sweeps and their settings, and the checks that need no file.

Imports nothing heavy: the app reads it, and `run_sweep.py --help` must be quick.
"""

from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import UsageError, unknown
from engine.vocabulary import NINE, Hyperparameters, Language, Sampling, Split, Strategy

PLACE = "{sentence}"
"""Stands in a template for the sentence."""

PROMPT = f"Complete the sentence: {PLACE}"
"""The template of prompts, unless a sweep has another: the paper's words."""

DATA = Path(__file__).parent.parent / "data"
"""What comes with the code: sample, scorer, published figures."""

RESULTS = Path("data/results.duckdb")
ADAPTERS = Path("adapters")
SMOKE = Path("data/smoke")

AUTO, TRANSFORMERS, VLLM = "auto", "transformers", "vllm"
KNOWN_BACKENDS = (AUTO, TRANSFORMERS, VLLM)

BFLOAT16, FLOAT32 = "bfloat16", "float32"
KNOWN_DTYPES = (AUTO, BFLOAT16, FLOAT32)

NF4 = "nf4"

BATCH_ROWS = 336
"""Rows that our own backend writes at once: 24 prompts under 14 variants."""

ROWS_PER_UNIT = {TRANSFORMERS: BATCH_ROWS, VLLM: 7_000}
"""Rows (prompts × variants × samples) that one unit of generation aims at, by backend. vLLM fills its batches itself:
a language of the paper's size at a time."""

MIN_TRAIN_PAIRS = 10
"""Ten per cent of fewer training pairs is nothing, so P-FT would not exist."""

MIN_EVAL_PAIRS = 2
"""A spread, and so an interval, needs two prompts."""

MIN_HALVING_EPOCHS = 4

MAX_SEED = 2**31 - 1

PAPER_MODELS = ("aya-expanse-8b", "aya-23-8b", "mt5-large", "bloom-7b1")
EMBEDDED_MODEL = "gemma-3-270m"
TINY_MODEL = "tiny-random"


@dataclass(frozen=True)
class ScorerKind:
    """Scorers of one module, which has `open_scorers` and `available`. `attributes`: what may follow the kind's name
    and a colon; None: anything. `about`: how --help writes it."""

    module: str
    about: str
    attributes: tuple[str, ...] | None = ()


SCORERS = {
    "ngram": ScorerKind("engine.score.ngram", "ngram (bundled)"),
    "classifier": ScorerKind("engine.score.classifier", "classifier[:hub ID or folder[#LABEL]]", None),
    "perspective": ScorerKind(
        "engine.score.perspective",
        "perspective[:attribute]",
        ("severe_toxicity", "identity_attack", "insult", "profanity", "threat"),
    ),
    "judge": ScorerKind("engine.score.judge", "judge:MODEL (OpenAI-compatible endpoint at JUDGE_URL)", None),
}
"""The kinds of scorers by name. A new one is a module in engine/score, and a line here."""

KNOWN_SCORERS = tuple(
    name for kind, facts in SCORERS.items() for name in (kind, *(f"{kind}:{a}" for a in facts.attributes or ()))
)

RESERVED = ("check",)


def prompt_of(sentence: str, template: str = PROMPT) -> str:
    """The prompt of a sentence: the only place that fills in a template."""
    return template.replace(PLACE, sentence)


@dataclass(frozen=True)
class Sweep:
    """A named plan. `languages`: what P-FT and M-FT pool. `limit_train` and `limit_eval`: the most pairs per language
    that are used; None: all.

    `represent` adds sentence embeddings to the run; it is the same run without them. `from_search`: rank, α, learning
    rate and batch size are those that a search in `db` chose. `dtype`: what the bases compute in; auto: bfloat16 where
    the machine has it in hardware, else float32. `quantization`: what their weights are rounded to. `lora_targets`: the
    linear layers to adapt; empty: the architecture's own. `prompt`: the template of prompts, with `PLACE`.
    `chat_template`: prompts are the user's turn of a chat, in the tokenizer's own template.
    """

    name: str
    about: str
    models: tuple[str, ...] = (EMBEDDED_MODEL,)
    strategies: tuple[Strategy, ...] = tuple(Strategy)
    languages: tuple[Language, ...] = NINE
    train_langs: tuple[Language, ...] = NINE
    eval_langs: tuple[Language, ...] = NINE
    splits: tuple[Split, ...] = tuple(Split)
    dataset: str = "sample"
    toxic_column: str = "toxic_sentence"
    neutral_column: str = "neutral_sentence"
    allow_overlap: bool = False
    scorers: tuple[str, ...] = ("ngram",)
    backend: str = AUTO
    db: Path = RESULTS
    adapters: Path = ADAPTERS
    limit_train: int | None = None
    limit_eval: int | None = None
    samples_per_prompt: int = 1
    seed: int = 42
    represent: bool = False
    from_search: bool = False
    dtype: str = AUTO
    quantization: str | None = None
    lora_targets: tuple[str, ...] = ()
    prompt: str = PROMPT
    chat_template: bool = False
    sampling: Sampling = field(default_factory=Sampling)
    hyperparameters: Hyperparameters = field(default_factory=Hyperparameters)


PAPER = "paper"
SWEEPS: dict[str, Sweep] = {
    s.name: s
    for s in (
        Sweep(
            name="smoke",
            about="a tiny random base, all 126 settings, in files of its own: does everything run here? (under 30 s)",
            models=(TINY_MODEL,),
            db=SMOKE / "results.duckdb",
            adapters=SMOKE / "adapters",
            limit_train=10,
            limit_eval=2,
            sampling=Sampling(max_new_tokens=6),
            hyperparameters=Hyperparameters(epochs=1, learning_rate=2e-3),
        ),
        Sweep(
            name="demo",
            about="the embedded base on the bundled sample, all 126 settings (minutes, no network)",
            splits=(Split.TOXIC_TEST, Split.NEUTRAL_TEST),
            limit_train=20,
            limit_eval=4,
            sampling=Sampling(max_new_tokens=12),
            hyperparameters=Hyperparameters(epochs=1, learning_rate=1e-3),
        ),
        Sweep(
            name="reference",
            about="the embedded base on real pairs (ParaDetox), the paper's sizes (hours on a CPU)",
            dataset="paradetox",
        ),
        Sweep(
            name=PAPER,
            about="the paper's four bases and sizes: 504 settings (for a GPU)",
            models=PAPER_MODELS,
            dataset="paradetox",
        ),
    )
}


@dataclass(frozen=True)
class Search:
    """A hyperparameter search: the paper's grid for each of `models`, on neutral-train of `train_langs` together.

    `halving` leaves the worse half of the points behind after a quarter, and again after half of the steps.
    """

    models: tuple[str, ...] = (EMBEDDED_MODEL,)
    train_langs: tuple[Language, ...] = NINE
    dataset: str = "sample"
    limit_train: int | None = None
    epochs: int = 20
    seed: int = 42
    halving: bool = False
    db: Path = RESULTS


def check_search(search: Search) -> Search:
    """`search` itself when its numbers make sense. Errors: UsageError."""
    _at_least("--epochs", search.epochs, 1)
    _at_least("--limit-train", search.limit_train, MIN_EVAL_PAIRS)
    _at_least("--seed", search.seed, 0)
    if search.halving and search.epochs < MIN_HALVING_EPOCHS:
        raise UsageError(
            f"--halving needs {MIN_HALVING_EPOCHS} epochs or more, to rank points after a quarter; --epochs is "
            f"{search.epochs}."
        )
    return search


def find_sweep(name: str) -> Sweep:
    """The sweep called `name`. Errors: UsageError with the nearest name."""
    if name in RESERVED:
        raise UsageError(f"{name!r} is reserved for a future version. Sweeps: {', '.join(SWEEPS)}.")
    if name not in SWEEPS:
        raise unknown("sweep", name, SWEEPS)
    return SWEEPS[name]


def check(sweep: Sweep) -> Sweep:
    """`sweep` itself when its words and numbers make sense together. Errors: UsageError."""
    for flag in ("models", "strategies", "languages", "eval_langs", "splits", "scorers"):
        if not getattr(sweep, flag):
            raise UsageError(f"--{flag.replace('_', '-')} is empty; leave it out to use the sweep's default.")
    if Strategy.X_FT in sweep.strategies and not sweep.train_langs:
        raise UsageError("X-FT needs at least one language in --train-langs.")
    for scorer in sweep.scorers:
        kind, _, attribute = scorer.partition(":")
        takes_any = kind in SCORERS and SCORERS[kind].attributes is None and attribute
        if scorer not in KNOWN_SCORERS and not takes_any:
            raise unknown("scorer", scorer, KNOWN_SCORERS, "--scorers")
    if sweep.backend not in KNOWN_BACKENDS:
        raise unknown("backend", sweep.backend, KNOWN_BACKENDS, "--backend")
    if sweep.dtype not in KNOWN_DTYPES:
        raise unknown("dtype", sweep.dtype, KNOWN_DTYPES, "--dtype")
    if sweep.quantization not in (None, NF4):
        raise unknown("quantization", sweep.quantization, [NF4], "--quantization")
    if sweep.prompt.count(PLACE) != 1:
        raise UsageError(f"--prompt {sweep.prompt!r} must contain {PLACE} once, where the sentence goes.")
    h, sampling = sweep.hyperparameters, sweep.sampling
    _at_least("--epochs", h.epochs, 1)
    _at_least("--rank", h.rank, 1)
    _at_least("--alpha", h.alpha, 1)
    _at_least("--batch-size", h.batch_size, 1)
    _at_least("--max-tokens", h.max_tokens, 2)
    _at_least("--top-k", sampling.top_k, 1)
    _within("--learning-rate", h.learning_rate, h.learning_rate > 0, "above 0")
    _within("--dropout", h.dropout, 0 <= h.dropout < 1, "0 or more and below 1")
    _within("--temperature", sampling.temperature, sampling.temperature >= 0, "0 or more")
    _within("--top-p", sampling.top_p, 0 < sampling.top_p <= 1, "above 0, and 1 at most")
    _at_least("--limit-train", sweep.limit_train, 1)
    _at_least("--limit-eval", sweep.limit_eval, 1)
    _at_least("--samples-per-prompt", sweep.samples_per_prompt, 1)
    _at_least("--max-new-tokens", sweep.sampling.max_new_tokens, 1)
    _at_least("--seed", sweep.seed, 0)
    if sweep.seed > MAX_SEED:
        raise UsageError(f"--seed {sweep.seed} is too large; the maximum is {MAX_SEED}.")
    return sweep


def _within(flag: str, value: float, is_within: bool, bounds: str) -> None:
    if not is_within:
        raise UsageError(f"{flag} {value} is out of range; it must be {bounds}.")


def _at_least(flag: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise UsageError(f"{flag} {value} is too small; the minimum is {least}.")
