"""TRL's GRPO trainer, in which groups that teach nothing are mended, validation is greedy, and padding is saved."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from accelerate.utils import gather_object
from trl import GRPOTrainer
from trl.trainer.utils import pad

from ecg_grpo.reference_probability import ReferenceProbability, Thought, reference_probabilities
from ecg_grpo.sampling import fast_sampling
from ecg_grpo.shared_prompts import layer_operations, share_prompts

Batch = dict[str, Any]

PADDED_LEFT = ("prompt_ids", "prompt_mask")


class PolicyTrainer(GRPOTrainer):
    """GRPO with dynamic sampling (DAPO, Yu et al. 2025, arXiv 2503.14476) and greedy validation.

    A group all of whose completions have the same reward has advantage 0 everywhere: it costs a group's sampling and
    teaches nothing. Such groups are sampled again, or groups of other prompts take their places, a bounded number of times.
    What is logged of rewards, lengths and spread is of the first draw, so that curves stay those of the policy and of the
    data; the mending has metrics of its own:

        dynamic_sampling/groups_without_spread   share of groups of the first draw
        dynamic_sampling/groups_left             share of groups still without spread at the end
        dynamic_sampling/extra_completions       completions sampled besides the first draw, over all processes
        dynamic_sampling/seconds                 what that took
    """

    def __init__(self, *args: Any, dynamic_sampling: Literal["redraw", "replace"] | None, rounds: int, **kwargs: Any) -> None:
        """
        Args:
            dynamic_sampling: sample the same prompts again, or others; None trains on groups without spread in vain.
            rounds: how often at most one batch of completions is mended.
            args, kwargs: TRL's.
        """
        super().__init__(*args, **kwargs)
        self._dynamic_sampling, self._rounds = dynamic_sampling, rounds
        # Other kernels take no mask of pairs, and routers would count a shared prompt once.
        attention = self.accelerator.unwrap_model(self.model).config._attn_implementation
        self._shares_prompts = attention == "sdpa" and not self.aux_loss_enabled and not self._is_vlm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs as TRL does, except that a validation does not overwrite the completions kept of the step before it."""
        kept = self.log_completions
        self.log_completions = kept and self.model.training
        try:
            super().log(logs, start_time)
        finally:
            self.log_completions = kept

    def reference_probabilities(self, thoughts: Sequence[Thought]) -> list[ReferenceProbability]:
        """How probable the policy, as it stands, finds references after reasonings.

        Of several processes all must ask at once, and for equally many.
        """
        found: dict[int, ReferenceProbability] = {}
        was_training = self.model.training
        self.model.eval()  # no dropout
        try:
            with self.accelerator.autocast():
                size = self.args.per_device_train_batch_size
                for batch in reference_probabilities(self.model, self._tokenizer, thoughts, size):
                    found |= batch
        finally:
            self.model.train(was_training)
        return [found[index] for index in range(len(thoughts))]

    def _prepare_inputs(self, generation_batch: dict[str, Any]) -> dict[str, Any]:
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if not self.model.training or self.loss_type == "bnpo":  # whose loss depends on which completions share a batch
            return inputs
        if self._buffered_inputs is not before:
            self._buffered_inputs = sort_by_length(self._buffered_inputs, self._shares_prompts)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        greedy = nullcontext() if self.model.training else self._greedy()
        fast = nullcontext() if self.use_vllm else fast_sampling(self.accelerator.unwrap_model(self.model_wrapped))
        with greedy, fast:
            return super()._generate_single_turn(*args, **kwargs)

    def _get_per_token_logps_and_entropies(
        self,
        model: torch.nn.Module,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **options: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        of_chunks = []
        for rows in torch.arange(len(input_ids)).split(batch_size or len(input_ids)):
            ids, mask = input_ids[rows], attention_mask[rows]
            shared = self._shares_prompts and share_prompts(ids, mask, logits_to_keep, self._tokenizer.pad_token_id)
            config = self.accelerator.unwrap_model(model).config
            if not shared or layer_operations(config, *shared.input_ids.shape) >= layer_operations(config, *ids.shape):
                of_chunks.append(
                    super()._get_per_token_logps_and_entropies(
                        model, ids, mask, logits_to_keep, compute_entropy=compute_entropy, **options
                    )
                )
                continue
            with self.accelerator.autocast():
                outputs = model(
                    input_ids=shared.input_ids,
                    attention_mask=shared.attention_mask,
                    position_ids=shared.position_ids,
                    shift_labels=shared.targets,
                    fused_lm_head=True,
                )
            entropy = shared.by_completion(outputs.entropy) if compute_entropy else None
            of_chunks.append((shared.by_completion(outputs.log_probs), entropy, None))
        logps, entropies, auxiliary = zip(*of_chunks, strict=True)
        return (
            torch.cat(logps),
            torch.cat(entropies) if compute_entropy else None,
            None if auxiliary[0] is None else torch.stack(auxiliary).mean(),
        )

    @contextmanager
    def _greedy(self) -> Iterator[None]:
        engine = self.vllm_generation if self.use_vllm else self.generation_config
        name, value = ("temperature", 0.0) if self.use_vllm else ("do_sample", False)
        before = getattr(engine, name)
        setattr(engine, name, value)
        options = getattr(self, "generation_kwargs", None)  # transformers lets these win over the configuration
        if options is not None:
            self.generation_kwargs = {**options, name: value}
        try:
            yield
        finally:
            setattr(engine, name, before)
            if options is not None:
                self.generation_kwargs = options

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Batch:
        batch = super()._generate_and_score_completions(inputs)
        if not self.model.training:
            return batch
        metrics, size, started = self._metrics["train"], self.num_generations, time.monotonic()
        # Rounding errors: divided by TRL's 1e-4 in place of a group's spread, by the batch's spread, or as they are.
        by_group = self.scale_rewards == "group" or self.multi_objective_aggregation == "normalize_then_sum"
        zero = 5e-3 if by_group else 1e-4 if self.scale_rewards == "batch" else 1e-6
        everywhere = self.accelerator.gather(batch["advantages"])  # a group may be spread over processes
        groups = len(everywhere) // size
        share = len(groups_without_spread(everywhere, size, zero)) / groups
        # TRL looks at the whole batch's spread where it does not scale by the group's.
        metrics["frac_reward_zero_std"][-1] = share
        if self._dynamic_sampling is None:
            return batch
        flat = groups_without_spread(batch["advantages"], size, zero)
        every_flat: list[list[int]] = gather_object([flat])
        batch_spread = metrics["reward_std"][-1]
        metrics["dynamic_sampling/groups_without_spread"].append(share)
        extra = 0
        for attempt in range(self._rounds):
            # Every process samples as many groups as the neediest one: sampling is a joint operation.
            number = max(map(len, every_flat))
            if number == 0:
                break
            # A process that needs fewer samples some of its good groups again, for nothing.
            chosen = [*flat, *(group for group in range(len(inputs) // size) if group not in flat)][:number]
            fresh_inputs = self._inputs_for(inputs, chosen, attempt)
            logs = self._remember_logs()
            counts = {name: len(values) for name, values in metrics.items()}
            fresh = super()._generate_and_score_completions(fresh_inputs)
            if self.scale_rewards == "batch":  # by the batch's spread, not by that of the few that were drawn again
                fresh["advantages"] *= (metrics["reward_std"][-1] + 1e-4) / (batch_spread + 1e-4)
            for name in list(metrics):  # the first draw's figures stay
                del metrics[name][counts.get(name, 0) :]
            spread = [index for index in range(number) if index not in groups_without_spread(fresh["advantages"], size, zero)]
            taken = {chosen[index]: index for index in spread if chosen[index] in flat}
            batch = replace_groups(batch, fresh, taken, size, self._tokenizer.pad_token_id)
            self._replace_logs(logs, gather_object([taken]), number, len(inputs) // size)
            for group, index in taken.items():
                inputs[group * size : (group + 1) * size] = fresh_inputs[index * size : (index + 1) * size]
            extra += number * size * self.accelerator.num_processes
            flat = [group for group in flat if group not in taken]
            every_flat = gather_object([flat])
        batch["num_items_in_batch"] = self.accelerator.gather(batch["completion_mask"].sum()).sum()
        metrics["dynamic_sampling/groups_left"].append(sum(map(len, every_flat)) / groups)
        metrics["dynamic_sampling/extra_completions"].append(extra)
        metrics["dynamic_sampling/seconds"].append(round(time.monotonic() - started, 2))
        return batch

    def _inputs_for(self, inputs: list[dict[str, Any]], groups: list[int], attempt: int) -> list[dict[str, Any]]:
        """The rows to sample: those of the groups, or of as many other prompts, each as often as a group is large."""
        rows = [inputs[group * self.num_generations] for group in groups]
        if self._dynamic_sampling == "replace":
            # Follows from the step alone, so that a resumed run draws the same prompts.
            place = f"{self.args.seed}/{self.state.global_step}/{attempt}/{self.accelerator.process_index}"
            drawn = random.Random(place).sample(range(len(self.train_dataset)), len(rows))
            rows = [self.train_dataset[index] for index in drawn]
        return [dict(row) for row in rows for _ in range(self.num_generations)]

    def _remember_logs(self) -> dict[str, Any]:
        kept = {name: list(values) for name, values in self._logs.items() if isinstance(values, deque)}
        return kept | {
            name: {column: list(values) for column, values in columns.items()}
            for name, columns in self._logs.items()
            if isinstance(columns, dict)
        }

    def _replace_logs(self, before: dict[str, Any], taken: list[dict[int, int]], drawn: int, groups: int) -> None:
        """Puts the completions that are trained on in the places of those that are not, in what is logged of them.

        Args:
            before: the logs of the batch before it was mended.
            taken: of each process, group of the batch → group of the fresh draw.
            drawn: groups that each process drew.
            groups: groups of each process.
        """
        size = self.num_generations

        def merged(old: list[Any], now: deque[Any]) -> deque[Any]:
            fresh, result = list(now)[-drawn * size * len(taken) :], list(old)
            for process, pairs in enumerate(taken):
                for group, index in pairs.items():
                    target, source = (process * groups + group) * size, (process * drawn + index) * size
                    result[target : target + size] = fresh[source : source + size]
            return deque(result, maxlen=now.maxlen)

        for name, values in before.items():
            if isinstance(values, dict):
                for column, old in values.items():
                    self._logs[name][column] = merged(old, self._logs[name][column])
            elif values:
                self._logs[name] = merged(values, self._logs[name])


def sort_by_length(batches: list[Batch], by_prompt: bool) -> list[Batch]:
    """The same completions in the same number of batches, each of like lengths and without columns that are all padding.

    All batches belong to one optimizer step, and its loss is a sum over completions or tokens with one divisor, so that which
    completions share a batch makes no difference but for rounding.
    """
    whole = {
        name: torch.cat([batch[name] for batch in batches]) if value.dim() else value
        for name, value in batches[0].items()
        if isinstance(value, torch.Tensor)
    }
    prompts, completions = whole["prompt_mask"].sum(dim=1), whole["completion_ids"].shape[1]
    # A completion that was cut has an empty mask if it is left out of the loss, and its tokens still take room.
    lengths = torch.where(whole["completion_mask"].any(dim=1), whole["completion_mask"].sum(dim=1), completions)
    order = torch.argsort(prompts + lengths, descending=True, stable=True)
    if by_prompt:
        _, prompt = torch.unique(torch.cat([whole["prompt_mask"], whole["prompt_ids"]], dim=1), dim=0, return_inverse=True)
        order = order[torch.argsort(prompt[order], descending=True, stable=True)]
    result = []
    for rows in order.chunk(len(batches)):
        batch = {name: value[rows] if value.dim() else value for name, value in whole.items()}
        prompt, completion = int(prompts[rows].max()), int(lengths[rows].max())
        for name in PADDED_LEFT:
            batch[name] = batch[name][:, -prompt:]
        for name, value in batch.items():
            if value.dim() == 2 and name not in PADDED_LEFT and value.shape[1] == completions:
                batch[name] = value[:, :completion]
        result.append(batch)
    return result


def groups_without_spread(advantages: torch.Tensor, size: int, zero: float) -> list[int]:
    """Groups whose completions all have advantage 0.

    Args:
        advantages: one a completion, groups one after the other, shape (groups x size,).
        size: completions in a group.
        zero: what an advantage may differ from 0 by rounding.
    """
    return torch.nonzero((advantages.view(-1, size).abs() < zero).all(dim=1)).flatten().tolist()


def replace_groups(batch: Batch, fresh: Batch, taken: dict[int, int], size: int, pad_token: int) -> Batch:
    """A batch in which some groups are those of a fresh draw.

    Args:
        batch, fresh: what TRL makes of a draw: tensors with a first dimension of completions, and scalars.
        taken: group of `batch` → group of `fresh` that takes its place.
        size: completions in a group.
        pad_token: token that fills short rows.

    Returns:
        The batch; rows are padded anew to the longest one, prompts on the left and completions on the right.
    """
    if not taken:
        return batch
    rows = {group * size + k: index * size + k for group, index in taken.items() for k in range(size)}
    result = dict(batch)
    for name, values in batch.items():
        if not isinstance(values, torch.Tensor) or values.dim() == 0:
            continue
        if values.dim() == 1 or values.size(1) == fresh[name].size(1):
            result[name] = torch.stack([fresh[name][rows[row]] if row in rows else values[row] for row in range(len(values))])
            continue
        filler = pad_token if name.endswith("_ids") else 0
        side = "left" if name in PADDED_LEFT else "right"
        chosen = [fresh[name][rows[row]] if row in rows else values[row] for row in range(len(values))]
        result[name] = pad(chosen, padding_value=filler, padding_side=side)
    _trim(result)
    return result


def _trim(batch: Batch) -> None:
    """Takes columns away that no row needs any more."""
    needed = int(batch["prompt_mask"].sum(dim=1).max())
    for name in PADDED_LEFT:
        batch[name] = batch[name][:, -needed:]
