"""A sentence-transformers model on disk, and what it makes of a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class Embedded:
    """A text as the model sees it.

    Attributes:
        sentence: embedding of the whole text, (width,).
        tokens: last hidden state of each token, (tokens, width).
        is_word: which of them are the text's own and not the tokenizer's, (tokens,).
    """

    sentence: torch.Tensor
    tokens: torch.Tensor
    is_word: torch.Tensor


class SentenceModel:
    """A sentence-transformers model on the fastest device.

    Args:
        directory: checked by `sentence_model.check_sentence_model`.
        max_tokens: longest text in tokens, the tokenizer's own included.
    """

    def __init__(self, directory: Path, max_tokens: int) -> None:
        self._model = SentenceTransformer(
            str(directory),
            device="cuda" if torch.cuda.is_available() else "cpu",
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "dtype": torch.float32},
        ).eval()
        self._model.default_prompt_name = None  # the texts are compared as they are
        self.max_tokens = min(max_tokens, _positions(self._model))
        """Longest text in tokens, what the model can place considered."""
        self._model.max_seq_length = self.max_tokens
        tokenizer = self._model.tokenizer
        own = (tokenizer.cls_token_id, tokenizer.sep_token_id)
        self._own = torch.tensor([token for token in own if token is not None])

    def count_cut(self, texts: Sequence[str]) -> int:
        """How many of the texts are longer than the model reads."""
        if not texts:
            return 0
        encoded = self._model.tokenizer(list(texts), truncation=False, return_attention_mask=False, verbose=False)
        return sum(len(ids) > self.max_tokens for ids in encoded["input_ids"])

    def embed(self, texts: Sequence[str], batch_size: int) -> list[Embedded]:
        """Every text embedded; sentence-transformers sorts them by length, so that a batch holds texts of like length."""
        outputs = self._model.encode(list(texts), batch_size=batch_size, output_value=None, show_progress_bar=False)
        found = []
        for output in outputs:
            read = output["attention_mask"].bool()  # some tokenizers pad on the left
            is_word = ~torch.isin(output["input_ids"][read].cpu(), self._own)
            found.append(Embedded(output["sentence_embedding"], output["token_embeddings"][read], is_word))
        return found


def _positions(model: SentenceTransformer) -> int:
    """Tokens that the model has positions for; RoBERTa and its kin lose those up to the padding token's number."""
    positions = getattr(model[0].config, "max_position_embeddings", None)
    if positions is None or positions < 1:  # relative positions
        return model.tokenizer.model_max_length
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            positions -= module.padding_idx + 1
    return positions
