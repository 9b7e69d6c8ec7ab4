"""What the project adds to TRL's GRPO trainer: groups without spread are mended, padding is saved, samples are the policy's."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytestmark = pytest.mark.pipeline

SIZE = 4


def completion_length(completions: list, flat: list[bool], **_: Any) -> list[float]:
    """The number of characters, or nothing for the prompts that are marked."""
    return [
        0.5 if no_spread else len(completion[0]["content"]) / 100
        for completion, no_spread in zip(completions, flat, strict=True)
    ]


def make_trainer(model: Path, folder: Path, mode: str | None, rounds: int = 2, steps: int = 4) -> Any:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig

    from ecg_grpo.policy_trainer import PolicyTrainer

    torch.set_num_threads(1)
    rows = [
        {"prompt": [{"role": "user", "content": f"Question {index}?"}], "flat": index % 2 == 0, "index": index}
        for index in range(16)
    ]
    return PolicyTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(model),
        reward_funcs=[completion_length],
        train_dataset=Dataset.from_list(rows),
        args=GRPOConfig(
            output_dir=str(folder),
            use_cpu=True,
            max_steps=steps,
            per_device_train_batch_size=SIZE,
            gradient_accumulation_steps=2,
            num_generations=SIZE,
            max_completion_length=12,
            learning_rate=1e-3,
            logging_steps=1,
            log_completions=True,
            num_completions_to_print=0,
            report_to="none",
            save_strategy="no",
            bf16=False,
            disable_tqdm=True,
        ),
        dynamic_sampling=mode,
        rounds=rounds,
    )


def train(*arguments: Any, **options: Any) -> Any:
    trainer = make_trainer(*arguments, **options)
    trainer.train()
    return trainer


def figures(trainer: Any) -> pd.DataFrame:
    return pd.DataFrame([entry for entry in trainer.state.log_history if "reward" in entry])


def completions(folder: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(file) for file in sorted((folder / "completions").glob("*.parquet"))])


def test_flat_groups_are_replaced_by_others(tiny_model: Path, tmp_path: Path) -> None:
    trainer = train(tiny_model, tmp_path, "replace")
    log = figures(trainer)
    assert log["dynamic_sampling/groups_without_spread"].sum() > 0, "the data should have given some"
    assert log["dynamic_sampling/groups_left"].sum() < log["dynamic_sampling/groups_without_spread"].sum()
    # What is logged of rewards is of the first draw.
    assert (log["frac_reward_zero_std"] == log["dynamic_sampling/groups_without_spread"]).all()
    assert (log["dynamic_sampling/extra_completions"] % SIZE == 0).all()
    # What is logged of completions is what the step was trained on: as many groups without spread as are left.
    for step, rows in completions(tmp_path).groupby("step"):
        assert len(rows) == 2 * SIZE
        flat = rows["advantage"].to_numpy().reshape(-1, SIZE)
        left = log.set_index("step").loc[step, "dynamic_sampling/groups_left"]
        assert (abs(flat) < 5e-3).all(axis=1).mean() == left
        prompts = rows["prompt"].astype(str).to_numpy().reshape(-1, SIZE)
        assert all(len(set(group)) == 1 for group in prompts), "a group is of one prompt"


def test_redrawing_a_prompt_that_cannot_differ_ends_after_its_rounds(tiny_model: Path, tmp_path: Path) -> None:
    log = figures(train(tiny_model, tmp_path, "redraw", rounds=3))
    flat = log["dynamic_sampling/groups_without_spread"]
    assert flat.sum() > 0
    assert (log["dynamic_sampling/groups_left"] == flat).all()
    assert (log["dynamic_sampling/extra_completions"] == flat * 2 * SIZE * 3).all()


def test_without_flat_groups_the_training_is_the_same(tiny_model: Path, tmp_path: Path) -> None:
    """A step that needs no mending is the plain trainer's: the first one, and every one up to the first flat group."""
    plain, mended = figures(train(tiny_model, tmp_path / "a", None)), figures(train(tiny_model, tmp_path / "b", "redraw"))
    assert "dynamic_sampling/extra_completions" not in plain
    first = int((mended["dynamic_sampling/extra_completions"] > 0).to_numpy().argmax())
    for name in ("reward", "loss", "grad_norm", "completions/mean_length"):
        assert plain[name][: first + 1].tolist()[:first] == mended[name][: first + 1].tolist()[:first]
    assert plain["reward"][first] == mended["reward"][first], "the first draw is the same, mended or not"


def test_two_trainings_are_equal(tiny_model: Path, tmp_path: Path) -> None:
    one, two = (figures(train(tiny_model, tmp_path / name, "replace")) for name in ("a", "b"))
    for name in ("reward", "loss", "grad_norm", "dynamic_sampling/extra_completions"):
        assert one[name].tolist() == two[name].tolist()


def test_a_models_generation_config_does_not_decide_how_rollouts_are_sampled(tiny_model: Path, tmp_path: Path) -> None:
    """Llama's own says temperature 0.6 and top_p 0.9; this one says greedy in three ways."""
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    file = model / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"do_sample": False, "top_k": 1, "top_p": 0.01}))
    train(model, tmp_path / "out", None, steps=1)
    rows = completions(tmp_path / "out")
    assert rows["completion"].astype(str).nunique() == len(rows)


def batch(rows: int, prompt: int, completion: int, value: int) -> dict[str, Any]:
    import torch

    return {
        "prompt_ids": torch.full((rows, prompt), value),
        "prompt_mask": torch.ones(rows, prompt, dtype=torch.long),
        "completion_ids": torch.full((rows, completion), value),
        "completion_mask": torch.ones(rows, completion, dtype=torch.long),
        "advantages": torch.full((rows,), float(value)),
        "importance_sampling_ratio": torch.full((rows, 1), float(value)),
        "old_per_token_logps": torch.full((rows, completion), float(value)),
        "num_items_in_batch": torch.tensor(rows * completion),
    }


@pytest.mark.parametrize(("prompt", "completion"), [(3, 5), (6, 2), (3, 2), (6, 5), (4, 3)])
def test_replaced_groups_keep_their_tokens_whatever_their_lengths(prompt: int, completion: int) -> None:
    from ecg_grpo.policy_trainer import replace_groups

    old, fresh = batch(6, 4, 3, value=1), batch(4, prompt, completion, value=2)
    result = replace_groups(old, fresh, {2: 1}, size=2, pad_token=0)
    for row in range(6):
        expected, lengths = (2, (prompt, completion)) if row >= 4 else (1, (4, 3))
        for part, length in zip(("prompt", "completion"), lengths, strict=True):
            mask = result[f"{part}_mask"][row].bool()
            assert mask.sum() == length
            assert (result[f"{part}_ids"][row][mask] == expected).all()
            assert (result[f"{part}_ids"][row][~mask] == 0).all()
        assert result["prompt_mask"][row].tolist() == sorted(result["prompt_mask"][row].tolist()), "padding stands left"
        assert result["completion_mask"][row].tolist() == sorted(result["completion_mask"][row].tolist(), reverse=True)
        assert result["advantages"][row] == expected
        assert result["old_per_token_logps"].shape == result["completion_ids"].shape
    assert old["prompt_ids"].shape == (6, 4), "the batch that was given is left alone"


def test_a_rounding_error_is_no_spread() -> None:
    import torch

    from ecg_grpo.policy_trainer import groups_without_spread

    rewards = torch.tensor([[0.3] * 7 + [math.nextafter(0.3, 1)], [0.3] * 7 + [0.301]], dtype=torch.float32)
    advantages = (rewards - rewards.mean(dim=1, keepdim=True)) / (rewards.std(dim=1, keepdim=True) + 1e-4)
    assert groups_without_spread(advantages.flatten(), 8, 5e-3) == [0]


@pytest.mark.parametrize("by_prompt", [False, True])
def test_sorting_by_length_keeps_every_completion_and_saves_padding(by_prompt: bool) -> None:
    import torch

    from ecg_grpo.policy_trainer import sort_by_length

    generator = torch.Generator().manual_seed(0)
    batches, expected = [], []
    for _ in range(4):
        prompt_length = torch.randint(1, 8, (4,), generator=generator)
        length = torch.randint(1, 10, (4,), generator=generator)
        ids = torch.randint(5, 99, (4, 9), generator=generator)
        batches.append(
            {
                "prompt_ids": torch.stack([torch.tensor([0] * (7 - n) + [int(n)] * n) for n in prompt_length]),
                "prompt_mask": torch.stack([torch.tensor([0] * (7 - n) + [1] * n) for n in prompt_length]),
                "completion_ids": ids,
                "completion_mask": (torch.arange(9) < length[:, None]).long(),
                "advantages": torch.rand(4, generator=generator),
                "importance_sampling_ratio": torch.rand(4, 1, generator=generator),
                "num_items_in_batch": torch.tensor(77),
            }
        )
        expected += [(int(n), ids[row, : length[row]].tolist()) for row, n in enumerate(prompt_length)]
    result = sort_by_length(batches, by_prompt)
    found = []
    for batch in result:
        assert batch["num_items_in_batch"] == 77
        for row in range(4):
            mask = batch["completion_mask"][row].bool()
            prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
            found.append((len(prompt), batch["completion_ids"][row][mask].tolist()))
    assert sorted(found) == sorted(expected)
    pairs = [
        sorted(
            (float(batch["advantages"][row]), float(batch["importance_sampling_ratio"][row]))
            for batch in some
            for row in range(4)
        )
        for some in (batches, result)
    ]
    assert pairs[0] == pairs[1], "rows stay together"
    size = [sum(batch["prompt_ids"].numel() + batch["completion_ids"].numel() for batch in some) for some in (batches, result)]
    assert size[1] < size[0]
    if by_prompt:  # a prompt here is its length, repeated
        assert [length for length, _ in found] == sorted((length for length, _ in found), reverse=True)
