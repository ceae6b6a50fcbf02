"""Makes the bundled scorer from a folder of sentence pairs: `python -m engine.score.train_ngram FOLDER`.

Writes data/ngram/weights.npz and its model card, README.md, whose numbers are measured on the weights as written.
The same folder gives the same bytes on the same machine. No sentence is written: only weights and digests.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from engine.data.dataset import Dataset, load
from engine.score.ngram import BITS, FOLDS, WEIGHTS, NgramScorer, Weights, features, sentence_digests
from engine.vocabulary import NINE, Language, Pair

C = 10.0
"""Inverse strength of the L2 penalty."""


def main(folder: tyro.conf.Positional[Path]) -> None:
    """Train the n-gram scorer.

    Args:
        folder: a folder of sentence pairs, as for --dataset.
    """
    pairs = load(str(folder))
    write(train(pairs.train), WEIGHTS)
    report = card(pairs, WEIGHTS)
    WEIGHTS.with_name("README.md").write_text(report, encoding="utf-8")
    sys.stdout.write(report)


def train(training: Mapping[Language, Sequence[Pair]]) -> Weights:
    """The full model and FOLDS fold models, over all languages together."""
    pairs = [pair for lang in training for pair in training[lang]]
    sentences = [sentence for pair in pairs for sentence in (pair.toxic, pair.neutral)]
    rows, is_toxic = features(sentences), np.tile([True, False], len(pairs))
    digests = sentence_digests(sentences)
    folds = assign_folds(digests)

    models = []
    for unseen in (None, *range(FOLDS)):
        in_folds = np.flatnonzero(folds != unseen) if unseen is not None else np.arange(len(folds))
        # liblinear in the primal draws no random numbers; on one thread its sums have one order.
        with threadpool_limits(1):
            models.append(LogisticRegression(C=C, solver="liblinear").fit(rows[in_folds], is_toxic[in_folds]))
    coefficients = np.vstack([model.coef_ for model in models])
    steps = np.abs(coefficients).max(axis=1) / 127
    unique_digests, first = np.unique(digests, return_index=True)
    return Weights(
        coefficients=np.round(coefficients / steps[:, None]).astype(np.int8),
        steps=steps.astype(np.float32),
        intercepts=np.concatenate([model.intercept_ for model in models]).astype(np.float32),
        digests=unique_digests,
        folds=folds[first].astype(np.uint8),
    )


def assign_folds(digests: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Digests of toxic, neutral, toxic, neutral, … → the fold of each sentence, by the neutral sentence's digest.

    Both sides of a pair share a fold, and so do pairs that share a sentence: the least neutral digest among them
    decides. So no fold model has seen a sentence of its own fold, and the order of the pairs does not matter.
    """
    unique_digests, node = np.unique(digests, return_inverse=True)
    toxic, neutral = node[0::2], node[1::2]
    edges = coo_matrix((np.ones(len(toxic)), (toxic, neutral)), shape=(len(unique_digests), len(unique_digests)))
    group = connected_components(edges, directed=False)[1][node]
    deciding = np.full(group.max() + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(deciding, group[1::2], digests[1::2])
    folds: NDArray[np.intp] = (deciding[group] % np.uint64(FOLDS)).astype(np.intp)
    return folds


def write(weights: Weights, path: Path) -> None:
    """The file that `engine.score.ngram.read` reads. numpy stamps all its parts 1980: equal weights, equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **vars(weights))


@dataclass(frozen=True)
class HeldOutScores:
    """Scores × 100 of one scorer in one language: arrays of pairs."""

    toxic_test: NDArray[np.float64]
    neutral_test: NDArray[np.float64]
    neutral_train: NDArray[np.float64]

    @property
    def auc(self) -> float:
        """How often a toxic held-out sentence scores higher than a neutral one."""
        labels = np.repeat([1, 0], [len(self.toxic_test), len(self.neutral_test)])
        return float(roc_auc_score(labels, np.concatenate([self.toxic_test, self.neutral_test])))

    @property
    def ordered(self) -> float:
        """Share of held-out pairs whose toxic side scores higher."""
        return float((self.toxic_test > self.neutral_test).mean())

    @property
    def gap(self) -> float:
        return float(self.neutral_test.mean() - self.neutral_train.mean())

    @property
    def gap_error(self) -> float:
        """Standard error of the gap."""
        parts = (self.neutral_test, self.neutral_train)
        return float(np.sqrt(sum(part.var(ddof=1) / len(part) for part in parts)))


def measure(pairs: Dataset, scorer: NgramScorer) -> dict[Language, HeldOutScores]:
    """What `scorer` gives the sentences of a data set, by language."""

    def values(sentences: Sequence[str], lang: Language) -> NDArray[np.float64]:
        return np.array([score.value for score in scorer.score(sentences, lang)], np.float64) * 100

    return {
        lang: HeldOutScores(
            values([pair.toxic for pair in pairs.test[lang]], lang),
            values([pair.neutral for pair in pairs.test[lang]], lang),
            values([pair.neutral for pair in pairs.train[lang]], lang),
        )
        for lang in pairs.train
    }


def pool(languages: Mapping[Language, HeldOutScores]) -> HeldOutScores:
    """All languages as one."""
    parts = list(languages.values())
    return HeldOutScores(
        np.concatenate([part.toxic_test for part in parts]),
        np.concatenate([part.neutral_test for part in parts]),
        np.concatenate([part.neutral_train for part in parts]),
    )


def calibration_slope(measured: HeldOutScores) -> float:
    """By how much held-out logits would have to be multiplied to be true odds; 1 is calibrated, more is too timid."""
    values = np.concatenate([measured.toxic_test, measured.neutral_test]) / 100
    labels = np.repeat([1, 0], [len(measured.toxic_test), len(measured.neutral_test)])
    logits = np.log(values / (1 - values))[:, None]
    return float(LogisticRegression(C=1e6).fit(logits, labels).coef_[0, 0])


def ordered_in_sample(scorer: NgramScorer) -> str:
    """Share of the bundled sample's pairs whose toxic side scores higher, in words."""
    sample = load("sample")
    languages = measure(replace(sample, test={lang: sample.train[lang] + sample.test[lang] for lang in NINE}), scorer)
    shares = ", ".join(f"{lang} {measured.ordered:.0%}" for lang, measured in languages.items())
    return f"{pool(languages).ordered:.0%} ({shares})"


def card(pairs: Dataset, path: Path) -> str:
    """The model card of the weights at `path`, measured on the data set that they were trained on."""
    full, cross_fitted = NgramScorer({}, path), NgramScorer(pairs.train, path)
    before, after = measure(pairs, full), measure(pairs, cross_fitted)
    all_before, all_after = pool(before), pool(after)
    mean_auc, mean_auc_after = (np.mean([m.auc for m in measured.values()]) for measured in (before, after))
    rows = [
        f"| {lang} | {before[lang].auc:.3f} | {after[lang].auc:.3f} | {before[lang].ordered:.0%} "
        f"| {before[lang].gap:+.1f} | {after[lang].gap:+.1f} ± {after[lang].gap_error:.1f} |"
        for lang in before
    ]
    rows.append(
        f"| all nine | mean {mean_auc:.3f} | mean {mean_auc_after:.3f} | {all_before.ordered:.0%} "
        f"| {all_before.gap:+.1f} | {all_after.gap:+.1f} ± {all_after.gap_error:.1f} |"
    )
    return CARD.format(
        rows="\n".join(rows),
        revision=full.revision,
        kilobytes=round(path.stat().st_size / 1000),
        columns=f"2^{BITS}",
        n_train=sum(map(len, pairs.train.values())),
        n_test=sum(map(len, pairs.test.values())),
        folds=FOLDS,
        c=C,
        neutral=f"{all_before.neutral_test.mean():.1f}",
        neutral_after=f"{all_after.neutral_test.mean():.1f}",
        toxic=f"{all_before.toxic_test.mean():.1f}",
        toxic_after=f"{all_after.toxic_test.mean():.1f}",
        elsewhere=ordered_in_sample(full),
        slope=f"{calibration_slope(all_before):.2f}",
        slope_after=f"{calibration_slope(all_after):.2f}",
    )


CARD = """\
# The bundled n-gram scorer

Written by `engine/score/train_ngram.py`, which measured every number here on the weights beside it. Do not edit.

**What it is.** `weights.npz` ({kilobytes} kB, revision `{revision}`) gives a text a toxicity in 0..1, without
network or GPU. One logistic regression (L2, C = {c:g}) serves all nine languages. It reads words alone (runs of
letters, marks and digits that hold a letter): punctuation and spacing change nothing, and a text without a letter has
no score (`no-words`). Its features are hashed character 1–5-grams within words and hashed words, lower case,
{columns} columns each, each half scaled to length 1. Weights are 8-bit. The file holds the full model, {folds} fold
models and an 8-byte digest of every training sentence, and no sentence.

**Trained on** the {n_train} training pairs of ParaDetox in nine languages (`textdetox/multilingual_paradetox`;
Dementieva et al., *Overview of the Multilingual Text Detoxification Task at PAN 2024*, CLEF 2024; Dementieva et al.,
*Multilingual and Explainable Text Detoxification with Parallel Corpora*, COLING 2025): toxic sentences against their
neutral rewrites.

**Cross-fitting.** A scorer finds the neutral sentences that it was trained on cleaner than they are, so a variant
that learnt them would look cleaner too. When a run uses sentences whose digest is in the file, each text is therefore
scored by the fold model that has not seen the training sentence nearest to it (cosine of the same features, among all
those the run uses). A pair's fold is a hash of its neutral sentence; pairs that share a sentence share a fold. A run
without such sentences uses the full model. The revision tells the cases apart.

**Measured** on the {n_test} held-out pairs. *Ordered*: held-out pairs whose toxic side scores higher. *Gap*: mean
score (× 100) of the neutral test sentences less that of the neutral training sentences; ± is its standard error.

| Language | AUC | AUC, cross-fitted | Ordered | Gap, full model | Gap, cross-fitted |
|---|---|---|---|---|---|
{rows}

**Calibration.** Mean score × 100 of the held-out sentences, full model and cross-fitted: neutral {neutral} and
{neutral_after}, toxic {toxic} and {toxic_after}. Logits would be true odds if multiplied by {slope} and
{slope_after}. Neither is rescaled: the strong penalty makes both timid alike, and order and differences do not need
it. Compare values within one revision only.

**Elsewhere.** On the bundled sample, mild everyday rudeness from another source (`data/sample`), the toxic side
scores higher in fewer pairs: {elsewhere}.

**Limits.** Small and lexical: it knows words and spellings from a few hundred pairs per language, sees no context, no
irony and no intent, and is misled by a rare spelling or by a topic. It is made to compare variants in this lab; it is
no moderation tool, and a value says nothing about a person. Its idea of "neutral" is that of the data set's rewrites,
which can be harsh in what they say: a low score does not mean harmless. Cross-fitting removes the memory of
sentences, not a shared style: a variant trained on this data set also learns how its neutral sentences are worded.

**Licence.** ParaDetox is under openrail++. These weights are derived from it: keep to that licence's use
restrictions.

**Retrain.** `python -m engine.score.train_ngram FOLDER`, FOLDER as for `--dataset`. The same folder gives the same
bytes on the same machine.
"""

if __name__ == "__main__":
    tyro.cli(main)
