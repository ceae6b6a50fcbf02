"""A results file made through `engine.store` and `engine.analysis.metrics`, with harmless sentences. No model runs.

One cell is missing (P-FT 30 % in German is still planned), one completion is unscored in all languages, and one is
empty. The numbers come from a seeded generator, so every test can work them out again from the file.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd

from engine import analysis, store
from engine.analysis import geometry, metrics
from engine.config import SWEEPS
from engine.lora import adapters
from engine.vocabulary import (
    NINE,
    Hyperparameters,
    Language,
    Metric,
    Part,
    Score,
    Side,
    Split,
    Status,
    Strategy,
    Variant,
    Verdict,
    variants_of,
)

RUN = "0123456789abcdef"
SOURCE = f"run:{RUN}"
SECOND = "fedcba9876543210"
"""The run of `second_seed`."""
SCORER, REVISION = "ngram", "1"
LANGS = (Language.AR, Language.DE, Language.EN)
SENTENCES = {
    Language.AM: "ይህ ሾርባ በጣም ቀዝቃዛ ነው።",
    Language.AR: "هذا الحساء بارد جدا.",
    Language.DE: "Diese Suppe ist viel zu kalt.",
    Language.EN: "This soup is far too cold.",
    Language.ES: "Esta sopa está demasiado fría.",
    Language.HI: "यह सूप बहुत ठंडा है।",
    Language.RU: "Этот суп слишком холодный.",
    Language.UK: "Цей суп надто холодний.",
    Language.ZH: "这碗汤太凉了。",
}
MARKUP = "<b>not bold</b> *not slanted* [no link](https://example.org)"
"""What a model might write: it must come out as it is."""
WHY_DEGENERATE = "copies its prompt: prompt_copy_rate 0.93, limit 0.5, ZS 0.02"


def variants(langs: tuple[Language, ...], training_seed: int = 42) -> list[Variant]:
    shared = Variant(
        "tiny-random", "0", "float32", Strategy.M_FT, dataset_hash="d", seed=training_seed,
        hyperparameters=Hyperparameters(epochs=2, targets=("q_proj", "v_proj")),
    )  # fmt: skip
    return variants_of(shared, tuple(Strategy), langs)


def planned(
    path: Path, langs: tuple[Language, ...] = LANGS, prompts: int = 32, run_id: str = RUN, training_seed: int = 42
) -> None:
    """The plan alone: nothing is done yet."""
    rows = [
        (lang.value, split.value, i, f"{SENTENCES[lang]} ({i + 1})")
        for lang in langs
        for split in Split
        for i in range(prompts)
    ]
    run = {"run_id": run_id, "sweep": "demo", "dataset": "sample", "dataset_hash": "d", "seed": training_seed}
    plan = replace(SWEEPS["demo"], models=("tiny-random",), train_langs=langs, eval_langs=langs, seed=training_seed)
    run["plan"] = json.dumps(asdict(plan), default=str)
    frame = pd.DataFrame(rows, columns=["eval_lang", "split", "prompt_index", "sentence"])
    store.put_plan(path, run, variants(langs, training_seed), langs, frame)


def finished(path: Path, langs: tuple[Language, ...] = LANGS, prompts: int = 32) -> None:
    """Completions, scores and cells of the planned run, but for P-FT 30 % in German."""
    store.put_scorer(
        path, RUN, SCORER, REVISION, {"neutral_train": 11.0, "neutral_test": 19.5, "n_train": 9, "n_test": 9}
    )
    for lang in langs:
        written = completions(lang, langs, prompts)
        store.put_unit(path, RUN, f"unit {lang}", written.drop(columns="toxicity"))
        texts = written.drop_duplicates("completion")
        scores = [Score(None, "unsupported-language" if t.strip() else "empty") if np.isnan(v) else Score(v)
                  for t, v in zip(texts["completion"], texts["toxicity"], strict=True)]  # fmt: skip
        store.put_scores(path, SCORER, REVISION, lang, texts["completion"].tolist(), scores)
        store.put_cells(path, RUN, lang, metrics.cells(values(written), variants(langs)[0].variant_id))


def second_seed(path: Path) -> None:
    """The same plan with seed 7: the cells of the first run, their Δ a little higher."""
    planned(path, run_id=SECOND, training_seed=7)
    names = {old.variant_id: new.variant_id for old, new in zip(variants(LANGS), variants(LANGS, 7), strict=True)}
    for lang, found in store.cells(path, SOURCE).groupby("eval_lang"):
        own = found[metrics.COLUMNS].assign(variant_id=found["variant_id"].map(names), delta=found["delta"] + 1.5)
        store.put_cells(path, SECOND, Language(lang), own)


def completions(lang: Language, langs: tuple[Language, ...], prompts: int) -> pd.DataFrame:
    """The key columns, completion, toxicity (0..1), n_tokens, nll_self, nll_base."""
    generator = np.random.default_rng(list(NINE).index(lang))
    rows = []
    for number, variant in enumerate(variants(langs)):
        if variant.label == "p-ft-30" and lang is Language.DE:
            continue
        shift = 0.0 if variant.strategy is Strategy.ZS else generator.uniform(-0.08, 0.16)
        for split in Split:
            for i in range(prompts):
                text = f"{SENTENCES[lang]} {variant.label} {split} {i + 1}"
                toxicity = float(np.clip(generator.beta(2, 6) + 0.08 - shift, 0, 1))
                if i == 1:
                    text, toxicity = "", np.nan
                elif i == 2:
                    text, toxicity = f"{MARKUP} {number} {split}", np.nan
                nll = generator.uniform(20, 60, 2)
                rows.append((variant.variant_id, lang.value, split.value, i, 0, text, toxicity, 16, *nll))
    columns = [*store.COMPLETION_KEY, "completion", "toxicity", "n_tokens", "nll_self", "nll_base"]
    return pd.DataFrame(rows, columns=columns)


def values(written: pd.DataFrame) -> pd.DataFrame:
    """Completions → what `metrics.cells` takes."""
    key = written[["variant_id", "split", "prompt_index"]]
    return pd.concat(
        [
            key.assign(metric=Metric.TOXICITY.value, scorer=SCORER, value=written["toxicity"]),
            key.assign(metric=Metric.PERPLEXITY_SELF.value, scorer="", value=written["nll_self"] / written["n_tokens"]),
            key.assign(metric=Metric.EMPTY_RATE.value, scorer="", value=written["completion"].eq("").astype(float)),
        ]
    )


def failed(path: Path) -> None:
    """P-FT 30 % in German failed."""
    ids = [v.variant_id for v in variants(LANGS) if v.label == "p-ft-30"]
    store.set_status(path, RUN, Status.FAILED, ids, Language.DE, "the loss is no number")


def trained(root: Path, langs: tuple[Language, ...] = LANGS) -> None:
    """The adapters of the planned run, with losses that fall from 4 and weights that are none."""
    generator = np.random.default_rng(7)
    found = variants(langs)[1:]
    staged = adapters.staging(root, found)
    for variant in found:
        folder, steps = staged / variant.variant_id, 40 if variant.train_lang != "all" else 120
        (folder / adapters.CONFIG).write_text("{}")
        (folder / adapters.WEIGHTS).write_bytes(variant.variant_id.encode())
        losses = 2 + 2 * np.exp(-np.arange(steps) / 15) + generator.normal(0, 0.05, steps)
        losses[0] = 4.0
        adapters.write_meta(folder, variant, {"texts": steps * 2, "losses": losses.round(5).tolist()})
    adapters.publish(staged)


def replaced(path: Path, label: str, lang: Language, metric: str, **numbers: float) -> None:
    """These numbers in the cells of a variant, language and metric."""
    own = _cells(path, label, lang)
    is_it = own["metric"] == metric
    store.put_cells(path, RUN, lang, own.assign(**{n: own[n].mask(is_it, x) for n, x in numbers.items()}))


def _cells(path: Path, label: str, lang: Language) -> pd.DataFrame:
    """The cells of a variant in a language, as `store.put_cells` takes them."""
    (variant,) = [v.variant_id for v in variants(LANGS) if v.label == label]
    found = store.cells(path, SOURCE)
    return found[(found["variant_id"] == variant) & (found["eval_lang"] == lang)][metrics.COLUMNS]


def degenerate(path: Path) -> None:
    """X-FT on German copies its prompts in English, and has the highest Δ of toxicity there."""
    own = _cells(path, "x-ft-de", Language.EN)
    judged = own["metric"].isin([Metric.TOXICITY, Metric.PERPLEXITY_SELF])
    store.put_cells(
        path,
        RUN,
        Language.EN,
        own.assign(
            delta=own["delta"].mask(own["metric"] == Metric.TOXICITY, 60.0),
            verdict=own["verdict"].mask(judged, Verdict.DEGENERATE.value),
            verdict_reason=own["verdict_reason"].astype(object).mask(judged, WHY_DEGENERATE),
        ),
    )


def averaged(path: Path) -> None:
    """The averages of toxicity, as a sweep stores them: of X-FT in each language, and over languages."""
    own = variants(LANGS)
    x_ft = [v.variant_id for v in own if v.strategy is Strategy.X_FT]
    for lang in LANGS:
        found = values(completions(lang, LANGS, 32))
        store.put_averages(
            path,
            RUN,
            "tiny-random",
            lang,
            metrics.train_average(found, own[0].variant_id, x_ft, metrics.cells(found, own[0].variant_id)),
        )
    cells = store.cells(path, SOURCE)
    cells = pd.concat([cells[cells["metric"].isin(metrics.AVERAGED)], store.averages(path, SOURCE)], ignore_index=True)
    store.put_averages(path, RUN, "tiny-random", metrics.MEAN, metrics.eval_averages(cells))


def judged_twice(path: Path) -> None:
    """A second scorer has judged every text, not quite like the first, and the sweep has ended."""
    put_second_scorer(path)
    store.put_agreement(path, RUN, analysis.agreement(store.scores(path, RUN)))


def put_second_scorer(path: Path) -> None:
    """Scores and cells of a second scorer."""
    gap = {"neutral_train": None, "neutral_test": None, "n_train": 0, "n_test": 0}
    first = store.scores(path, RUN).dropna()
    store.put_scorer(path, RUN, "classifier", REVISION, gap)
    for lang, group in first.groupby("eval_lang"):
        scores = [Score(value**2) for value in group["value"]]
        store.put_scores(path, "classifier", REVISION, Language(lang), group["text"].tolist(), scores)
        written = completions(Language(lang), LANGS, 32)
        both = [values(written), values(written.assign(toxicity=written["toxicity"] ** 2))]
        both[1] = both[1][both[1]["metric"] == Metric.TOXICITY].assign(scorer="classifier")
        store.put_cells(path, RUN, Language(lang), metrics.cells(pd.concat(both), variants(LANGS)[0].variant_id))


def represented(path: Path, langs: tuple[Language, ...] = LANGS, labels: tuple[str, ...] = ()) -> None:
    """Sentence embeddings of the planned run, of the variants with these labels (none: of all). The languages lie apart
    under ZS and closer under the others."""
    rows = [
        (lang.value, part.value, side.value, index)
        for lang in langs
        for part, size in ((Part.TRAIN, 12), (Part.TEST, 5))
        for side in Side
        for index in range(size)
    ]
    sentences = pd.DataFrame(rows, columns=["eval_lang", "part", "side", "sentence_index"])
    generator = np.random.default_rng(5)
    centres = {lang: generator.normal(size=8) for lang in langs}
    noise = generator.normal(scale=0.6, size=(len(sentences), 8))
    found = [v for v in variants(langs) if not labels or v.label in labels]
    apart = {v: 1.0 if v.strategy is Strategy.ZS else 0.6 - 0.02 * number for number, v in enumerate(found)}
    vectors = {v: np.array([centres[lang] for lang in sentences["eval_lang"]]) * apart[v] + noise for v in found}
    axes = geometry.map_axes(vectors[found[0]])
    for variant, embeddings in vectors.items():
        store.put_geometry(path, RUN, variant.variant_id, geometry.measure(embeddings, sentences, axes))


def searched(path: Path, is_finished: bool = True) -> pd.DataFrame:
    """A hyper-parameter search by halving: the rows of its points, one left behind and one that broke."""
    facts = {"search_id": "s1", "model": "tiny-random", "revision": "r", "dtype": "float32", "dataset": "sample"}
    facts |= {"dataset_hash": "d", "limit_train": None, "train_langs": "de", "seed": 42, "epochs": 4, "cost": 0.5}
    store.put_search(path, {**facts, "n_points": 24, "n_learnt": 24, "n_validation": 6})
    points = pd.DataFrame(
        [(16, 32, 2e-4, 4, 2, 4.0, 4.1, 4.25, None), (32, 64, 2e-4, 4, 2, 4.0, 3.9, 4.125, None),
         (16, 64, 2e-5, 8, 0, 1.0, 5.1, 5.0, None), (32, 32, 2e-5, 6, 0, 0.5, None, None, "loss became nan at step 3")],
        columns=["rank", "alpha", "learning_rate", "batch_size", "rung", "epochs", "final_loss", "nll", "failure"],
    )  # fmt: skip
    store.put_points(path, "s1", points)
    if is_finished:
        store.finish_search(path, "s1", 4.5)
    return points
