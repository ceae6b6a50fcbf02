"""How many adapters are trained at once: enough, and no more than fit."""

from dataclasses import replace

import pytest

from engine import capacity
from engine.models import describe

DEMO = [26] * 9 + [26, 50, 78, 136]


@pytest.mark.parametrize(
    ("steps", "batch_size", "expected"),
    [([], 4, 0), ([50], 4, 1), (DEMO, 4, 4), (DEMO, 16, 4), ([9] * 8, 16, 8), (DEMO, 1, 13)],
)
def test_a_pass_is_filled_and_the_longest_lane_is_not_left_alone(
    monkeypatch: pytest.MonkeyPatch, steps: list[int], batch_size: int, expected: int
) -> None:
    monkeypatch.setattr(capacity, "at_hand", lambda: ("cpu", 64e9))
    assert capacity.places(describe("gemma-3-270m"), "bfloat16", steps, batch_size) == expected


def test_fewer_are_trained_at_once_where_memory_is_short_but_never_none(monkeypatch: pytest.MonkeyPatch) -> None:
    base = replace(describe("gemma-3-270m"), billions=8.03)
    found = []
    for memory in (80e9, 40e9, 32e9, 8e9):
        monkeypatch.setattr(capacity, "at_hand", lambda memory=memory: ("cuda", memory))
        found.append(capacity.places(base, "bfloat16", DEMO, 4))
        if found[-1] > 1:
            assert capacity.training_bytes(base, "bfloat16", found[-1]) <= capacity.USABLE * memory
    assert found[0] == 13 and found == sorted(found, reverse=True) and found[2] > 1 and found[3] == 1


def test_memory_at_hand_is_that_of_this_machine() -> None:
    device, memory = capacity.at_hand()
    assert device in ("cpu", "cuda") and 1e9 < memory < 1e14
