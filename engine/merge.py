"""One adapter written into its base: a plain model folder, for whatever takes no adapters."""

from pathlib import Path

from engine.errors import ModelError


def merged(base: Path, adapter: Path, target: Path) -> None:
    """Config, tokenizer and weights of a base and an adapter in PEFT's format, as one model in `target`.

    Weights are in the dtype that the base's are stored in: what the adapter adds is rounded to it. Errors: ModelError.
    """
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    try:
        architectures = AutoConfig.from_pretrained(base).architectures or [""]
        is_encoder_decoder = architectures[0].endswith("ForConditionalGeneration")
        kind = AutoModelForSeq2SeqLM if is_encoder_decoder else AutoModelForCausalLM
        model = kind.from_pretrained(base, dtype="auto", use_safetensors=True)
        whole = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(safe_merge=True)
        tokenizer = AutoTokenizer.from_pretrained(base)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{adapter}: cannot be merged into {base}: {error}") from error
    whole.save_pretrained(target)
    tokenizer.save_pretrained(target)
