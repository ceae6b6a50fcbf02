"""Writes docs/bases.md, the table of architectures, from the registry: `python docs/list_bases.py`."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from engine.model.registry import ARCHITECTURES  # noqa: E402

PAGE = ROOT / "docs" / "bases.md"
EXAMPLES = {
    "ApertusForCausalLM": "Apertus 8B",
    "BloomForCausalLM": "BLOOM, BLOOMZ",
    "CohereForCausalLM": "Aya 23, Aya Expanse",
    "Cohere2ForCausalLM": "Command R7B",
    "FalconForCausalLM": "Falcon",
    "Gemma2ForCausalLM": "Gemma 2",
    "Gemma3ForCausalLM": "Gemma 3 270M and 1B",
    "Gemma3ForConditionalGeneration": "Gemma 3 4B and larger (its text part)",
    "GlmForCausalLM": "GLM-4 9B (hf)",
    "Glm4ForCausalLM": "GLM-4 0414",
    "GPT2LMHeadModel": "mGPT, GPT-2",
    "GPTNeoXForCausalLM": "Pythia, Polyglot-Ko",
    "GraniteForCausalLM": "Granite 3",
    "LlamaForCausalLM": "Llama 2 and 3, EuroLLM, Salamandra, Tower",
    "MistralForCausalLM": "Mistral 7B, Nemo",
    "MixtralForCausalLM": "Mixtral",
    "MT5ForConditionalGeneration": "mT5",
    "Olmo2ForCausalLM": "OLMo 2",
    "OPTForCausalLM": "OPT",
    "Phi3ForCausalLM": "Phi-3, Phi-4",
    "Qwen2ForCausalLM": "Qwen 2 and 2.5",
    "Qwen3ForCausalLM": "Qwen 3",
    "Qwen3MoeForCausalLM": "Qwen 3 mixtures of experts",
    "SmolLM3ForCausalLM": "SmolLM3",
    "StableLmForCausalLM": "StableLM 2",
    "T5ForConditionalGeneration": "T5, Flan-T5",
    "XGLMForCausalLM": "XGLM",
}
HEAD = """# Base models

`--models` takes any hub ID or local folder whose `config.json` names one of these architectures. Each is tested against
plain PEFT on a tiny random model of its own (`tests/pipeline/test_bases.py`, part of `make test-full`): the losses and
weights of training, logits, greedy tokens and likelihoods. *Packs*: the sentences of a batch lie in one row,
which needs less padding. *vLLM*: vLLM runs the base with LoRA adapters (`--backend vllm`); for others the built-in
backend generates.

Other causal architectures of transformers work with `--lora-targets`, the names of the linear layers to adapt;
at load, our logits are compared with the model's own, and a base whose logits we would get wrong is refused.

```sh
python run_sweep.py demo --models Qwen/Qwen3-0.6B-Base
python run_sweep.py demo --models path/to/model --lora-targets q_proj v_proj
```
"""


def page() -> str:
    """The page of today."""
    lines = ["| architecture | bases, for instance | LoRA targets | packs | vLLM |", "|---|---|---|---|---|"]
    for name, facts in ARCHITECTURES.items():
        marks = ("yes" if fact else "no" for fact in (facts.packs, facts.vllm))
        lines.append(f"| {name} | {EXAMPLES[name]} | {', '.join(facts.targets)} | {' | '.join(marks)} |")
    return HEAD + "\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
