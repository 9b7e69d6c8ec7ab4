"""Answers of a model to many prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ecg_grpo.prompts import Message


@dataclass(frozen=True)
class Completion:
    """A model's text for one prompt.

    Attributes:
        text: without the end token.
        finish_reason: `stop` if the model ended it, `length` if it was cut off.
        prompt_tokens: length of the rendered prompt.
        completion_tokens: length of the text, end token included.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


def generate(
    model_directory: Path,
    prompts: Sequence[list[Message]],
    dtype: torch.dtype,
    batch_size: int,
    max_new_tokens: int,
    on_progress: Callable[[int, str], None],
) -> list[Completion]:
    """Greedy completions, in the order of the prompts.

    Prompts are answered longest first, so that a batch holds prompts of like length and the largest batch comes first.

    Args:
        model_directory: model and tokenizer.
        prompts: messages of each prompt.
        dtype: number format of the weights.
        batch_size: prompts answered at once.
        max_new_tokens: longest completion.
        on_progress: called after each batch with the number of prompts done and a note.
    """
    tokenizer = AutoTokenizer.from_pretrained(model_directory, padding_side="left")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(model_directory, dtype=dtype).to(device).eval()
    rendered = tokenizer.apply_chat_template(list(prompts), tokenize=False, add_generation_prompt=True)
    lengths = [len(ids) for ids in tokenizer(rendered, add_special_tokens=False)["input_ids"]]
    order = sorted(range(len(prompts)), key=lambda index: (-lengths[index], index))
    completions: dict[int, Completion] = {}
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        inputs = tokenizer(
            [rendered[index] for index in batch], return_tensors="pt", padding=True, add_special_tokens=False
        ).to(device)
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        for index, ids in zip(batch, output[:, inputs.input_ids.shape[1] :].tolist(), strict=True):
            ended = tokenizer.eos_token_id in ids
            tokens = ids[: ids.index(tokenizer.eos_token_id) + 1] if ended else ids
            completions[index] = Completion(
                text=tokenizer.decode(tokens, skip_special_tokens=True),
                finish_reason="stop" if ended else "length",
                prompt_tokens=lengths[index],
                completion_tokens=len(tokens),
            )
        generated = sum(completion.completion_tokens for completion in completions.values())
        on_progress(len(completions), f"{generated} tokens")
    return [completions[index] for index in range(len(prompts))]
