"""Seconds of a plan, by hand; the rate of this machine, which they follow from."""

import pytest

from engine.model.machine import at_hand
from engine.model.registry import describe
from engine.sweep.estimate import Speed

GEMMA = describe("gemma-3-270m").shape
TOKENS = 1000


def test_training_is_four_operations_per_parameter_and_token() -> None:
    seconds = Speed((1e12, 1e12), (0.0, 0.0)).training(GEMMA, TOKENS)
    assert seconds == pytest.approx(4 * GEMMA.parameters * TOKENS / 1e12)


def test_a_token_that_is_read_alone_spares_the_output_head() -> None:
    speed = Speed((1e12, 1e12), (0.0, 0.0))
    read, predicted = speed.writing(GEMMA, TOKENS, 0), speed.writing(GEMMA, TOKENS, TOKENS)
    assert predicted == pytest.approx(2 * GEMMA.parameters * TOKENS / 1e12)
    assert predicted - read == pytest.approx(2 * 262_144 * 640 * TOKENS / 1e12)


def test_what_is_no_product_takes_its_time_however_fast_products_are() -> None:
    speed = Speed((1e30, 1e30), (2e-9, 1e-9))
    numbers = (18 * (4 * 640 + 2 * 1024 + 2 * 256 + 3 * 2048) + 262_144) * TOKENS
    assert speed.writing(GEMMA, TOKENS, TOKENS) == pytest.approx(numbers * 1e-9)
    assert speed.training(GEMMA, TOKENS) == pytest.approx(2 * numbers * 2e-9)


def test_the_rate_of_this_machine_is_that_of_a_machine() -> None:
    """A core of ten years ago has 1e10, a large server 1e14."""
    machine = at_hand()
    assert 1e9 < machine.rates[machine.dtype] < 1e15
