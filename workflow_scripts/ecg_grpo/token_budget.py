"""Lengths in tokens, as the model that is trained counts them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ecg_grpo.prompts import Message


def count_tokens(model: Path, prompts: Sequence[list[Message]], answers: Sequence[str]) -> list[tuple[int, int]]:
    """(prompt tokens, answer tokens) of each pair.

    The prompt counts with the chat template and the header that opens the answer; the answer with its end token.

    Args:
        model: directory with the tokenizer.
        prompts: messages of each prompt.
        answers: the reference answer to each.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    rendered = tokenizer.apply_chat_template(list(prompts), tokenize=False, add_generation_prompt=True)
    prompt_ids = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    answer_ids = tokenizer(list(answers), add_special_tokens=False)["input_ids"]
    return [(len(prompt), len(answer) + 1) for prompt, answer in zip(prompt_ids, answer_ids, strict=True)]
