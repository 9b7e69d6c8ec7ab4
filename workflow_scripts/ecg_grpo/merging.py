"""An adapter and its base become one model that is proved to answer as the two did together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ecg_grpo.errors import InputError
from ecg_grpo.prompts import Message
from ecg_grpo.settings.merge import MergeSettings

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class MergeCheck:
    """What was measured. A difference is mean |logit difference| / mean |logit| on the prompts, computed in float32.

    Attributes:
        changed_weights: share of the saved weight tensors that differ from the base's, 0 to 1.
        training_effect: difference between base and merged model.
        merge_difference: difference between merged model and base + adapter.
        saved_difference: difference between the model read back from disk and the merged one.
        tied_embeddings: input and output embeddings share one tensor, as in the base.
    """

    changed_weights: float
    training_effect: float
    merge_difference: float
    saved_difference: float
    tied_embeddings: bool


def merge(
    base: Path, checkpoint: Path, target: Path, prompts: Sequence[list[Message]], settings: MergeSettings
) -> dict[str, object]:
    """Writes the model that a training ended with, and checks it.

    The merge is computed in float32, whatever the number format on disk.

    Args:
        base: directory of the model that the training started from.
        checkpoint: directory with an adapter (`adapter_config.json`) or with all weights (full-parameter training).
        target: an empty directory.
        prompts: prompts on which logits are compared.
        settings: section `merge`.

    Returns:
        The figures of `MergeCheck`.

    Raises:
        InputError: the result is not what base and checkpoint are together; says by how much.
    """
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokens = _tokenize(tokenizer, prompts)
    base_model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tied = base_model.config.tie_word_embeddings
    base_logits = _logits(base_model, tokens)
    if (checkpoint / "adapter_config.json").is_file():
        with_adapter = PeftModel.from_pretrained(base_model, checkpoint)
        expected = _logits(with_adapter, tokens)
        merged: PreTrainedModel = with_adapter.merge_and_unload()
    else:
        del base_model
        merged = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
        expected = _logits(merged, tokens)
    merged_logits = _logits(merged, tokens)

    merged.to(DTYPES[settings.dtype])
    merged.config.dtype = settings.dtype
    merged.save_pretrained(target)
    tokenizer.save_pretrained(target)
    del merged
    saved = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32)
    check = MergeCheck(
        changed_weights=changed_weights(base, target),
        training_effect=_relative_difference(merged_logits, base_logits),
        merge_difference=_relative_difference(merged_logits, expected),
        saved_difference=_relative_difference(_logits(saved, tokens), merged_logits),
        tied_embeddings=saved.get_input_embeddings().weight is saved.get_output_embeddings().weight,
    )
    _refuse_if_wrong(check, checkpoint, settings, tied)
    return asdict(check)


def _refuse_if_wrong(check: MergeCheck, checkpoint: Path, settings: MergeSettings, tied: bool) -> None:
    if not check.changed_weights:
        raise InputError(
            checkpoint,
            f"the saved model has the base's own weights: the training had no effect, or {settings.dtype} rounds it away",
            "Look at the training's log, or set merge.dtype to float32.",
        )
    # Written so that a NaN fails too.
    if not check.merge_difference <= settings.tolerance:
        raise InputError(
            checkpoint,
            f"merged logits differ from base + adapter by {check.merge_difference:.2e} (merge.tolerance is "
            f"{settings.tolerance:.0e})",
            "The adapter may belong to another base model; rebuild both.",
        )
    if not check.saved_difference < check.training_effect:
        raise InputError(
            checkpoint,
            f"rounding to {settings.dtype} changes the logits by {check.saved_difference:.2e}, the whole training by "
            f"{check.training_effect:.2e}",
            "Set merge.dtype to float32.",
        )
    if check.tied_embeddings != tied:
        raise InputError(checkpoint, "the merge changed whether the embeddings are tied", "This is a defect; report it.")


def changed_weights(one: Path, other: Path) -> float:
    """Share of the tensors of `other` that differ from those of `one` after rounding to the number format of `other`."""
    known = {}
    for file in one.glob("*.safetensors"):
        with safe_open(file, "pt") as stream:
            known.update(dict.fromkeys(stream.keys(), file))
    changed = []
    for file in other.glob("*.safetensors"):
        with safe_open(file, "pt") as stream:
            for name in stream.keys():  # noqa: SIM118, not a dictionary
                weight = stream.get_tensor(name)
                with safe_open(known[name], "pt") as base:
                    changed.append(not torch.equal(base.get_tensor(name).to(weight.dtype), weight))
    return sum(changed) / len(changed)


def _tokenize(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[Message]]) -> list[torch.Tensor]:
    return [
        tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True).input_ids
        for prompt in prompts
    ]


@torch.inference_mode()
def _logits(model: torch.nn.Module, tokens: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    model.eval()
    return [model(input_ids=ids).logits.float() for ids in tokens]


def _relative_difference(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    difference = sum((one - other).abs().mean() for one, other in zip(found, expected, strict=True))
    return float(difference / sum(other.abs().mean() for other in expected))
