"""The steps of `bench.gpu`: each takes the device and gives its numbers, which JSON can hold."""

import platform
import statistics
import time
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile

from bench.baselines import Trainer, complete, lora, nll
from bench.gpu_base import SENTENCE_TOKENS, TARGETS, Device, OperatorCount
from engine.config import BATCH_ROWS
from engine.generate import likelihood
from engine.generate.transformers import TransformersGenerator
from engine.lora import passes, train
from engine.lora.adapter_run import AdapterRun
from engine.lora.dropout import Dropout, numbers_of
from engine.lora.stack import Stack
from engine.model import registry
from engine.model.loading import LoadedBase
from engine.sweep.memory import Memory
from engine.vocabulary import Hyperparameters, Language, Sampling, Split, Stream

H = Hyperparameters(epochs=1, targets=TARGETS)
WITHOUT_DROPOUT = replace(H, dropout=0.0)
LAYERS_OF_GATES, UNSCALED = 2, 1.0
"""Of what is compared: a scale of 1 for its logits, which those of random weights would hardly differ with."""
STEPS = 8
"""Optimiser steps that are timed, after a first one."""
NEW_TOKENS = 50
VARIANTS = 14
ADAPTER_STD = 0.02
FLOAT32_TOLERANCE, BFLOAT16_TOLERANCE = 1e-4, 0.03
TOP_OPERATORS = 12

Numbers = dict[str, Any]


def facts(device: Device) -> Numbers:
    """The machine, the versions, and what the device reaches: matrix products, and reading and writing memory."""
    found: Numbers = {"device": device.machine.name, "python": platform.python_version(), **registry.versions()}
    found["memory_gb"] = device.machine.memory / 1e9
    if device.is_cuda:
        found |= {"cuda": torch.version.cuda, "capability": ".".join(map(str, torch.cuda.get_device_capability()))}
    return {
        **found,
        "tflops_bfloat16": _rate(device, torch.bfloat16) / 1e12,
        "bandwidth_gb_s": _bandwidth(device) / 1e9,
    }


def _rate(device: Device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large square product; the median of five."""
    n = 8192 if device.is_cuda else 512
    a, b = (torch.randn(n, n, dtype=dtype, device=device.torch_device) for _ in range(2))
    device.seconds(lambda: a @ b)
    return 2 * n**3 / statistics.median(device.seconds(lambda: a @ b) for _ in range(5))


def _bandwidth(device: Device) -> float:
    """Bytes per second, read and written, of a large copy."""
    source = torch.empty(2**30 if device.is_cuda else 2**24, dtype=torch.uint8, device=device.torch_device)
    target = torch.empty_like(source)
    device.seconds(lambda: target.copy_(source))
    return 2 * len(source) / statistics.median(device.seconds(lambda: target.copy_(source)) for _ in range(5))


# --- is it right? ---------------------------------------------------------------------------------------------------


def equal_to_peft(device: Device) -> Numbers:
    """float32, two layers of the full width: losses of training, logits and greedy tokens against plain PEFT's."""
    torch.backends.cuda.matmul.allow_tf32 = False
    model = device.plain(torch.float32, LAYERS_OF_GATES, UNSCALED)
    loaded = device.loaded(deepcopy(model))
    stack = Stack(loaded.model, TARGETS)
    runs = _adapter_runs(device, 3, WITHOUT_DROPOUT, STEPS)
    first = {run.name: _initial(stack, run) for run in runs}
    train.train(loaded, stack, runs, max_concurrent=3)
    loss_gap, greedy, logit_gap = 0.0, 0, 0.0
    prompts, sampling = device.texts(3, 7), Sampling(max_new_tokens=8, temperature=0.0)
    for run in runs:
        adapted = lora(deepcopy(model), run.hyperparameters, TARGETS, first[run.name])
        trainer = Trainer(adapted, run.hyperparameters, is_naive=False)
        schedule = torch.optim.lr_scheduler.LambdaLR(trainer.optimizer, lambda step: 1 - step / STEPS)
        rows = [row[0] for row in train.encode(loaded, run.pairs, run.hyperparameters.max_tokens)]
        for batch, ours in zip(run.batches(), run.losses, strict=True):
            loss_gap = max(loss_gap, abs(trainer.step([rows[i] for i in batch]) - ours))
            schedule.step()
        adapted.eval()
        written = TransformersGenerator(loaded, stack).generate(prompts, run.name, _stream(), sampling)
        theirs = complete(adapted, _Padded(), prompts, sampling, 1)
        greedy += sum(list(a.token_ids) == b for a, b in zip(written, theirs, strict=True))
        ids = torch.tensor([rows[0]], device=device.torch_device)
        with torch.no_grad(), stack.groups([run.name]):
            hidden = loaded.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
            ours_nll = loaded.lm_head.nll(hidden[0, :-1], ids[0, 1:])
            logits = adapted(input_ids=ids).logits[0, :-1]
        expected = torch.nn.functional.cross_entropy(logits.float(), ids[0, 1:], reduction="none")
        logit_gap = max(logit_gap, float((ours_nll - expected).abs().max()))
    n = len(runs) * len(prompts)
    is_right = loss_gap < FLOAT32_TOLERANCE and logit_gap < 10 * FLOAT32_TOLERANCE and greedy == n
    return {"loss_gap": loss_gap, "nll_gap": logit_gap, "greedy_equal": greedy, "greedy_of": n, "is_right": is_right}


def near_float32(device: Device) -> Numbers:
    """bfloat16 against float32, two layers, teacher-forced: negative log-likelihoods of the tokens of the same text.

    Their gaps beside their spread, since random weights predict little. Not tokens: random weights are all near ties.
    """
    model = device.plain(torch.float32, LAYERS_OF_GATES, UNSCALED)
    ids = torch.tensor([[1, *map(int, text.split()[: SENTENCE_TOKENS[0]])] for text in device.texts(8, 3)])
    ids = ids.to(device.torch_device)
    per_token = []
    for dtype in (torch.float32, torch.bfloat16):
        loaded = device.loaded(deepcopy(model).to(dtype))
        Stack(loaded.model, TARGETS)
        with torch.inference_mode():
            hidden = loaded.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
            per_token.append(loaded.lm_head.nll(hidden[:, :-1].flatten(0, 1), ids[:, 1:].flatten()))
    gaps = (per_token[0] - per_token[1]).abs()
    relative = float(gaps.mean() / per_token[0].std())
    return {"mean_gap_nats": float(gaps.mean()), "gap_of_spread": relative, "is_right": relative < BFLOAT16_TOLERANCE}


def determinism(device: Device) -> Numbers:
    """Trainings of the same runs, whose later steps are replayed as CUDA graphs: whether losses and weights are the
    same bits; also where torch refuses operators that are not deterministic, and where nothing is replayed."""
    trainings = []
    for is_strict, is_replayed in ((False, True), (False, True), (True, True), (False, False)):
        loaded, stack = _base(device)
        runs = _adapter_runs(device, 3, replace(H, epochs=4), 1)
        torch.use_deterministic_algorithms(is_strict)
        with nullcontext() if is_replayed else mock.patch.object(passes.Graphs, "capture"):
            train.train(loaded, stack, runs, max_concurrent=3, tokens_per_pass=_tokens(device, loaded, 3))
        torch.use_deterministic_algorithms(False)
        weights = [p.detach().clone() for run in runs for p in stack.adapters[run.name].parameters()]
        trainings.append(([run.losses for run in runs], weights))
        del loaded, stack
    first, *others = trainings
    same = all(all(map(torch.equal, first[1], weights)) for _, weights in others)
    return {"equal_losses": float(all(first[0] == losses for losses, _ in others)), "equal_weights": float(same)}


def dropout_masks(device: Device) -> Numbers:
    """The masks of this device against those of a CPU: the same places, and the same numbers in float32."""
    seeds, rates = [(1, 0), (2, 5), (3, 7)], [0.05, 0.0, 0.5]
    x = torch.randn(3, 28, 4096)
    gaps: Numbers = {}
    for dtype in (torch.float32, torch.bfloat16):
        masked = []
        for place in (torch.device("cpu"), device.torch_device):
            of_seeds, thresholds, scales = (numbers.to(place) for numbers in numbers_of(seeds, rates))
            masked.append(Dropout(of_seeds, thresholds, scales, 4)(x.to(place, dtype), 7, 2).cpu())
        name = str(dtype).removeprefix("torch.")
        gaps[f"other_places_{name}"] = int(((masked[0] == 0) != (masked[1] == 0)).sum())
        gaps[f"gap_{name}"] = float((masked[0] - masked[1]).abs().max())
    return {**gaps, "is_right": not any(gaps.values())}


# --- how fast is it? ------------------------------------------------------------------------------------------------


def training(device: Device, adapters: int) -> Numbers:
    """Steps of so many adapters at once, batch 4: tokens per second, the share of the matrix rate, operators, waits."""
    loaded, stack = _base(device)
    tokens = _tokens(device, loaded, adapters)

    def run(steps: int) -> list[AdapterRun]:
        runs = _adapter_runs(device, adapters, H, steps)
        train.train(loaded, stack, runs, max_concurrent=adapters, tokens_per_pass=tokens)
        return runs

    run(1)
    counts = []
    for steps in (1, 2):
        with OperatorCount() as count:
            run(steps)
        counts.append(count)
    device.reset_peak()
    # The same text in every step, so that all but the first two replay what the second has recorded.
    runs = _adapter_runs(device, adapters, H, 1)
    runs = [replace(run, hyperparameters=replace(H, epochs=2 + STEPS)) for run in runs]
    ends: list[float] = []
    train.train(
        loaded, stack, runs, lambda _: ends.append(time.perf_counter()), max_concurrent=adapters, tokens_per_pass=tokens
    )
    step_seconds = statistics.median(b - a for a, b in pairwise(ends[1:]))
    rate = sum(map(_count, runs)) / step_seconds
    in_pass = min(tokens, sum(map(_count, runs)))
    need = Memory(loaded.base, "bfloat16", H.rank, device.machine).training(adapters, in_pass)
    return {
        "tokens_per_second": rate,
        "step_seconds": step_seconds,
        "tokens_per_pass": tokens,
        "share_of_matrix_rate": 4 * loaded.base.shape.parameters * rate / _rate(device, torch.bfloat16),
        "operators_per_step": counts[1].operators - counts[0].operators,
        "waits_per_step": counts[1].waits - counts[0].waits,
        "planned_gb": need.total / 1e9,
        "profile": _profile(device, lambda: run(1)),
    }


def training_baselines(device: Device) -> Numbers:
    """One adapter the authors' way (padded to 256, activations computed again) and a careful user's, batch 4."""
    return {f"{name}_tokens_per_second": _baseline(device, name == "naive") for name in ("naive", "strong")}


def _baseline(device: Device, is_naive: bool) -> float:
    trainer = Trainer(lora(device.plain(torch.bfloat16), H, TARGETS), H, is_naive)
    batch = [[1, *map(int, text.split())] for text in device.texts(H.batch_size)]
    trainer.step(batch)
    seconds = device.seconds(lambda: [trainer.step(batch) for _ in range(STEPS)])
    return STEPS * sum(map(len, batch)) / seconds


def generation(device: Device) -> Numbers:
    """All variants at once: tokens per second by the number of rows, and the operators of one more token."""
    loaded, stack = _base(device)
    names = _random_adapters(device, stack)
    found: Numbers = {}

    def write(rows: int, new_tokens: int) -> None:
        """So many rows of so many tokens; hardly any of random text ends before."""
        count = rows // VARIANTS
        prompts, variants = device.texts(count) * VARIANTS, [name for name in names for _ in range(count)]
        sampling = Sampling(max_new_tokens=new_tokens)
        TransformersGenerator(loaded, stack, rows).generate(prompts, variants, _stream(), sampling)

    for rows in (BATCH_ROWS, 3 * BATCH_ROWS, 9 * BATCH_ROWS) if device.is_cuda else (2 * VARIANTS,):
        write(rows, 2)
        device.reset_peak()
        seconds = device.seconds(partial(write, rows, NEW_TOKENS))
        rate = 2 * loaded.base.shape.parameters * rows * NEW_TOKENS / seconds / _rate(device, torch.bfloat16)
        found[f"tokens_per_second_{rows}"] = rows * NEW_TOKENS / seconds
        found[f"share_of_matrix_rate_{rows}"] = rate
        found[f"peak_gb_{rows}"] = device.peak_gb()
        found[f"first_tokens_seconds_{rows}"] = device.seconds(partial(write, rows, 2))
    counts = []
    for new_tokens in (3, 4):
        with OperatorCount() as count:
            write(2 * VARIANTS, new_tokens)
        counts.append(count)
    need = Memory(loaded.base, "bfloat16", H.rank, device.machine).generation(VARIANTS, BATCH_ROWS)
    return {
        **found,
        "operators_per_token": counts[1].operators - counts[0].operators,
        "waits_per_token": counts[1].waits - counts[0].waits,
        f"planned_gb_{BATCH_ROWS}": need.total / 1e9,
        "profile": _profile(device, lambda: write(3 * BATCH_ROWS if device.is_cuda else 2 * VARIANTS, 8)),
    }


def generation_baselines(device: Device) -> Numbers:
    """One variant through transformers' `generate`, one prompt at a time and 16 at a time."""
    model = lora(device.plain(torch.bfloat16), H, TARGETS).eval()
    found = Numbers()
    for name, batch in (("naive", 1), ("strong", 16)):
        prompts = device.texts(batch)
        complete(model, _Padded(), prompts, Sampling(max_new_tokens=2), batch)
        write = partial(complete, model, _Padded(), prompts, Sampling(max_new_tokens=NEW_TOKENS), batch)
        found[f"{name}_tokens_per_second"] = batch * NEW_TOKENS / device.seconds(write)
    return found


def likelihoods(device: Device) -> Numbers:
    """Texts of so many tokens under all variants, against one text after the other by the model's own loss."""
    texts = [list(map(int, text.split())) for text in device.texts(24 if device.is_cuda else 2)]
    tokens = sum(map(len, texts))
    model = device.plain(torch.bfloat16)
    nll(model, [1], texts[0])
    one_by_one = device.seconds(lambda: [nll(model, [1], text) for text in texts])
    loaded = device.loaded(model)
    stack = Stack(loaded.model, TARGETS)
    variants = [name for name in _random_adapters(device, stack) for _ in texts]
    judge = partial(likelihood.of_texts, loaded, stack, texts * VARIANTS, variants)
    judge()
    seconds = device.seconds(judge)
    operations = 2 * loaded.base.shape.parameters * tokens * VARIANTS
    return {
        "tokens_per_second": tokens * VARIANTS / seconds,
        "share_of_matrix_rate": operations / seconds / _rate(device, torch.bfloat16),
        "one_by_one_tokens_per_second": tokens / one_by_one,
    }


# --- what they share ------------------------------------------------------------------------------------------------


class _Padded:
    """Prompts of numbers as transformers takes them: a batch padded on the left."""

    pad_token_id = 0

    def __call__(self, texts: list[str], **_: Any) -> "_Batch":
        rows = [[1, *map(int, text.split())] for text in texts]
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
        return _Batch(input_ids=ids, attention_mask=(ids != 0).long())


class _Batch(dict[str, torch.Tensor]):
    def to(self, device: torch.device) -> "_Batch":
        return _Batch({name: tensor.to(device) for name, tensor in self.items()})


def _base(device: Device) -> tuple[LoadedBase, Stack]:
    loaded = device.loaded(device.plain(torch.bfloat16))
    return loaded, Stack(loaded.model, TARGETS)


def _tokens(device: Device, loaded: LoadedBase, adapters: int) -> int:
    return Memory(loaded.base, "bfloat16", H.rank, device.machine).tokens_per_pass(adapters)


def _adapter_runs(device: Device, count: int, h: Hyperparameters, steps: int) -> list[AdapterRun]:
    """So many adapters with text of their own, each of so many optimiser steps."""
    return [AdapterRun(f"adapter-{i}", h, device.pairs(steps * h.batch_size, i), i) for i in range(count)]


def _count(run: AdapterRun) -> int:
    return sum(1 + len(pair.neutral.split()) for pair in run.pairs)


def _initial(stack: Stack, run: AdapterRun) -> dict[str, Any]:
    """What a run's adapter begins as, as PEFT takes it."""
    adapter = stack.create(run.name, run.hyperparameters, run.seed)
    halves = {"lora_A": 0, "lora_B": 1}
    return {
        f"base_model.model.{path}.{half}.weight": pair[i].detach().clone()
        for path, pair in adapter.weights.items()
        for half, i in halves.items()
    }


def _random_adapters(device: Device, stack: Stack) -> list[str | None]:
    """ZS, and adapters that change the text."""
    names = [f"adapter-{i}" for i in range(VARIANTS - 1)]
    generator = torch.Generator(device.torch_device).manual_seed(0)
    for i, name in enumerate(names):
        for _, b in stack.create(name, H, i).weights.values():
            torch.nn.init.normal_(b, std=ADAPTER_STD, generator=generator)
    return [None, *names]


def _stream() -> Stream:
    return Stream(42, Language.DE, Split.TOXIC_TEST, 0, 0)


def _profile(device: Device, run: Any) -> list[Numbers]:
    """Where the time of a call goes: the operators that take most of the device's, in milliseconds."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.is_cuda else [])
    with profile(activities=activities) as found:
        run()
        device.wait()
    rows = [
        {
            "operator": event.key[:80],
            "calls": event.count,
            "device_ms": round(
                (event.self_device_time_total if device.is_cuda else event.self_cpu_time_total) / 1e3, 3
            ),
        }
        for event in found.key_averages()
    ]
    return sorted(rows, key=lambda row: -row["device_ms"])[:TOP_OPERATORS]
