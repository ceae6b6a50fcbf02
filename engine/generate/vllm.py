"""The vLLM backend: one engine per base, every adapter a LoRA request of the same call.

Owns how vLLM is set up and asked. It draws numbers of its own, by a seed a prompt: a text is the same again in the
same batch of the same vLLM, and another than our own backend's.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import ModelError
from engine.generate import adapters_and_streams, likelihood, seed_of
from engine.model.loading import encode, end_ids, opening_ids, release
from engine.model.registry import Base
from engine.vocabulary import Completion, Likelihood, Pair, Sampling, Stream

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks that vLLM makes room for; a request of a smaller one fits."""

SPARE_LORAS = {"cpu": 1, "cuda": 0}
"""In vllm 0.32.0 on a CPU, room for just the adapters gives the base's rows the last adapter's text."""

CPU_BATCH_TOKENS = 16_384
"""On a CPU a prompt is read in one piece: one that is read in two gets no seed in vllm 0.32.0 there."""

SETTINGS = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GB; without it a CPU engine claims nearly all memory
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
"""Environment variables, unless the user has set them."""


class VllmGenerator:
    """See `Generator`. `adapters`: their folders by name, none of a higher `rank`. `prompts`: all that will ever be
    asked, for the room they need.

    Errors: ModelError (vLLM does not load the base).
    """

    def __init__(
        self,
        base: Base,
        dtype: str,
        adapters: Mapping[str, Path],
        rank: int,
        prompts: Sequence[str],
        max_new_tokens: int,
        is_chat: bool = False,
    ) -> None:
        for name, word in SETTINGS.items():
            os.environ.setdefault(name, word)
        import torch
        from transformers import AutoTokenizer, GenerationConfig
        from vllm import LLM

        device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cpu":  # in this process; on a GPU in a process of its own, whose end returns all memory
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        folder = base.prepare()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        has_config = (folder / "generation_config.json").is_file()
        self.end_ids = end_ids(self.tokenizer, GenerationConfig.from_pretrained(folder) if has_config else None)
        self.adapters = dict(adapters)
        self.numbers = {name: number for number, name in enumerate(adapters, start=1)}
        self.is_chat = is_chat
        tokens = max(map(len, self._encode(prompts)), default=0)
        lora = {}
        if adapters:
            room = len(adapters) + SPARE_LORAS[device]
            lora = {"enable_lora": True, "max_loras": room, "max_cpu_loras": room, "max_lora_rank": room_for(rank)}
        longest = tokens + max_new_tokens + 1
        on_cpu: dict[str, Any] = {
            "max_num_batched_tokens": max(CPU_BATCH_TOKENS, longest),
            "enable_chunked_prefill": False,
            "enforce_eager": True,  # compiling gains nothing
        }
        try:
            self.llm = LLM(
                model=str(folder),
                dtype=dtype,
                max_model_len=longest,
                enable_prefix_caching=False,  # what prompts share is shorter than a block
                disable_log_stats=True,
                **lora,
                **(on_cpu if device == "cpu" else {}),
            )
        except (ValueError, RuntimeError, OSError) as error:
            raise ModelError(f"{base.name}: vLLM cannot load it ({error}). Give --backend transformers.") from error

    def close(self) -> None:
        """Gives the memory back."""
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        self.llm.llm_engine.engine_core.shutdown()
        del self.llm
        cleanup_dist_env_and_memory()
        release()

    def generate(
        self,
        prompts: Sequence[str],
        adapters: str | None | Sequence[str | None],
        streams: Stream | Sequence[Stream],
        sampling: Sampling,
    ) -> list[Completion]:
        from vllm import SamplingParams

        names, keys = adapters_and_streams(prompts, adapters, streams)
        tokens = self._encode(prompts)
        parameters = [
            SamplingParams(
                seed=seed_of(key),
                max_tokens=sampling.max_new_tokens,
                temperature=sampling.temperature,
                top_k=sampling.top_k,
                top_p=sampling.top_p,
                detokenize=False,
            )
            for key in keys
        ]
        return [self._completion(answer.outputs[0].token_ids) for answer in self._ask(tokens, names, parameters)]

    def of_texts(self, texts: Sequence[Sequence[int]], adapters: Sequence[str | None]) -> list[Likelihood]:
        opening = opening_ids(self.tokenizer, self.end_ids)
        return self._after(*likelihood.alone(opening, texts), adapters)

    def after_prompts(self, prompts: Sequence[str], texts: Sequence[Sequence[int]]) -> list[Likelihood]:
        return self._after(self._encode(prompts), texts, [None] * len(prompts))

    def of_pairs(self, pairs: Sequence[Pair], adapters: Sequence[str | None]) -> list[Likelihood]:
        sentences = [pair.neutral for pair in pairs]
        tokens = self.tokenizer(sentences, add_special_tokens=False)["input_ids"] if sentences else []
        return self.of_texts(tokens, adapters)

    def _encode(self, prompts: Sequence[str]) -> list[list[int]]:
        return encode(self.tokenizer, prompts, self.end_ids, self.is_chat)

    def _completion(self, token_ids: Sequence[int]) -> Completion:
        end = next((i for i, token in enumerate(token_ids) if token in self.end_ids), len(token_ids))
        written = tuple(token_ids[:end])
        return Completion(str(self.tokenizer.decode(written, skip_special_tokens=True)), written)

    def _after(
        self, contexts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]], adapters: Sequence[str | None]
    ) -> list[Likelihood]:
        """The likelihood of each text after its context; an empty text has none: (0, 0). The same is asked once."""
        from vllm import SamplingParams

        keys = [(name, tuple(c), tuple(t)) for name, c, t in zip(adapters, contexts, texts, strict=True)]
        todo = [key for key in dict.fromkeys(keys) if key[2]]
        parameters = [SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0, detokenize=False)] * len(todo)
        answers = self._ask([[*context, *text] for _, context, text in todo], [name for name, _, _ in todo], parameters)
        likelihoods = {key: Likelihood(0.0, 0) for key in keys}
        for (name, context, text), answer in zip(todo, answers, strict=True):
            logprobs = answer.prompt_logprobs[len(context) :]
            nll = -sum(candidates[token].logprob for candidates, token in zip(logprobs, text, strict=True))
            likelihoods[name, context, text] = Likelihood(nll, len(text))
        return [likelihoods[key] for key in keys]

    def _ask(
        self, tokens: Sequence[Sequence[int]], names: Sequence[str | None], parameters: Sequence[Any]
    ) -> list[Any]:
        """vLLM's answers, in order."""
        from vllm.lora.request import LoRARequest

        if not tokens:
            return []
        prompts: list[Any] = [{"prompt_token_ids": list(ids)} for ids in tokens]
        loras = [
            None if name is None else LoRARequest(name, self.numbers[name], str(self.adapters[name])) for name in names
        ]
        return list(self.llm.generate(prompts, list(parameters), lora_request=loras, use_tqdm=False))


def room_for(rank: int) -> int:
    """The least rank that vLLM makes room for and `rank` fits. Errors: ModelError."""
    fitting = [room for room in RANKS if room >= rank]
    if not fitting:
        raise ModelError(f"adapters of rank {rank} exceed vLLM's maximum rank of {RANKS[-1]}.")
    return fitting[0]
