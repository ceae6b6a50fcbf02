"""The stack against plain PEFT: training, logits and files, in float32 with dropout off."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from engine.data import dataset
from engine.errors import ModelError
from engine.lora.adapter_run import AdapterRun
from engine.lora.stack import Stack
from engine.lora.train import encode, train
from engine.model.loading import LoadedBase
from engine.vocabulary import Hyperparameters, Language, Pair
from tests.pipeline.conftest import ARCHITECTURES, ENCODER_DECODER, PAPER

Load = Callable[..., LoadedBase]


def pairs(lang: Language, n: int) -> list[Pair]:
    return list(dataset.load("sample").train[lang][:n])


def runs() -> list[AdapterRun]:
    """Three adapters of different languages, sizes, learning rates, ranks and batch sizes."""
    off = {"dropout": 0.0, "epochs": 2}
    return [
        AdapterRun(
            "de",
            Hyperparameters(rank=4, alpha=8, learning_rate=2e-3, batch_size=4, **off),
            pairs(Language.DE, 10),
            1,
        ),
        AdapterRun(
            "am",
            Hyperparameters(rank=8, alpha=32, learning_rate=5e-3, batch_size=4, **off),
            pairs(Language.AM, 7),
            2,
        ),
        AdapterRun(
            "zh",
            Hyperparameters(rank=2, alpha=2, learning_rate=1e-3, batch_size=3, **off),
            pairs(Language.ZH, 12),
            3,
        ),
    ]


def padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids [n, t] padded on the right, and their mask."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    return ids, torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])


def train_alone(
    loaded: LoadedBase, run: AdapterRun, initial: dict[str, Any], targets: Sequence[str]
) -> tuple[list[float], dict[str, Any]]:
    """One adapter as a careful user of PEFT trains it: Hugging Face's loss, AdamW, clipping, linear decay."""
    h = run.hyperparameters
    config = peft.LoraConfig(
        r=h.rank,
        lora_alpha=h.alpha,
        lora_dropout=0.0,
        target_modules=list(targets),
        task_type="SEQ_2_SEQ_LM" if loaded.base.is_encoder_decoder else "CAUSAL_LM",
    )
    model: Any = peft.get_peft_model(loaded.model, config)
    peft.set_peft_model_state_dict(model, initial)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=h.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / run.steps))
    rows, losses = encode(loaded, run.pairs, h.max_tokens), []
    model.eval()  # some have dropout of their own
    for indices in run.batches():
        ids, mask = (tensor.to(model.device) for tensor in padded([rows[i][0] for i in indices]))
        labels, of_labels = (tensor.to(model.device) for tensor in padded([rows[i][-1] for i in indices]))
        loss = model(input_ids=ids, attention_mask=mask, labels=labels.masked_fill(of_labels == 0, -100)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, h.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss.item())
    return losses, peft.get_peft_model_state_dict(model)


def weights_of(stack: Stack, name: str) -> dict[str, torch.Tensor]:
    found = {}
    for path, (a, b) in stack.adapters[name].weights.items():
        found[f"base_model.model.{path}.lora_A.weight"] = a.detach().clone()
        found[f"base_model.model.{path}.lora_B.weight"] = b.detach().clone()
    return found


@pytest.mark.parametrize("architecture", PAPER)
def test_three_adapters_together_learn_what_each_learns_alone(load_tiny: Load, architecture: str) -> None:
    together = load_tiny(architecture)
    stack = Stack(together.model, together.base.targets)
    initial = {}
    for run in runs():
        stack.create(run.name, run.hyperparameters, run.seed)
        initial[run.name] = weights_of(stack, run.name)
    trained = runs()
    train(together, stack, trained)
    for run in trained:
        losses, weights = train_alone(load_tiny(architecture), run, initial[run.name], stack.targets)
        assert len(run.losses) == run.steps
        assert run.losses == pytest.approx(losses, rel=1e-6, abs=1e-5)
        ours = weights_of(stack, run.name)
        assert ours.keys() == weights.keys()
        # Where a gradient is next to nothing, rounding decides what AdamW makes of it: 2 % of one step are forgiven.
        forgiven = 0.02 * run.hyperparameters.learning_rate
        for key, expected in weights.items():
            torch.testing.assert_close(ours[key], expected, atol=forgiven, rtol=1e-3)
            assert (expected - initial[run.name][key]).abs().max() > 1e-4


@pytest.mark.parametrize("architecture", ["Gemma3ForCausalLM", ENCODER_DECODER])
def test_dropout_of_a_lane_does_not_depend_on_its_company(load_tiny: Load, architecture: str) -> None:
    def losses(company: bool) -> list[float]:
        loaded = load_tiny(architecture)
        stack = Stack(loaded.model, loaded.base.targets)
        own = AdapterRun("de", Hyperparameters(dropout=0.3, epochs=2, learning_rate=1e-3), pairs(Language.DE, 9), 1)
        others = [AdapterRun("am", Hyperparameters(dropout=0.5, epochs=2), pairs(Language.AM, 9), 1)] if company else []
        train(loaded, stack, [*others, own])
        return own.losses

    alone = losses(company=False)
    assert losses(company=True) == pytest.approx(alone, rel=1e-6, abs=1e-5)
    plain = AdapterRun("de", Hyperparameters(dropout=0.0, epochs=2, learning_rate=1e-3), pairs(Language.DE, 9), 1)
    loaded = load_tiny(architecture)
    train(loaded, Stack(loaded.model, loaded.base.targets), [plain])
    assert plain.losses[3:] != pytest.approx(alone[3:], abs=1e-5)


def test_a_lane_whose_loss_is_no_number_is_taken_out_and_the_others_go_on(load_tiny: Load) -> None:
    loaded = load_tiny()
    stack = Stack(loaded.model, loaded.base.targets)
    good = AdapterRun("good", Hyperparameters(epochs=2), pairs(Language.EN, 8), 1)
    wild = AdapterRun(
        "wild", Hyperparameters(epochs=2, learning_rate=1e30, max_grad_norm=1e30), pairs(Language.ES, 8), 1
    )
    train(loaded, stack, [wild, good])
    assert wild.failure is not None and "step" in wild.failure
    assert good.failure is None and len(good.losses) == good.steps


def test_adapters_stay_stacked_until_one_of_them_changes(load_tiny: Load) -> None:
    loaded = load_tiny()
    stack = Stack(loaded.model, loaded.base.targets)
    first, other = (stack.create(name, Hyperparameters(), seed) for seed, name in enumerate(("first", "other")))
    stacked = []
    for _ in range(2):
        with stack.groups(["first", None, "other"]):
            stacked.append(stack.layers[0].stacked)
    assert stacked[0] is stacked[1]
    assert other.flat is not None
    other.flat.add_(1.0)  # as its optimiser does
    with stack.groups(["first", None, "other"]):
        changed = stack.layers[0].stacked
    assert stacked[0] is not None and changed is not None
    torch.testing.assert_close(changed[0][2], stacked[0][0][2] + 1.0)
    assert torch.equal(changed[0][:2], stacked[0][0][:2])
    stack.adapters["first"] = other
    with stack.groups(["first", None, "other"]):
        assert stack.layers[0].stacked is not None
        assert torch.equal(stack.layers[0].stacked[0][0], changed[0][2]) and first.flat is not None


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_equal_pefts_for_every_architecture(load_tiny: Load, tmp_path: Path, architecture: str) -> None:
    """Saved by us, loaded by PEFT: the same logits; loaded by us, the same again. ZS stays the bare base."""
    loaded = load_tiny(architecture)
    stack = Stack(loaded.model, loaded.base.targets)
    for number, rank in enumerate((4, 16)):
        adapter = stack.create(f"r{rank}", Hyperparameters(rank=rank), seed=number)
        for parameter in adapter.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        (tmp_path / f"r{rank}").mkdir()
        stack.save(f"r{rank}", tmp_path / f"r{rank}", "base")
    ids = torch.arange(20, 32, device=loaded.device).view(2, 6)

    def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
        also = {"decoder_input_ids": ids.flip(1)} if loaded.base.is_encoder_decoder else {}
        return model(input_ids=ids, **also).logits

    with torch.no_grad():
        with stack.groups(["r4", None, "r16"]):
            stacked = logits(loaded.model, ids.repeat(3, 1)).view(3, *ids.shape, -1)
        plain = load_tiny(architecture).model
        torch.testing.assert_close(stacked[1], logits(plain, ids), atol=1e-4, rtol=1e-4)
        for group, name in ((0, "r4"), (2, "r16")):
            model = peft.PeftModel.from_pretrained(load_tiny(architecture).model, str(tmp_path / name)).eval()
            expected = logits(model, ids)
            torch.testing.assert_close(stacked[group], expected, atol=1e-4, rtol=1e-4)
            assert (expected - logits(plain, ids)).abs().max() > 1e-2
        again = load_tiny(architecture)
        other = Stack(again.model, again.base.targets)
        other.load("x", tmp_path / "r16")
        with other.groups(["x"]):
            torch.testing.assert_close(logits(again.model, ids), stacked[2], atol=1e-4, rtol=1e-4)


def test_an_adapter_made_by_peft_is_read(load_tiny: Load, tmp_path: Path) -> None:
    theirs = load_tiny()
    config = peft.LoraConfig(
        r=3, lora_alpha=5, target_modules=["q_proj", "v_proj"], init_lora_weights=False, use_rslora=True
    )
    model: Any = peft.get_peft_model(theirs.model, config).eval()
    model.save_pretrained(str(tmp_path))
    ours = load_tiny()
    stack = Stack(ours.model, ours.base.targets)
    stack.load("theirs", tmp_path)
    ids = torch.tensor([[1, 5, 9, 40]], device=ours.device)
    with torch.no_grad(), stack.groups(["theirs"]):
        torch.testing.assert_close(ours.model(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-4, rtol=1e-4)


def test_damaged_or_foreign_adapters_are_refused(load_tiny: Load, tmp_path: Path) -> None:
    loaded = load_tiny()
    stack = Stack(loaded.model, loaded.base.targets)
    stack.create("a", Hyperparameters(rank=2), 0)
    stack.save("a", tmp_path, "base")
    other = load_tiny("BloomForCausalLM")
    with pytest.raises(ModelError, match="does not exist in this base"):
        Stack(other.model, other.base.targets).load("a", tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="not a readable adapter"):
        stack.load("a", tmp_path)
    with pytest.raises(KeyError), stack.groups(["misspelt"]):
        pass


class Killed(Exception):
    pass


@pytest.mark.parametrize("architecture", ["Gemma3ForCausalLM", ENCODER_DECODER])
def test_a_wave_goes_on_from_its_checkpoint_to_the_same_bits(
    load_tiny: Load, tmp_path: Path, architecture: str
) -> None:
    def wave() -> list[AdapterRun]:
        made = [
            AdapterRun(name, Hyperparameters(dropout=0.3, epochs=2, learning_rate=1e-3), pairs(Language.DE, n), n)
            for name, n in (("long", 17), ("short", 6), ("middle", 9), ("late", 4))
        ]
        made[3].hyperparameters = replace(made[3].hyperparameters, learning_rate=1e38, max_grad_norm=1e30)
        return made

    def trained(until: int | None, checkpoint: Path) -> tuple[list[AdapterRun], Stack]:
        loaded, runs = load_tiny(architecture), wave()
        steps: list[int] = []

        def on_step(n: int) -> None:
            steps.append(n)
            if len(steps) == until:
                raise Killed

        stack = Stack(loaded.model, loaded.base.targets)
        try:
            train(loaded, stack, runs, on_step, max_concurrent=2, checkpoint=checkpoint, every=0)
        except Killed:
            assert checkpoint.exists()
        return runs, stack

    whole, stack = trained(None, tmp_path / "whole.pt")
    assert whole[3].failure and [len(run.losses) for run in whole[:3]] == [run.steps for run in whole[:3]]
    for until in (3, 8):
        checkpoint = tmp_path / f"{until}.pt"
        trained(until, checkpoint)
        again, resumed = trained(None, checkpoint)
        assert [run.losses for run in again] == [run.losses for run in whole]
        assert [run.failure for run in again] == [run.failure for run in whole]
        for run in whole[:3]:
            both = zip(stack.adapters[run.name].parameters(), resumed.adapters[run.name].parameters(), strict=True)
            assert all(torch.equal(a, b) for a, b in both)
    checkpoint.write_bytes(b"cut")
    assert [run.losses for run in trained(None, checkpoint)[0]] == [run.losses for run in whole]
