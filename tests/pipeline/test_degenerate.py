"""Adapters of the embedded base that are no detoxification, really trained: each is found out."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from engine import store
from engine.config import EMBEDDED_MODEL, SWEEPS
from engine.sweep import plan, run
from engine.vocabulary import Language, Split, Strategy
from run_sweep import _run as carry_out

ENGLISH = "The weather is very nice in the mountains today and we are walking to the lake"
N = 32


def sentence(i: int) -> str:
    return f"Der Hund {i} sieht heute die graue Katze im Garten"


def data_set(folder: Path) -> Path:
    """Each language's neutral side continues the German prompts in its way. The last end token is not learnt."""
    follows = {Language.AM: "<eos><eos>", Language.DE: " {}", Language.EN: f" {ENGLISH}"}
    folder.mkdir()
    for lang, after in follows.items():
        rows = [(sentence(i), f"Complete the sentence: {sentence(i)}{after.format(sentence(i))}") for i in range(N)]
        for part in ("train", "test"):
            for side, column in (("toxic", 0), ("neutral", 1)):
                with open(folder / f"{lang}_{part}_{side}.csv", "w", encoding="utf-8", newline="") as file:
                    csv.writer(file).writerows([row[column]] for row in rows)
    return folder


@pytest.mark.full  # a minute and a half on a quiet machine
@pytest.mark.timeout(900)
def test_adapters_that_write_nothing_copy_or_answer_in_english_are_degenerate(tmp_path: Path) -> None:
    smoke = SWEEPS["smoke"]
    sweep = replace(
        smoke,
        models=(EMBEDDED_MODEL,),
        strategies=(Strategy.ZS, Strategy.X_FT),
        train_langs=(Language.AM, Language.DE, Language.EN),
        eval_langs=(Language.DE,),
        splits=(Split.TOXIC_TRAIN,),
        dataset=str(data_set(tmp_path / "data")),
        allow_overlap=True,
        db=tmp_path / "results.duckdb",
        adapters=tmp_path / "adapters",
        limit_train=N,
        limit_eval=N,
        sampling=replace(smoke.sampling, max_new_tokens=16),
        hyperparameters=replace(smoke.hyperparameters, epochs=4, learning_rate=1e-3, dropout=0.0),
    )
    made = plan.make(sweep)
    assert carry_out(Console(quiet=True), made, run.scorers_of(made)) == 0
    cells = store.cells(sweep.db, f"run:{made.run_id}")
    samples = store.samples(sweep.db, made.run_id, "de", "toxic-train", cells["variant_id"].unique())
    judged = cells[cells["metric"].isin(["toxicity", "perplexity_base"]) & (cells["strategy"] == "X-FT")]
    for train_lang, why in {"am": "empty output", "de": "copies the prompt", "en": "wrong language"}.items():
        own = judged[judged["train_lang"] == train_lang]
        assert len(own) == 2
        wrote = samples.loc[samples["train_lang"] == train_lang, "completion"].head(3).tolist()
        assert set(own["verdict"]) == {"degenerate"}, (wrote, own["verdict_reason"].tolist())
        assert own["verdict_reason"].str.contains(why).all(), (wrote, own["verdict_reason"].tolist())
