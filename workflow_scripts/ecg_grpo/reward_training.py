"""What only the training of a reward model needs: its order, its data, and the merge of its adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch.utils.data import Sampler, SequentialSampler
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel
from trl import RewardTrainer

from ecg_grpo.errors import InputError
from ecg_grpo.length_grouping import LengthGroupedOrder
from ecg_grpo.prompts import Message
from ecg_grpo.reward_model import RewardModel, conversation, conversation_tokens

TOLERANCE = 1e-3
"""Largest difference between scores of the merged model and of base and adapter, relative to the mean size of the scores."""


class LengthGroupedRewardTrainer(RewardTrainer):
    """TRL's reward trainer with `group_by_length`, in an order that can be resumed exactly."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int] | None:
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        rows = self.train_dataset if train_dataset is None else train_dataset
        # Both texts of a pair are padded to the longest of their batch.
        lengths = [max(len(one), len(other)) for one, other in zip(rows["chosen_ids"], rows["rejected_ids"], strict=True)]
        batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedOrder(lengths, batch_size, self.args.seed)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler[int]:
        return SequentialSampler(eval_dataset)  # transformers' grouping knows only records of one text


def preference_dataset(pairs: Sequence[Mapping[str, Any]]) -> Dataset:
    """The pairs as TRL's reward trainer takes them: conversations with an explicit prompt."""
    answers = ("chosen", "rejected")
    return Dataset.from_list(
        [{"prompt": pair["prompt"], **{name: conversation([], pair[name]) for name in answers}} for pair in pairs]
    )


def require_all(where: Path, kept: int, pairs: int) -> None:
    """Refuses that the trainer left pairs out: it drops silently what is longer than `max_length`.

    Raises:
        InputError: some are gone.
    """
    if kept != pairs:
        raise InputError(
            where,
            f"the trainer kept {kept} of {pairs} pairs: some texts are longer than reward_model.training.max_length",
            "Raise reward_model.training.max_length.",
        )


def save_reward_model(
    base: Path, checkpoint: Path, target: Path, texts: Sequence[tuple[list[Message], str]]
) -> dict[str, float]:
    """Writes the trained model as one sequence-classification model in float32, and checks it.

    Args:
        base: directory of the model that the training started from.
        checkpoint: directory with the adapter (`adapter_config.json`) or with all weights (full-parameter training).
        target: an empty directory.
        texts: prompts and answers on which scores are compared, at least one.

    Returns:
        `saved_difference`: mean difference of the saved model's scores and those of base and adapter, relative to their size.

    Raises:
        InputError: the saved model gives other scores; says by how much.
    """
    tokenizer = AutoTokenizer.from_pretrained(base)
    options = {"dtype": torch.float32, "num_labels": 1, "pad_token_id": tokenizer.pad_token_id}
    if (checkpoint / "adapter_config.json").is_file():
        with_adapter = PeftModel.from_pretrained(
            AutoModelForSequenceClassification.from_pretrained(base, **options), checkpoint
        )
        expected = _scores(with_adapter, tokenizer, texts)
        model: PreTrainedModel = with_adapter.merge_and_unload()
    else:
        model = AutoModelForSequenceClassification.from_pretrained(checkpoint, **options)
        expected = _scores(model, tokenizer, texts)
    model.config.dtype = "float32"
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    del model
    found = torch.tensor(RewardModel(target).raw_scores(*map(list, zip(*texts, strict=True))), dtype=torch.float64)
    difference = float((found - expected).abs().mean() / expected.abs().mean())
    if not difference <= TOLERANCE:  # written so that a NaN fails too
        raise InputError(
            checkpoint,
            f"scores of the saved model differ from those of base + adapter by {difference:.2e} of their size",
            "Look at the training's log: the training may have diverged.",
        )
    return {"saved_difference": difference}


@torch.inference_mode()
def _scores(model: torch.nn.Module, tokenizer: Any, texts: Sequence[tuple[list[Message], str]]) -> torch.Tensor:
    """Scores of texts one by one, without padding."""
    model.eval()
    tokens = [torch.tensor([conversation_tokens(tokenizer, prompt, answer)]) for prompt, answer in texts]
    return torch.stack([model(input_ids=ids).logits[0, 0].double() for ids in tokens])
