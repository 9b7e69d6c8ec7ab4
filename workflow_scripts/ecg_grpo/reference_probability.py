"""How probable a model finds a reference answer after a reasoning.

The bootstrap of reasonings keeps those that raise it; a reward can be made of it too (RLPR, Yu et al. 2025, arXiv 2506.18254).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer.utils import add_fused_lm_head

from ecg_grpo.errors import InputError
from ecg_grpo.prompts import ANSWER_ENDS, Message, write_reasoned
from ecg_grpo.training import project_only_scored_tokens

IGNORED = -100
"""The label of a token that is not scored."""

Row = Mapping[str, Sequence[int]]
"""A text: `input_ids`, and `labels`, which are the ids of the tokens to score and `IGNORED` elsewhere."""


@dataclass(frozen=True)
class Thought:
    """A reference answer after a reasoning.

    Attributes:
        prompt: what was asked.
        reasoning: what stands in `<think>`; may be empty.
        reference: what stands in `<answer>`; not empty.
    """

    prompt: Sequence[Message]
    reasoning: str
    reference: str


@dataclass(frozen=True)
class ReferenceProbability:
    """How probable a reference is.

    Attributes:
        tokens: of the reference, tags and end token not among them.
        mean_log_probability: mean of its tokens' log-probabilities, in nats; at most 0.
        mean_probability: mean of its tokens' probabilities, 0 to 1, as RLPR takes it: one unlikely word costs little.
    """

    tokens: int
    mean_log_probability: float
    mean_probability: float


def load_scorer(model_directory: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model that can compute `reference_probabilities`, and its tokenizer."""
    project_only_scored_tokens()
    model = AutoModelForCausalLM.from_pretrained(model_directory, dtype=dtype)
    add_fused_lm_head(model)
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return model, AutoTokenizer.from_pretrained(model_directory)


def reference_probabilities(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    thoughts: Sequence[Thought],
    batch_size: int,
    finished: int = 0,
) -> Iterator[dict[int, ReferenceProbability]]:
    """The probability of every reference after its reasoning, batch by batch, the longest first.

    Args:
        model: with TRL's fused head: from `load_scorer`, or the live policy of a GRPO trainer, whose head divides by the
            sampling temperature.
        tokenizer: its own; a fast one.
        thoughts: what is scored; none is cut.
        batch_size: thoughts computed at once.
        finished: batches at the beginning that are left out.

    Yields:
        The probabilities of a batch by the thoughts' indices.

    Raises:
        InputError: the chat template changes what the assistant wrote.
    """
    rows = [_row(tokenizer, thought) for thought in thoughts]
    for batch in token_log_probabilities(model, rows, tokenizer.pad_token_id, batch_size, finished):
        yield {
            index: ReferenceProbability(len(found), found.mean().item(), found.exp().mean().item())
            for index, found in batch.items()
        }


def token_log_probabilities(
    model: PreTrainedModel, rows: Sequence[Row], pad_token: int, batch_size: int, finished: int = 0
) -> Iterator[dict[int, torch.Tensor]]:
    """Log-probabilities of the tokens to score, batch by batch, the longest first; only these are projected.

    Args:
        model: with TRL's fused head.
        rows: texts; none is cut.
        pad_token: fills short rows; any token.
        batch_size: rows computed at once.
        finished: batches at the beginning that are left out.

    Yields:
        By the rows' indices, float32 on the processor, shape (scored tokens,).
    """
    order = sorted(range(len(rows)), key=lambda index: (-len(rows[index]["input_ids"]), index))
    batches = (order[start : start + batch_size] for start in range(0, len(order), batch_size))
    for indices in islice(batches, finished, None):
        lengths = torch.tensor([len(rows[index]["input_ids"]) for index in indices])
        batch = {
            name: pad_sequence([torch.tensor(rows[index][name]) for index in indices], batch_first=True, padding_value=fill)
            for name, fill in (("input_ids", pad_token), ("labels", IGNORED))
        }
        batch["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        with torch.inference_mode():
            output = model(**{name: tensor.to(model.device) for name, tensor in batch.items()}, fused_lm_head=True)
        mask = output.label_mask.cpu()
        log_probabilities = output.log_probs.float().cpu()
        yield {index: log_probabilities[place][mask[place]] for place, index in enumerate(indices)}


def _row(tokenizer: PreTrainedTokenizerBase, thought: Thought) -> dict[str, list[int]]:
    """The rendered chat; every token that holds a character of the reference is scored, one that joins it to a tag too."""
    reference = thought.reference.strip()
    written = write_reasoned(thought.reasoning, reference)
    messages = [*thought.prompt, {"role": "assistant", "content": written}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    place = text.rfind(written)
    if place < 0:
        raise InputError(
            tokenizer.name_or_path,
            "the chat template does not write an assistant's text as it is: `<think>` or `<answer>` is missing",
            "Use another model, or `reasoning: off`.",
        )
    end = place + len(written) - len(ANSWER_ENDS)
    begin = end - len(reference)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    scored = (start < end and stop > begin for start, stop in encoded["offset_mapping"])
    ids = encoded["input_ids"]
    return {"input_ids": ids, "labels": [token if counts else IGNORED for token, counts in zip(ids, scored, strict=True)]}
