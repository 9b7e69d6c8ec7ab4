"""Llama 3's prompts as FastChat's template `llama-3` writes them (github.com/lm-sys/FastChat, fastchat/conversation.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ecg_grpo.prompts import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VOCABULARY = 128_256
"""Tokens of Llama 3 to 3.3, the 256 special ones included."""

BEGIN_OF_TEXT, END_OF_TURN = "<|begin_of_text|>", "<|eot_id|>"
ANSWER_STARTS = "<|start_header_id|>assistant<|end_header_id|>\n\n"
"""What stands before an answer: four tokens."""


def fastchat_text(messages: Sequence[Message], asks: bool) -> str:
    """A conversation as that template writes it: no date, one start token.

    Args:
        messages: a system message, then user and assistant in turn. As there, spaces at both ends are taken off what user and
            assistant say, but not off the system message.
        asks: whether an answer is to follow.
    """
    turns = [
        f"<|start_header_id|>{role}<|end_header_id|>\n\n{content if role == 'system' else content.strip()}{END_OF_TURN}"
        for role, content in ((message["role"], message["content"]) for message in messages)
    ]
    return BEGIN_OF_TEXT + "".join(turns) + (ANSWER_STARTS if asks else "")


def lacks(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Why a tokenizer is none of Llama 3's; empty if it is one."""
    found = []
    if len(tokenizer) != VOCABULARY:
        found.append(f"its tokenizer has {len(tokenizer):,} tokens and not {VOCABULARY:,}")
    vocabulary = tokenizer.get_vocab()
    for token in (BEGIN_OF_TEXT, END_OF_TURN, "<|start_header_id|>", "<|end_header_id|>"):
        if token not in vocabulary:
            found.append(f"its tokenizer has no {token}")
    return found
