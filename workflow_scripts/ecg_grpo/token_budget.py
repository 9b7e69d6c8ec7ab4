"""Lengths in tokens, as the model that is trained counts them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ecg_grpo.files import read_json
from ecg_grpo.prompts import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BATCH = 2000


class TokenCounter:
    """Counts tokens with a model's own tokenizer and chat template.

    Args:
        model: directory with the tokenizer.
    """

    def __init__(self, model: Path) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "true"  # this program forks no process, which is what forbids it elsewhere
        self._tokenizer = _load_tokenizer(model)

    @property
    def special_tokens(self) -> re.Pattern[str]:
        """Finds the texts that the tokenizer reads as special tokens, such as the end of a turn."""
        added = self._tokenizer.added_tokens_decoder.values()
        names = {token.content for token in added if token.special} | set(self._tokenizer.all_special_tokens)
        return re.compile("|".join(map(re.escape, sorted(names))) or r"(?!)")

    def count(
        self, size: int, pair: Callable[[int], tuple[list[Message], str]], on_batch: Callable[[int], None]
    ) -> Iterator[tuple[int, int]]:
        """(prompt tokens, answer tokens) of each pair.

        The prompt counts with the chat template and the header that opens the answer; the answer with its end token.

        Args:
            size: how many pairs.
            pair: makes one of them: the prompt's messages and the reference answer. Only a batch is held at a time.
            on_batch: told how many are done.
        """
        for start in range(0, size, _BATCH):
            batch = [pair(index) for index in range(start, min(start + _BATCH, size))]
            rendered = self._tokenizer.apply_chat_template(
                [prompt for prompt, _ in batch], tokenize=False, add_generation_prompt=True
            )
            yield from zip(
                self._lengths(rendered), (length + 1 for length in self._lengths([a for _, a in batch])), strict=True
            )
            on_batch(start + len(batch))

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        encoded = self._tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)["input_ids"]
        return [len(ids) for ids in encoded]


def _load_tokenizer(model: Path) -> PreTrainedTokenizerBase:
    configuration = model / "tokenizer_config.json"
    kind = read_json(configuration).get("tokenizer_class") if configuration.is_file() else None
    if kind in ("TokenizersBackend", "PreTrainedTokenizerFast"):
        # What AutoTokenizer would take, without importing every model that transformers knows (three seconds).
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast.from_pretrained(model)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)
