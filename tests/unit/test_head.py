"""The output head in slices, and the draw without a sort, against what torch and transformers do in one piece."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from engine.generate import uniforms
from engine.generate.reader import by_adapter, equal_groups
from engine.generate.transformers import draw
from engine.model.lm_head import ROWS, LMHead, nll_sliced, nll_whole
from engine.vocabulary import Language, Sampling, Split, Stream


def head_of(
    vocabulary: int,
    width: int,
    scale: float | None = None,
    cap: float | None = None,
    dtype: torch.dtype = torch.float32,
) -> LMHead:
    torch.manual_seed(0)
    projection = nn.Linear(width, vocabulary, bias=False).requires_grad_(False).to(dtype)
    facts = SimpleNamespace(logit_scale=scale, final_logit_softcapping=cap, model_type="any")
    config = SimpleNamespace(get_text_config=lambda: facts)
    return LMHead(SimpleNamespace(get_output_embeddings=lambda: projection, config=config))


@pytest.mark.parametrize(("scale", "cap"), [(None, None), (0.0625, None), (None, 1.5)])
def test_nll_and_its_gradient_equal_cross_entropy(scale: float | None, cap: float | None) -> None:
    head = head_of(9_000, 24, scale, cap)
    hidden = torch.randn(ROWS["cpu"] + 7, 24, requires_grad=True)
    other = hidden.detach().clone().requires_grad_()
    targets = torch.randint(0, 9_000, (len(hidden),))
    weights = torch.rand(len(hidden))
    ours = head.nll(hidden, targets)
    logits = other * (scale or 1.0) @ head.weight.T
    logits = cap * torch.tanh(logits / cap) if cap else logits
    expected = nn.functional.cross_entropy(logits, targets, reduction="none")
    judged = head.nll(hidden.detach(), targets)
    (ours * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(judged, ours, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(hidden.grad, other.grad, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("cap", [None, 1.5])
def test_the_whole_vocabulary_at_once_gives_what_its_slices_give(cap: float | None) -> None:
    """The way of a GPU beside that of a CPU."""
    head = head_of(40_000, 24, cap=cap)
    hidden, targets = torch.randn(9, 24), torch.randint(0, 40_000, (9,))
    grads = [torch.empty_like(hidden) for _ in range(2)]
    whole, sliced = nll_whole(hidden, head, targets, grads[0]), nll_sliced(hidden, head, targets, grads[1])
    torch.testing.assert_close(whole, sliced, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(*grads, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(nll_whole(hidden, head, targets, None), whole)


@pytest.mark.parametrize("judge", [nll_whole, nll_sliced])
def test_bounded_logits_have_a_gradient_in_bfloat16(judge: Callable[..., torch.Tensor]) -> None:
    head = head_of(5_000, 24, cap=1.5)
    hidden, targets = torch.randn(9, 24), torch.randint(0, 5_000, (9,))
    exact = torch.empty_like(hidden)
    judge(hidden, head, targets, exact)
    half = head_of(5_000, 24, cap=1.5, dtype=torch.bfloat16)
    grad = torch.empty(9, 24, dtype=torch.bfloat16)
    judge(hidden.bfloat16(), half, targets, grad)
    assert (grad.float() - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize("vocabulary", [1000, 262_144])
def test_best_tokens_equal_topk(vocabulary: int) -> None:
    head = head_of(vocabulary, 16)
    hidden = torch.randn(9, 16)
    values, ids = head.best(hidden, 50)
    expected = (hidden @ head.weight.T).topk(50)
    torch.testing.assert_close(values, expected.values, atol=1e-5, rtol=1e-5)
    assert torch.equal(ids, expected.indices)


def test_draw_has_the_distribution_of_transformers_warpers() -> None:
    """Temperature, top-k 50, then top-p: the share of each token over a fine grid of numbers is its probability."""
    torch.manual_seed(1)
    logits = torch.randn(1, 300) * 2
    warped = logits
    for warper in (TemperatureLogitsWarper(0.7), TopKLogitsWarper(50), TopPLogitsWarper(0.9)):
        warped = warper(None, warped)
    expected = warped.softmax(-1)[0]
    grid = (torch.arange(20_000) + 0.5) / 20_000
    best = logits.topk(50)
    drawn = draw(best.values.expand(20_000, -1), best.indices.expand(20_000, -1), grid, Sampling())
    share = torch.bincount(drawn, minlength=300) / 20_000
    torch.testing.assert_close(share, expected, atol=2e-4, rtol=0)


def test_draw_never_leaves_the_nucleus_and_greedy_takes_the_best() -> None:
    logits, ids = torch.tensor([[5.0, 0.0, -1.0]]), torch.tensor([[7, 8, 9]])
    assert draw(logits, ids, torch.tensor([0.9999999]), Sampling()).tolist() == [7]
    assert draw(logits, ids, torch.tensor([0.5]), Sampling(temperature=0)).tolist() == [7]


def test_streams_differ_by_every_part_of_their_key_and_repeat() -> None:
    first = Stream(1, Language.DE, Split.TOXIC_TEST, 3, 0)
    others = [
        Stream(2, Language.DE, Split.TOXIC_TEST, 3, 0),
        Stream(1, Language.EN, Split.TOXIC_TEST, 3, 0),
        Stream(1, Language.DE, Split.NEUTRAL_TEST, 3, 0),
        Stream(1, Language.DE, Split.TOXIC_TEST, 4, 0),
        Stream(1, Language.DE, Split.TOXIC_TEST, 3, 1),
    ]
    assert uniforms(first, 8) == uniforms(first, 8)
    assert uniforms(first, 8)[:4] == uniforms(first, 4)
    assert len({tuple(uniforms(stream, 8)) for stream in [first, *others]}) == 6
    assert all(0 <= number < 1 for number in uniforms(first, 100))


def test_groups_are_from_short_to_long_and_equally_large() -> None:
    names = ["a", None, "a", "b", "a", None]
    found = by_adapter(names, [5, 4, 3, 2, 1, 0])
    assert found == {"a": [4, 2, 0], None: [5, 1], "b": [3]}
    assert equal_groups(found | {"c": []}) == {"a": [4, 2, 0], None: [5, 1, 1], "b": [3, 3, 3]}
    assert by_adapter([], []) == equal_groups({}) == {}
