"""vLLM in an environment of its own (`make .venv-vllm`), driven over JSON lines. Imports nothing of ours.

First line in: {"model", "adapters": {name: folder}, "rank", "sampling": {...}}; then, a line a request, a list of
[prompt's token ids, adapter or null, seed]. A line out: the new token ids of each.
"""

import json
import os
import sys

os.environ |= {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # vLLM prints; what it prints is no answer
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    setup = json.loads(sys.stdin.readline())
    adapters = {
        name: LoRARequest(name, number, folder) for number, (name, folder) in enumerate(setup["adapters"].items(), 1)
    }
    llm = LLM(
        setup["model"],
        dtype="bfloat16",
        enforce_eager=True,
        max_model_len=512,
        max_num_batched_tokens=16_384,  # a seeded prompt that is read in two pieces fails on a CPU
        enable_chunked_prefill=False,
        enable_lora=True,
        max_loras=len(adapters) + 1,  # one more than there are: else base rows get an adapter's text
        max_lora_rank=setup["rank"],
    )
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        rows = json.loads(line)
        out = llm.generate(
            [{"prompt_token_ids": ids} for ids, _, _ in rows],
            [SamplingParams(**setup["sampling"], seed=seed) for _, _, seed in rows],
            lora_request=[adapters.get(name) for _, name, _ in rows],
            use_tqdm=False,
        )
        answers.write(json.dumps([list(o.outputs[0].token_ids) for o in out]) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
