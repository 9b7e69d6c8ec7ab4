"""Records of like length share a batch, in an order that a resumed training finds again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from datasets import Dataset
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices
from trl import SFTTrainer


class LengthGroupedOrder(Sampler[int]):
    """The order of transformers' LengthGroupedSampler, worked out from seed and epoch alone.

    That sampler takes its random numbers from the process, which is in another state when a training is resumed: the rest of
    an epoch then holds other records than the unbroken run's.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        """
        Args:
            lengths: tokens of each record.
            batch_size: records in one optimizer step of one process.
            seed: the training's.
        """
        self._lengths, self._batch_size, self._seed, self._epoch = list(lengths), batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate before every epoch, also before one that is gone on with."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        return iter(get_length_grouped_indices(self._lengths, self._batch_size, generator=generator))


class LengthGroupedSFTTrainer(SFTTrainer):
    """TRL's SFT trainer whose `group_by_length` can be resumed exactly."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int] | None:
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        lengths = [len(ids) for ids in (self.train_dataset if train_dataset is None else train_dataset)["input_ids"]]
        batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedOrder(lengths, batch_size, self.args.seed)
