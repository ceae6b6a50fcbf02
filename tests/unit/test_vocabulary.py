"""The grid of the paper, and what a variant's identity hangs on."""

import hashlib
import json
from dataclasses import fields, replace

import pytest

from engine.config import PAPER_MODELS
from engine.vocabulary import NINE, TRAIN_FRACTIONS, Hyperparameters, Language, Strategy, Variant, variants_of

OTHER = {
    "model": "other",
    "revision": "r2",
    "dtype": "bfloat16",
    "strategy": Strategy.P_FT,
    "train_lang": "en",
    "train_fraction": 0.1,
    "dataset_hash": "d2",
    "limit_train": None,
    "seed": 43,
    "hyperparameters": Hyperparameters(epochs=1, targets=("q_proj",)),
    "training_format": "f2",
    "pooled_langs": ("de", "en"),
}


def settings(variants: list[Variant]) -> int:
    return len(variants) * len(NINE)


def test_a_base_has_14_variants_and_126_settings_and_the_paper_504(trained: Variant, variants: list[Variant]) -> None:
    counts = [sum(v.strategy is strategy for v in variants) for strategy in (Strategy.ZS, *list(Strategy)[1:])]
    assert counts == [1, 9, 3, 1]
    assert settings(variants) == 126
    four = [v for m in PAPER_MODELS for v in variants_of(replace(trained, model=m), tuple(Strategy), tuple(NINE))]
    assert settings(four) == 504
    assert len({v.variant_id for v in four}) == 56


def test_train_lang_and_fraction_of_each_strategy(variants: list[Variant]) -> None:
    found = {s: [(v.train_lang, v.train_fraction) for v in variants if v.strategy is s] for s in Strategy}
    assert found == {
        Strategy.ZS: [(None, None)],
        Strategy.X_FT: [(lang.value, 1.0) for lang in NINE],
        Strategy.P_FT: [("all", 0.1), ("all", 0.2), ("all", 0.3)],
        Strategy.M_FT: [("all", 1.0)],
    }


def test_labels_are_unique_within_a_base_and_begin_the_id(variants: list[Variant]) -> None:
    x_ft = [f"x-ft-{lang}" for lang in ("am", "ar", "de", "en", "es", "hi", "ru", "uk", "zh")]
    assert [v.label for v in variants] == ["zs", *x_ft, "p-ft-10", "p-ft-20", "p-ft-30", "m-ft"]
    assert all(v.variant_id.startswith(f"tiny-random-{v.label}-") for v in variants)


def test_strategies_and_languages_left_out_are_left_out(trained: Variant) -> None:
    found = variants_of(trained, (Strategy.X_FT, Strategy.P_FT), (Language.DE,))
    assert [v.label for v in found] == ["x-ft-de", *(f"p-ft-{round(100 * f)}" for f in TRAIN_FRACTIONS)]


def test_the_id_is_the_hash_of_the_variant_as_canonical_json(trained: Variant) -> None:
    content = {
        "model": "tiny-random",
        "revision": "r1",
        "dtype": "float32",
        "strategy": "M-FT",
        "train_lang": None,
        "train_fraction": None,
        "dataset_hash": "d1",
        "limit_train": 10,
        "seed": 42,
        "hyperparameters": {
            "rank": 16,
            "alpha": 32,
            "dropout": 0.05,
            "learning_rate": 2e-4,
            "batch_size": 4,
            "epochs": 20,
            "max_grad_norm": 1.0,
            "max_tokens": 256,
            "targets": ["q_proj"],
        },
        "training_format": "f1",
    }
    expected = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
    assert trained.variant_id == f"tiny-random-m-ft-{expected}"
    assert replace(trained).variant_id == trained.variant_id


@pytest.mark.parametrize("name", [f.name for f in fields(Variant)])
def test_every_field_of_a_variant_shapes_its_id(trained: Variant, name: str) -> None:
    changed = replace(trained, **{name: OTHER[name]}).variant_id
    assert changed.rsplit("-", 1)[1] != trained.variant_id.rsplit("-", 1)[1]


@pytest.mark.parametrize("name", [f.name for f in fields(Hyperparameters)])
def test_every_hyperparameter_shapes_the_id(trained: Variant, name: str) -> None:
    before = trained.hyperparameters
    after = replace(before, **{name: getattr(before, name) * 2})
    assert replace(trained, hyperparameters=after).variant_id != trained.variant_id


@pytest.mark.parametrize(
    ("name", "is_same"),
    [
        *[(name, True) for name in ("dataset_hash", "limit_train", "seed", "hyperparameters", "training_format")],
        *[(name, False) for name in ("model", "revision", "dtype")],
    ],
)
def test_zero_shot_hangs_on_the_base_alone(trained: Variant, name: str, is_same: bool) -> None:
    other = replace(trained, **{name: OTHER[name]})
    ids = [variants_of(shared, (Strategy.ZS,), ())[0].variant_id for shared in (trained, other)]
    assert (ids[0] == ids[1]) == is_same


def test_an_id_is_one_name_of_a_file_also_for_a_hub_id_or_a_folder(trained: Variant) -> None:
    for model in ("CohereLabs/aya-23-8B", "C:\\models\\mine", "/a b/c d/", "../up"):
        found = replace(trained, model=model).variant_id
        assert not set(found) & set("/\\ :")
        assert not found.startswith(".")
