"""The two baselines, written as their users write them.

Naive, as the authors of the paper do it: PEFT, one adapter, every sentence padded to 256 tokens, activations computed
again in the backward pass, one prompt at a time through `generate`. Strong, as a careful user of transformers and PEFT
does it: padded to the longest of a batch, no recomputation, prompts in batches of 16.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from engine.vocabulary import Hyperparameters, Sampling

PADDED = 256
BATCH = 16


def lora(model: Any, h: Hyperparameters, targets: Sequence[str], initial: dict[str, Any] | None = None) -> Any:
    """A PEFT model with one fresh adapter, or the `initial` one."""
    import peft

    config = peft.LoraConfig(
        r=h.rank, lora_alpha=h.alpha, lora_dropout=h.dropout, target_modules=list(targets), task_type="CAUSAL_LM"
    )
    adapted: Any = peft.get_peft_model(model, config)
    if initial:
        peft.set_peft_model_state_dict(adapted, initial)
    return adapted


def peft_model(model: Any, names: Sequence[str], root: Path) -> Any:
    """A PEFT model with the adapters of these names, from the folders of the same names."""
    import peft

    adapted: Any = peft.PeftModel.from_pretrained(model, str(root / names[0]), adapter_name=names[0])
    for name in names[1:]:
        adapted.load_adapter(str(root / name), adapter_name=name)
    adapted.set_adapter(names[0])
    return adapted.eval()


class Trainer:
    """One adapter in training, the naive or the strong way; `step` takes a batch and gives its loss."""

    def __init__(self, model: Any, h: Hyperparameters, is_naive: bool) -> None:
        self.model, self.h, self.is_naive = model, h, is_naive
        model.train()
        if is_naive:
            model.enable_input_require_grads()
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=h.learning_rate, weight_decay=0.0)

    def step(self, batch: Sequence[Sequence[int]]) -> float:
        """Token ids of a batch → its mean loss a token; padding is no label."""
        device = self.parameters[0].device
        width = PADDED if self.is_naive else max(map(len, batch))
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in batch], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch], device=device)
        loss = self.model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.h.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())


@torch.inference_mode()
def complete(model: Any, tokenizer: Any, prompts: Sequence[str], sampling: Sampling, batch: int) -> list[list[int]]:
    """New token ids of each prompt, by `generate` on batches of so many prompts, from short to long."""
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    new: list[list[int]] = [[] for _ in prompts]
    how: dict[str, Any] = {"do_sample": False}
    if sampling.temperature:
        how = {
            "do_sample": True, "temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p
        }  # fmt: skip
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        inputs = tokenizer([prompts[row] for row in rows], return_tensors="pt", padding=True).to(model.device)
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        whole = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=sampling.max_new_tokens,
            pad_token_id=tokenizer.pad_token_id, **how,
        )  # fmt: skip
        for row, written in zip(rows, whole[:, ids.shape[1] :].tolist(), strict=True):
            new[row] = written
    return new


@torch.inference_mode()
def nll(model: Any, context: Sequence[int], text: Sequence[int]) -> float:
    """The summed negative log-likelihood of a text after its context, by the model's own loss."""
    ids = torch.tensor([[*context, *text]], device=model.device)
    labels = ids.clone()
    labels[:, : len(context)] = -100
    return float(model(input_ids=ids, labels=labels).loss) * len(text)
