"""Any sequence-classification model, by hub ID or folder, as a scorer: the probability of its toxic label.

Weights load from safetensors (see `engine.model.checkpoints`); no remote code is run. The revision is the commit or the
content of the folder.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from math import isfinite
from typing import TYPE_CHECKING

from engine.errors import ModelError
from engine.model import checkpoints, registry
from engine.vocabulary import Language, Pair, Score

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT = "textdetox/xlmr-large-toxicity-classifier"
NAME = "classifier"
TOKENS_PER_BATCH = 4096


class ClassifierScorer:
    """`classifier` is the default model, `classifier:<hub id or folder>` any other; `#LABEL` or `#LABEL+LABEL` at the
    end names what means toxic (several are summed). It is loaded at the first text."""

    is_remote = False

    def __init__(self, name: str) -> None:
        self.name = name
        source, _, self._named = (name.partition(":")[2] or DEFAULT).partition("#")
        self._folder, self.revision = registry.find_classifier(source)

    @cached_property
    def _tokenizer(self) -> "PreTrainedTokenizerBase":
        from transformers import AutoTokenizer

        try:
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(self._folder)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"{self.name}: its tokenizer cannot be loaded from {self._folder}: {error}") from error
        return tokenizer

    @cached_property
    def _model(self) -> "PreTrainedModel":
        import torch
        from transformers import AutoModelForSequenceClassification

        auto = AutoModelForSequenceClassification
        model: PreTrainedModel = checkpoints.read(self._folder, self.name, auto, dtype=torch.float32)
        model.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]
        model.eval()
        return model

    @cached_property
    def _labels(self) -> list[int]:
        """The labels that mean toxic. Errors: ModelError (none of them says so, or one that is named is not there)."""
        labels = {int(i): str(label).lower() for i, label in (self._model.config.id2label or {}).items()}
        if self._named:
            named = self._named.lower().split("+")
            if absent := [label for label in named if label not in labels.values()]:
                raise ModelError(f"{self.name}: no label {absent[0]}. Its labels: {', '.join(labels.values())}.")
            return [i for i, label in labels.items() if label in named]
        toxic = [
            i for i, label in labels.items() if "toxic" in label and not label.startswith(("non", "not", "neutral"))
        ]
        toxic = [i for i in toxic if labels[i] in ("toxic", "toxicity")] or toxic
        if not toxic and set(labels.values()) == {"label_0", "label_1"}:
            return [1]
        if len(toxic) != 1:
            raise ModelError(
                f"{self.name}: no label, or several, mean toxic. Its labels: {', '.join(labels.values())}. Name one: "
                f"{self.name}#LABEL, or several that are summed: #LABEL+LABEL."
            )
        return toxic

    def score(self, texts: Sequence[str], eval_lang: Language) -> list[Score]:
        """The language changes nothing: the model is multilingual. Too long a text is not cut: it has no score."""
        scores = [Score(None, "empty")] * len(texts)
        ids = self._tokenizer(list(texts))["input_ids"] if texts else []
        longest = self._longest
        todo = []
        for i in sorted(range(len(texts)), key=lambda i: len(ids[i])):
            if not texts[i].strip():
                continue
            if len(ids[i]) > longest:
                scores[i] = Score(None, "too-long")
            else:
                todo.append(i)
        while todo:
            rows = max(1, TOKENS_PER_BATCH // len(ids[todo[0]]))
            batch, todo = todo[:rows], todo[rows:]
            for i, value in zip(batch, self._probabilities([ids[i] for i in batch]).tolist(), strict=True):
                scores[i] = Score(value) if isfinite(value) else Score(None, "not-a-number")
        return scores

    @property
    def _longest(self) -> int:
        positions = getattr(self._model.config, "max_position_embeddings", None) or self._tokenizer.model_max_length
        # RoBERTa's positions begin after the padding index.
        first = (self._model.config.pad_token_id or 0) + 1 if "roberta" in self._model.config.model_type else 0
        return min(int(positions) - first, int(self._tokenizer.model_max_length))

    def _probabilities(self, ids: list[list[int]]) -> "torch.Tensor":
        """[texts]: of the toxic label, by a sigmoid where labels do not exclude each other."""
        import torch

        with torch.inference_mode():
            if self._tokenizer.pad_token_id is None:  # one by one: nothing could stand for padding
                rows = [torch.tensor([row], device=self._model.device) for row in ids]
                logits = torch.cat([self._model(input_ids=row).logits.float() for row in rows])
            else:
                padded = self._tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self._model.device)
                logits = self._model(**padded).logits.float()
        if self._model.config.problem_type == "multi_label_classification" or logits.shape[1] == 1:
            return torch.sigmoid(logits)[:, self._labels].sum(1).clamp(max=1)
        return torch.softmax(logits, 1)[:, self._labels].sum(1)


def open_scorers(names: Sequence[str], training: Mapping[Language, Sequence[Pair]]) -> list[ClassifierScorer]:
    """The classifiers of these names. Errors: UsageError, ModelError."""
    return [ClassifierScorer(name) for name in names]


def available(used: Sequence[str]) -> dict[str, str]:
    """The default classifier and those of `used` whose weights are on this machine."""
    names: dict[str, str] = {}
    for name in dict.fromkeys([NAME, *used]):
        if name.partition(":")[0] == NAME:
            source, mark, label = (name.partition(":")[2] or DEFAULT).partition("#")
            folder = registry.classifier_at_hand(source)
            names |= {name: f"{NAME}:{folder}{mark}{label}"} if folder else {}
    return names
