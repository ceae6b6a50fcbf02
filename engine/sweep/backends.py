"""Loads each base once: our own copy, which trains, embeds and generates, or vLLM's, which generates."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from engine.config import TRANSFORMERS, prompt_of
from engine.generate import Generator
from engine.generate.transformers import TransformersGenerator
from engine.generate.vllm import VllmGenerator
from engine.lora import adapters
from engine.lora.stack import Stack
from engine.model import loading
from engine.model.loading import LoadedBase
from engine.sweep.plan import BasePlan, Plan, sentences_of
from engine.sweep.progress import Reporter
from engine.vocabulary import Variant


class Backends:
    """Loads a base when it is asked for. One backend gets the memory of the other."""

    def __init__(
        self, plan: Plan, base: BasePlan, reporter: Reporter, timer: Callable[[str], AbstractContextManager[None]]
    ) -> None:
        self.plan, self.base, self.reporter, self.timer = plan, base, reporter, timer
        self.own: tuple[LoadedBase, Stack] | None = None
        self.transformers: TransformersGenerator | None = None
        self.vllm: VllmGenerator | None = None

    def stack(self, variants: Sequence[Variant] = ()) -> tuple[LoadedBase, Stack]:
        """Our own copy of the base, with the adapters of these variants."""
        if self.own is None:
            self.close()
            with self.timer("loading"):
                self.reporter.say(f"loading {self.base.base.name} ({self.plan.precision}, {self._where()})")
                loaded = loading.load(self.base.base, self.plan.dtype, self.plan.sweep.quantization)
                self.own = loaded, Stack(loaded.model, self.base.base.targets)
        loaded, stack = self.own
        for variant in variants:
            if variant.adapter is not None and variant.adapter not in stack.adapters:
                stack.load(variant.adapter, adapters.folder_of(self.plan.sweep.adapters, variant))
        return loaded, stack

    def generator(self, variants: Sequence[Variant]) -> Generator:
        """What the plan chose, with the adapters of these variants."""
        if self.base.backend == TRANSFORMERS:
            loaded, stack = self.stack(variants)
            # One for all of a base: after running out of memory, it keeps the number of rows that fits.
            self.transformers = self.transformers or TransformersGenerator(
                loaded, stack, self.base.rows, self.plan.sweep.chat_template
            )
            return self.transformers
        if self.vllm is None:
            self.own = None
            loading.release()
            with self.timer("loading"):
                self.reporter.say(f"loading {self.base.base.name} into vLLM ({self.plan.dtype}, {self._where()})")
                self.vllm = self._open_vllm(variants)
        return self.vllm

    def close(self) -> None:
        """Ends vLLM."""
        if self.vllm is not None:
            self.vllm.close()
            self.vllm = None

    def _open_vllm(self, variants: Sequence[Variant]) -> VllmGenerator:
        folders = {v.adapter: adapters.folder_of(self.plan.sweep.adapters, v) for v in variants if v.adapter}
        rank = max((v.hyperparameters.rank for v in variants if v.hyperparameters), default=0)
        prompts = [prompt_of(sentence, self.plan.sweep.prompt) for *_, sentence in sentences_of(self.plan)]
        max_new_tokens = self.plan.sweep.sampling.max_new_tokens
        is_chat = self.plan.sweep.chat_template
        return VllmGenerator(self.base.base, self.plan.dtype, folders, rank, prompts, max_new_tokens, is_chat)

    def _where(self) -> str:
        machine = self.plan.machine
        return f"{machine.kind}: {machine.name}" if machine.kind == "cuda" else machine.kind
