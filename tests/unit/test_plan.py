"""The plan: which run it is, and what its units hold."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from engine.config import ROWS_PER_UNIT, SWEEPS
from engine.data.dataset import Dataset
from engine.errors import ModelError, UsageError
from engine.model.machine import Machine, at_hand
from engine.model.registry import Base, describe
from engine.sweep.plan import Plan, Unit, assemble, check_fits, make, needed_langs, sentences_of
from engine.vocabulary import NINE, Language, Pair, Split, Strategy, Stream

SMOKE = SWEEPS["smoke"]


@pytest.fixture(scope="module")
def planned(sample: Dataset, base_named: Callable[[str], Base]) -> Callable[..., Plan]:
    """The plan of `smoke` with some fields of its sweep, or its data set, changed."""

    def make(data: Dataset = sample, **changes: object) -> Plan:
        sweep = replace(SMOKE, **changes)
        return assemble(sweep, data, [base_named(name) for name in sweep.models], at_hand())

    return make


@pytest.mark.parametrize(("names", "settings"), [(SMOKE.models, 126), (SWEEPS["paper"].models, 504)])
def test_a_plan_of_all_variants_has_all_settings(planned: Callable[..., Plan], names: tuple, settings: int) -> None:
    plan = planned(models=names)
    assert plan.settings == settings
    for base in plan.bases:
        assert len(base.trained) == 13 and base.max_concurrent >= 3
        assert base.zero_shot is base.variants[0]


def test_the_same_plan_is_the_same_run(planned: Callable[..., Plan]) -> None:
    assert planned().run_id == planned().run_id


@pytest.mark.parametrize(
    "changes",
    [
        {"models": ("other",)},
        {"strategies": (Strategy.ZS, Strategy.M_FT)},
        {"train_langs": (Language.DE,)},
        {"eval_langs": (Language.DE,)},
        {"splits": (Split.TOXIC_TEST,)},
        {"seed": 43},
        {"limit_train": 11},
        {"limit_eval": 3},
        {"samples_per_prompt": 2},
        {"prompt": "Continue: {sentence}"},
        {"chat_template": True},
        {"sampling": replace(SMOKE.sampling, max_new_tokens=7)},
        {"sampling": replace(SMOKE.sampling, temperature=0.8)},
        {"hyperparameters": replace(SMOKE.hyperparameters, epochs=2)},
        {"backend": "vllm"},
    ],
    ids=str,
)
def test_what_shapes_weights_or_text_makes_another_run(planned: Callable[..., Plan], changes: dict) -> None:
    assert planned(**changes).run_id != planned().run_id


def test_another_data_set_makes_another_run_but_not_another_name_of_it(
    planned: Callable[..., Plan], sample: Dataset
) -> None:
    assert planned(data=replace(sample, content_hash="other")).run_id != planned().run_id
    assert planned(data=replace(sample, name="a copy"), dataset="a copy").run_id == planned().run_id


@pytest.mark.parametrize(
    "changes",
    [
        {"scorers": ("other",)},
        {"db": Path("x")},
        {"adapters": Path("x")},
        {"name": "mine", "about": "mine"},
        {"represent": True},
    ],
    ids=str,
)
def test_what_shapes_no_text_does_not(planned: Callable[..., Plan], changes: dict) -> None:
    assert planned(**changes).run_id == planned().run_id


def ids(plan: Plan, lang: Language = Language.DE) -> list[str]:
    base = plan.bases[0]
    return [unit.unit_id(plan.sweep.sampling, base.backend, base.variants) for unit in plan.units(lang, base)]


@pytest.mark.parametrize(
    "changes", [{"eval_langs": (Language.DE,)}, {"scorers": ("other",)}, {"db": Path("x")}, {"name": "mine"}], ids=str
)
def test_runs_that_share_a_unit_share_its_id(planned: Callable[..., Plan], changes: dict) -> None:
    assert ids(planned(**changes)) == ids(planned())


@pytest.mark.parametrize(
    "changes",
    [
        {"strategies": (Strategy.ZS, Strategy.M_FT)},
        {"seed": 43},
        {"limit_train": 11},
        {"limit_eval": 3},
        {"splits": (Split.TOXIC_TEST,)},
        {"samples_per_prompt": 2},
        {"prompt": "Continue: {sentence}"},
        {"chat_template": True},
        {"sampling": replace(SMOKE.sampling, top_k=7)},
        {"hyperparameters": replace(SMOKE.hyperparameters, epochs=2)},
    ],
    ids=str,
)
def test_a_unit_of_another_composition_has_another_id(planned: Callable[..., Plan], changes: dict) -> None:
    assert not set(ids(planned(**changes))) & set(ids(planned()))


def test_a_units_id_hangs_on_its_variants_items_and_sentences(planned: Callable[..., Plan]) -> None:
    plan = planned()
    base = plan.bases[0]
    (unit,) = plan.units(Language.DE, base)
    shorter = Unit(unit.eval_lang, unit.items[:-1])
    reworded = Unit(unit.eval_lang, (replace(unit.items[0], pair=Pair("other", "other")), *unit.items[1:]))
    sampling = plan.sweep.sampling
    found = {u.unit_id(sampling, base.backend, base.variants) for u in (unit, shorter, reworded)}
    found |= {unit.unit_id(sampling, base.backend, base.variants[:-1]), unit.unit_id(sampling, "vllm", base.variants)}
    assert len(found) == 5


def test_no_two_units_of_a_run_share_an_id(planned: Callable[..., Plan]) -> None:
    plan = planned(limit_eval=None)
    found = [unit_id for lang in NINE for unit_id in ids(plan, lang)]
    assert len(found) == len(set(found)) > len(NINE)


@pytest.mark.parametrize("n_variants", [1, 13, 14, 1000])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("backend", ROWS_PER_UNIT)
def test_units_cover_every_prompt_and_sample_once_and_stay_small(
    planned: Callable[..., Plan], n_variants: int, samples: int, backend: str
) -> None:
    plan = planned(limit_eval=None, samples_per_prompt=samples)
    base = plan.bases[0]
    base = replace(base, variants=(base.variants * n_variants)[:n_variants], backend=backend)
    units = plan.units(Language.UK, base)
    streams = [item.stream for unit in units for item in unit.items]
    expected = [
        Stream(42, Language.UK, part, index, sample)
        for part in Split
        for index, sample in product(range(len(plan.splits.prompt_pairs(part, Language.UK))), range(samples))
    ]
    assert streams == expected
    assert all(len(unit.items) * n_variants <= max(ROWS_PER_UNIT[backend], n_variants) for unit in units)
    for unit in units:
        for item in unit.items:
            part, index = item.stream.split, item.stream.prompt_index
            sentence = plan.splits.prompt_pairs(part, Language.UK)[index].prompt_side(part)
            assert item.prompt == f"Complete the sentence: {sentence}"


def test_sentences_of_a_run_name_each_prompt_once(planned: Callable[..., Plan]) -> None:
    found = sentences_of(planned(eval_langs=(Language.AM, Language.DE)))
    assert [row[:3] for row in found] == list(product([Language.AM, Language.DE], Split, range(2)))


@pytest.mark.parametrize(
    ("strategies", "expected"),
    [
        ((Strategy.ZS,), [Language.EN]),
        ((Strategy.ZS, Strategy.X_FT), [Language.DE, Language.EN]),
        ((Strategy.P_FT,), list(NINE)),
        ((Strategy.M_FT,), list(NINE)),
    ],
)
def test_a_sweep_needs_the_languages_it_reads(strategies: tuple, expected: list[Language]) -> None:
    sweep = replace(SMOKE, strategies=strategies, train_langs=(Language.DE,), eval_langs=(Language.EN,))
    assert list(needed_langs(sweep)) == expected


@pytest.mark.parametrize(
    ("wanted", "has_vllm", "device", "backends"),
    [
        ("auto", True, "cuda", ["vllm", "vllm", "transformers", "transformers"]),
        ("auto", True, "cpu", ["transformers"] * 4),
        ("auto", False, "cuda", ["transformers"] * 4),
        ("vllm", True, "cpu", ["vllm", "vllm", "transformers", "transformers"]),
        ("transformers", True, "cuda", ["transformers"] * 4),
    ],
)
def test_what_generates_with_the_paper_s_bases(
    sample: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    wanted: str,
    has_vllm: bool,
    device: str,
    backends: list[str],
) -> None:
    monkeypatch.setattr("engine.sweep.plan.has_vllm", lambda: has_vllm)
    bases, machine = [describe(name) for name in SWEEPS["paper"].models], Machine(device, "it", 80e9, "bfloat16", {})
    plan = assemble(replace(SMOKE, backend=wanted), sample, bases, machine)
    assert [base.backend for base in plan.bases] == backends
    alone = assemble(replace(SMOKE, backend="transformers"), sample, bases, machine)
    assert (plan.run_id == alone.run_id) == (backends == ["transformers"] * 4)


def test_vllm_that_is_not_installed_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.sweep.plan.has_vllm", lambda: False)
    with pytest.raises(UsageError, match=r"requirements-gpu\.txt"):
        make(replace(SMOKE, backend="vllm"))


@pytest.mark.parametrize(("memory", "said"), [(12e9, "training needs about"), (30e9, "generation needs about")])
def test_a_base_that_does_not_fit_is_refused_with_numbers(sample: Dataset, memory: float, said: str) -> None:
    """Bloom generates with large caches; on the smaller machine not even its weights fit."""
    plan = assemble(SMOKE, sample, [describe("bloom-7b1")], Machine("cuda", "a small card", memory, "bfloat16", {}))
    with pytest.raises(ModelError) as caught:
        check_fits(plan)
    assert "bloom-7b1: " + said in str(caught.value)
    assert "weights 14.1" in str(caught.value)
    assert f"a small card has {memory / 1e9:.1f} GB" in str(caught.value)
    assert "--models" in str(caught.value)
