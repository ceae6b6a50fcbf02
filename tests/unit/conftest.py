"""What several unit tests start from: a data set, variants, a base that is never loaded, a hub out of reach."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from engine.data import dataset
from engine.model.machine import Machine, at_hand
from engine.model.registry import KNOWN_BASES, Base
from engine.vocabulary import NINE, Hyperparameters, Strategy, Variant, variants_of

settings.register_profile("unit", database=None, deadline=None, derandomize=True)
settings.load_profile("unit")

MAX_SECONDS = 2.0
"""Of processor time, so that a busy machine fails nothing. What takes longer is no unit test, or a simulation that is
marked `full`."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    began = time.process_time()
    yield
    took = time.process_time() - began
    if took > MAX_SECONDS and item.get_closest_marker("full") is None:
        pytest.fail(f"{item.name} took {took:.1f} s of processor time; a unit test may take {MAX_SECONDS:g}.")


@pytest.fixture(scope="session", autouse=True)
def machine() -> Machine:
    """Imports torch and times its products here, so that no test pays for it, whichever is the first."""
    return at_hand()


@pytest.fixture(scope="session")
def sample() -> dataset.Dataset:
    return dataset.load("sample")


@pytest.fixture(scope="session")
def trained() -> Variant:
    """What all trained variants of a base share."""
    return Variant(
        model="tiny-random",
        revision="r1",
        dtype="float32",
        strategy=Strategy.M_FT,
        dataset_hash="d1",
        limit_train=10,
        seed=42,
        hyperparameters=Hyperparameters(targets=("q_proj",)),
        training_format="f1",
    )


@pytest.fixture(scope="session")
def variants(trained: Variant) -> list[Variant]:
    """All 14 of one base, ZS first."""
    return variants_of(trained, tuple(Strategy), tuple(NINE))


@pytest.fixture(scope="session")
def base_named() -> Callable[[str], Base]:
    """A base for planning."""
    return lambda name: Base(
        name, "r1", "Gemma3ForCausalLM", KNOWN_BASES["tiny-random"].shape, lambda: pytest.fail("a plan loads no base")
    )


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The hub is out of reach and its cache empty, whether or not huggingface_hub was imported before."""
    from huggingface_hub import constants

    cache: Path = tmp_path_factory.mktemp("hub")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
