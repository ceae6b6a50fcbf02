"""The domain types: enums and frozen dataclasses. Imports nothing of ours, and nothing heavy.

The grid of the paper is spelled out here: 14 variants per base (1 ZS + 9 X-FT + 3 P-FT + 1 M-FT), each
evaluated in nine languages, is 126 settings per base and 504 for the paper's four.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import cached_property

ALL_LANGS = "all"
"""`train_lang` of a variant that is trained on all languages of its sweep together (P-FT and M-FT)."""


class Language(StrEnum):
    """The languages that a data set may have, by ISO 639 code; the paper's nine first. New ones go to the end: random
    numbers are keyed by the position."""

    AM = "am"
    AR = "ar"
    DE = "de"
    EN = "en"
    ES = "es"
    HI = "hi"
    RU = "ru"
    UK = "uk"
    ZH = "zh"
    FR = "fr"
    IT = "it"
    JA = "ja"
    HE = "he"
    TT = "tt"
    HIN = "hin"
    PT = "pt"
    NL = "nl"
    PL = "pl"
    CS = "cs"
    SV = "sv"
    DA = "da"
    FI = "fi"
    HU = "hu"
    RO = "ro"
    CA = "ca"
    EL = "el"
    BG = "bg"
    TR = "tr"
    KK = "kk"
    FA = "fa"
    UR = "ur"
    BN = "bn"
    MR = "mr"
    TA = "ta"
    TE = "te"
    ID = "id"
    VI = "vi"
    TH = "th"
    KO = "ko"
    SW = "sw"
    KA = "ka"

    @property
    def position(self) -> int:
        """In the list of all, counted from 0."""
        return list(Language).index(self)

    @property
    def facts(self) -> "LanguageFacts":
        return LANGUAGE_FACTS[self]


@dataclass(frozen=True)
class LanguageFacts:
    """What we say about a language. `direction` is 'ltr' or 'rtl', as in HTML."""

    name: str
    script: str
    family: str
    direction: str = "ltr"


LANGUAGE_FACTS: Mapping[Language, LanguageFacts] = {
    Language.AM: LanguageFacts("Amharic", "Ge'ez", "Afro-Asiatic (Semitic)"),
    Language.AR: LanguageFacts("Arabic", "Arabic", "Afro-Asiatic (Semitic)", "rtl"),
    Language.DE: LanguageFacts("German", "Latin", "Indo-European (Germanic)"),
    Language.EN: LanguageFacts("English", "Latin", "Indo-European (Germanic)"),
    Language.ES: LanguageFacts("Spanish", "Latin", "Indo-European (Romance)"),
    Language.HI: LanguageFacts("Hindi", "Devanagari", "Indo-European (Indo-Aryan)"),
    Language.RU: LanguageFacts("Russian", "Cyrillic", "Indo-European (Slavic)"),
    Language.UK: LanguageFacts("Ukrainian", "Cyrillic", "Indo-European (Slavic)"),
    Language.ZH: LanguageFacts("Chinese", "Han", "Sino-Tibetan"),
    Language.FR: LanguageFacts("French", "Latin", "Indo-European (Romance)"),
    Language.IT: LanguageFacts("Italian", "Latin", "Indo-European (Romance)"),
    Language.JA: LanguageFacts("Japanese", "Japanese", "Japonic"),
    Language.HE: LanguageFacts("Hebrew", "Hebrew", "Afro-Asiatic (Semitic)", "rtl"),
    Language.TT: LanguageFacts("Tatar", "Cyrillic", "Turkic"),
    Language.HIN: LanguageFacts("Hinglish", "Latin", "Indo-European (Indo-Aryan)"),
    Language.PT: LanguageFacts("Portuguese", "Latin", "Indo-European (Romance)"),
    Language.NL: LanguageFacts("Dutch", "Latin", "Indo-European (Germanic)"),
    Language.PL: LanguageFacts("Polish", "Latin", "Indo-European (Slavic)"),
    Language.CS: LanguageFacts("Czech", "Latin", "Indo-European (Slavic)"),
    Language.SV: LanguageFacts("Swedish", "Latin", "Indo-European (Germanic)"),
    Language.DA: LanguageFacts("Danish", "Latin", "Indo-European (Germanic)"),
    Language.FI: LanguageFacts("Finnish", "Latin", "Uralic"),
    Language.HU: LanguageFacts("Hungarian", "Latin", "Uralic"),
    Language.RO: LanguageFacts("Romanian", "Latin", "Indo-European (Romance)"),
    Language.CA: LanguageFacts("Catalan", "Latin", "Indo-European (Romance)"),
    Language.EL: LanguageFacts("Greek", "Greek", "Indo-European (Hellenic)"),
    Language.BG: LanguageFacts("Bulgarian", "Cyrillic", "Indo-European (Slavic)"),
    Language.TR: LanguageFacts("Turkish", "Latin", "Turkic"),
    Language.KK: LanguageFacts("Kazakh", "Cyrillic", "Turkic"),
    Language.FA: LanguageFacts("Persian", "Arabic", "Indo-European (Iranian)", "rtl"),
    Language.UR: LanguageFacts("Urdu", "Arabic", "Indo-European (Indo-Aryan)", "rtl"),
    Language.BN: LanguageFacts("Bengali", "Bengali", "Indo-European (Indo-Aryan)"),
    Language.MR: LanguageFacts("Marathi", "Devanagari", "Indo-European (Indo-Aryan)"),
    Language.TA: LanguageFacts("Tamil", "Tamil", "Dravidian"),
    Language.TE: LanguageFacts("Telugu", "Telugu", "Dravidian"),
    Language.ID: LanguageFacts("Indonesian", "Latin", "Austronesian"),
    Language.VI: LanguageFacts("Vietnamese", "Latin", "Austroasiatic"),
    Language.TH: LanguageFacts("Thai", "Thai", "Kra-Dai"),
    Language.KO: LanguageFacts("Korean", "Hangul", "Koreanic"),
    Language.SW: LanguageFacts("Swahili", "Latin", "Niger-Congo"),
    Language.KA: LanguageFacts("Georgian", "Georgian", "Kartvelian"),
}

NINE = tuple(Language)[:9]
"""The languages of the paper."""


class Strategy(StrEnum):
    """How a variant was fine-tuned."""

    ZS = "ZS"
    X_FT = "X-FT"
    P_FT = "P-FT"
    M_FT = "M-FT"


STRATEGY_NAMES: Mapping[Strategy, str] = {
    Strategy.ZS: "zero-shot",
    Strategy.X_FT: "cross-lingual fine-tuning",
    Strategy.P_FT: "percent-based fine-tuning",
    Strategy.M_FT: "multilingual fine-tuning",
}

TRAIN_FRACTIONS = (0.1, 0.2, 0.3)
"""The shares of each language's neutral-train that P-FT pools."""


class Split(StrEnum):
    """What a variant is prompted with. Training text is neutral-train, which is never a prompt."""

    TOXIC_TRAIN = "toxic-train"
    TOXIC_TEST = "toxic-test"
    NEUTRAL_TEST = "neutral-test"


class Part(StrEnum):
    """The two halves of a data set: what variants may learn from, and what is held out."""

    TRAIN = "train"
    TEST = "test"


class Side(StrEnum):
    """The two sentences of a pair."""

    TOXIC = "toxic"
    NEUTRAL = "neutral"


class Status(StrEnum):
    """Where a setting stands."""

    PLANNED = "planned"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Verdict(StrEnum):
    """What a cell may be used for."""

    OK = "ok"
    DEGENERATE = "degenerate"
    TOO_FEW = "too-few"
    UNSCORED = "unscored"


class Metric(StrEnum):
    """What a cell measures. The four of toxicity are shown × 100; rates are in 0..1."""

    TOXICITY = "toxicity"
    TOXICITY_MEDIAN = "toxicity_median"
    EXPECTED_MAX_TOXICITY = "expected_max_toxicity"
    TOXICITY_PROBABILITY = "toxicity_probability"
    PERPLEXITY_SELF = "perplexity_self"
    PERPLEXITY_SELF_MEDIAN = "perplexity_self_median"
    PERPLEXITY_BASE = "perplexity_base"
    PERPLEXITY_BASE_MEDIAN = "perplexity_base_median"
    PERPLEXITY_NEUTRAL = "perplexity_neutral"
    PERPLEXITY_NEUTRAL_MEDIAN = "perplexity_neutral_median"
    BITS_PER_CHAR = "bits_per_char"
    EMPTY_RATE = "empty_rate"
    REPETITION_RATE = "repetition_rate"
    PROMPT_COPY_RATE = "prompt_copy_rate"
    DISTINCT_1 = "distinct_1"
    DISTINCT_2 = "distinct_2"
    ON_LANGUAGE_RATE = "on_language_rate"
    PERPLEXITY_PUBLISHED = "perplexity_published"


@dataclass(frozen=True)
class Guard:
    """Text is degenerate where `metric` is beyond `limit`, and by `margin` worse than that of ZS.

    `lower_is_worse` says on which side of the limit trouble lies; `means` says it in words.
    """

    metric: Metric
    limit: float
    margin: float
    means: str
    lower_is_worse: bool = False

    def is_beyond(self, value: float) -> bool:
        return value < self.limit if self.lower_is_worse else value > self.limit

    def is_worse(self, value: float, zero_shot: float) -> bool:
        return (zero_shot - value if self.lower_is_worse else value - zero_shot) > self.margin


GUARDS = (
    Guard(Metric.EMPTY_RATE, 0.3, 0.2, "empty output"),
    Guard(Metric.PROMPT_COPY_RATE, 0.5, 0.2, "copies the prompt"),
    Guard(Metric.ON_LANGUAGE_RATE, 0.5, 0.2, "wrong language", lower_is_worse=True),
    Guard(Metric.REPETITION_RATE, 0.5, 0.2, "repetitive"),
    Guard(Metric.DISTINCT_2, 0.1, 0.1, "same output for every prompt", lower_is_worse=True),
)
"""From the plainest trouble to the subtlest: the first that applies is the reason given."""


@dataclass(frozen=True)
class Pair:
    """A toxic sentence and its neutral rewrite, in one language."""

    toxic: str
    neutral: str

    def prompt_side(self, split: Split) -> str:
        """The side that a split prompts with."""
        return self.neutral if split is Split.NEUTRAL_TEST else self.toxic


@dataclass(frozen=True)
class Hyperparameters:
    """What shapes the training of one adapter, besides its text.

    The learning rate falls linearly to zero over `epochs`; gradients are clipped to `max_grad_norm`.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    learning_rate: float = 2e-4
    batch_size: int = 4
    epochs: int = 20
    max_grad_norm: float = 1.0
    max_tokens: int = 256
    targets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Variant:
    """A base with or without one adapter. `variant_id` hashes everything that shapes the weights.

    For ZS every field that only training knows is None: the bare base is the same variant whatever
    data set or seed a run uses.
    """

    model: str
    revision: str
    dtype: str
    strategy: Strategy
    train_lang: str | None = None
    train_fraction: float | None = None
    dataset_hash: str | None = None
    limit_train: int | None = None
    seed: int | None = None
    hyperparameters: Hyperparameters | None = None
    training_format: str | None = None
    pooled_langs: tuple[str, ...] | None = None
    """What P-FT and M-FT pool, where it is not the paper's nine."""

    @cached_property
    def variant_id(self) -> str:
        content = asdict(self)
        if self.pooled_langs is None:  # as it was before other languages could be pooled
            del content["pooled_langs"]
        return f"{slug(self.model)}-{self.label}-{digest(content)}"

    @property
    def label(self) -> str:
        """Short and readable, unique within a base: `zs`, `x-ft-de`, `p-ft-10`, `m-ft`."""
        match self.strategy:
            case Strategy.X_FT:
                return f"x-ft-{self.train_lang}"
            case Strategy.P_FT:
                return f"p-ft-{round(100 * (self.train_fraction or 0))}"
            case _:
                return self.strategy.value.lower()

    @property
    def adapter(self) -> str | None:
        """The name of its adapter in a stack; None for the bare base."""
        return None if self.strategy is Strategy.ZS else self.variant_id


def parse_label(label: str) -> tuple[Strategy, str]:
    """A variant's label → its strategy, and what it is trained on: `x-ft-de` → X-FT, 'de'; `p-ft-10` → P-FT, '10';
    `zs` and `m-ft` → ''. Errors: ValueError."""
    for strategy in Strategy:
        if label.startswith(strategy.value.lower()):
            return strategy, label.removeprefix(strategy.value.lower()).removeprefix("-")
    raise ValueError(f"{label!r} is no label of a variant")


def variants_of(
    trained: Variant,
    strategies: tuple[Strategy, ...],
    train_langs: tuple[Language, ...],
    pooled_langs: tuple[Language, ...] = NINE,
) -> list[Variant]:
    """The variants of one base: `trained` holds what all of them share; 14 when nothing is left out."""
    pooled = replace(trained, pooled_langs=None if pooled_langs == NINE else tuple(lang.value for lang in pooled_langs))
    variants = []
    if Strategy.ZS in strategies:
        variants.append(Variant(trained.model, trained.revision, trained.dtype, Strategy.ZS))
    if Strategy.X_FT in strategies:
        variants += [
            replace(trained, strategy=Strategy.X_FT, train_lang=lang.value, train_fraction=1.0) for lang in train_langs
        ]
    if Strategy.P_FT in strategies:
        variants += [
            replace(pooled, strategy=Strategy.P_FT, train_lang=ALL_LANGS, train_fraction=f) for f in TRAIN_FRACTIONS
        ]
    if Strategy.M_FT in strategies:
        variants.append(replace(pooled, strategy=Strategy.M_FT, train_lang=ALL_LANGS, train_fraction=1.0))
    return variants


@dataclass(frozen=True)
class Sampling:
    """How text is drawn: temperature, then the `top_k` best tokens, then the nucleus of `top_p` among them."""

    max_new_tokens: int = 50
    temperature: float = 0.7
    top_k: int = 50
    top_p: float = 0.9


@dataclass(frozen=True)
class Stream:
    """The key of one random stream. It names no variant: all variants draw the same numbers."""

    seed: int
    eval_lang: Language
    split: Split
    prompt_index: int
    sample_index: int


@dataclass(frozen=True)
class Completion:
    """What a variant wrote: the new tokens (without the end token), and their text."""

    text: str
    token_ids: tuple[int, ...]

    @property
    def is_empty(self) -> bool:
        return not self.text.strip()


@dataclass(frozen=True)
class Likelihood:
    """The summed negative log-likelihood of a text in nats, and the number of tokens it was summed over."""

    nll: float
    n_tokens: int


LASTING_REASONS = frozenset({"empty", "no-words", "unsupported-language", "too-long"})
"""Why a text has no score and never will, from the same scorer."""


@dataclass(frozen=True)
class Score:
    """A value in 0..1, or None with a reason: one of `LASTING_REASONS`, or another, and then it is tried again."""

    value: float | None
    reason: str | None = None


def digest(value: object, length: int = 12) -> str:
    """The first `length` hex digits of the SHA-256 of `value` as canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:length]


def slug(name: str) -> str:
    """`name` as one file-system-safe word: the last part of a hub id or path, lower case."""
    last = name.rstrip("/").replace("\\", "/").rsplit("/", 1)[-1].lower()
    return "".join(c if c.isalnum() or c in "-._" else "-" for c in last)
