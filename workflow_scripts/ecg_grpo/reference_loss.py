"""How likely a model finds the reference answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from ecg_grpo.reference_probability import Thought, load_scorer, reference_probabilities, token_log_probabilities
from ecg_grpo.supervised import Example
from ecg_grpo.training import project_only_scored_tokens


@dataclass(frozen=True)
class ReferenceLoss:
    """Loss of one reference answer.

    Attributes:
        tokens: of the answer, with the end token and what the chat template writes after it; after a reasoning of the answer
            alone.
        mean: negative log-likelihood per token, in nats; 0 would be certainty.
    """

    tokens: int
    mean: float


def reference_losses(
    model_directory: Path, examples: Sequence[Example], dtype: torch.dtype, batch_size: int
) -> Iterator[dict[int, ReferenceLoss]]:
    """The loss of every reference answer given its prompt, batch by batch, the longest first.

    TRL's SFT trainer itself renders, tokenizes, masks and pads, so that what is measured is what was trained. Its fused head
    projects scored positions alone to the vocabulary.

    Args:
        model_directory: model and tokenizer.
        examples: prompts and answers; none is cut.
        dtype: number format of the weights; the log-likelihood is in float32.
        batch_size: examples computed at once.

    Yields:
        The losses of a batch by the examples' indices.
    """
    if not examples:
        return
    project_only_scored_tokens()
    model = AutoModelForCausalLM.from_pretrained(model_directory, dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(model_directory)
    with TemporaryDirectory() as folder:
        arguments = SFTConfig(
            folder,
            completion_only_loss=True,
            packing=False,
            max_length=None,
            use_cpu=True,  # it only prepares; of several GPUs it would want a launcher
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
            report_to="none",
        )
        trainer = SFTTrainer(model, arguments, train_dataset=Dataset.from_list(list(examples)), processing_class=tokenizer)
    rows = list(trainer.train_dataset)
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    for batch in token_log_probabilities(model, rows, tokenizer.pad_token_id, batch_size):
        yield {index: ReferenceLoss(len(found), -found.mean().item()) for index, found in batch.items()}


def losses_after_reasoning(
    model_directory: Path, thoughts: Sequence[Thought], dtype: torch.dtype, batch_size: int
) -> Iterator[dict[int, ReferenceLoss]]:
    """The loss of every reference answer after a reasoning; arguments and batches as those of `reference_losses`."""
    model, tokenizer = load_scorer(model_directory, dtype)
    for batch in reference_probabilities(model, tokenizer, thoughts, batch_size):
        yield {index: ReferenceLoss(found.tokens, -found.mean_log_probability) for index, found in batch.items()}
