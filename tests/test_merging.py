"""The merge's checks: each of them can fail, with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import SAMPLE

from ecg_grpo.errors import InputError
from ecg_grpo.prompts import build_prompt
from ecg_grpo.raw_files import RAW_FILES
from ecg_grpo.readers import read_records
from ecg_grpo.settings.merge import MergeSettings

PROMPTS = [build_prompt("Answer.", "", record.question) for record in read_records(SAMPLE / RAW_FILES[0].name)[:3]]


@pytest.fixture
def adapter(tiny_model: Path, tmp_path: Path):
    """Makes an adapter of the tiny model whose update has a given size."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    def make(size: float) -> Path:
        torch.manual_seed(1)
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear")
        )
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=size) if size else torch.nn.init.zeros_(weight)
        model.save_pretrained(tmp_path / "adapter")
        return tmp_path / "adapter"

    return make


def merge(base: Path, checkpoint: Path, target: Path, **settings: object) -> dict:
    from ecg_grpo.merging import merge as run

    return run(base, checkpoint, target, PROMPTS, MergeSettings.model_validate(settings))


def test_a_good_merge_is_measured(adapter, tiny_model: Path, tmp_path: Path) -> None:
    checks = merge(tiny_model, adapter(0.1), tmp_path / "merged", dtype="float32")
    assert checks["training_effect"] > 0.01
    assert checks["merge_difference"] < 1e-4
    assert checks["saved_difference"] == 0
    assert 0 < checks["changed_weights"] < 1
    assert checks["tied_embeddings"] is True


def test_rounding_is_accepted_where_it_is_small_against_the_training(adapter, tiny_model: Path, tmp_path: Path) -> None:
    checks = merge(tiny_model, adapter(0.1), tmp_path / "merged", dtype="bfloat16")
    assert 0 < checks["saved_difference"] < checks["training_effect"]


def test_a_training_without_effect_is_refused(adapter, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the base's own weights"):
        merge(tiny_model, adapter(0), tmp_path / "merged", dtype="float32")


def test_an_effect_smaller_than_the_rounding_is_refused(adapter, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rounding to bfloat16 changes the logits by .* Set merge.dtype to float32"):
        merge(tiny_model, adapter(1e-5), tmp_path / "merged", dtype="bfloat16")


def test_logits_that_differ_too_much_are_refused(adapter, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"merged logits differ from base \+ adapter"):
        merge(tiny_model, adapter(0.1), tmp_path / "merged", dtype="float32", tolerance=1e-12)
