"""The training benchmark's arithmetic: what it makes of a watched process, its operations, its ratios."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import training

PARAMETERS = training.Parameters(layers=100, adapters=10, head=1000)


def sft_trace() -> list[dict]:
    validation = {"at": 1.0, "rows": 4, "positions": 400, "trains": False}
    step = [{"at": 10.0, "rows": 4, "positions": 50, "trains": True}, {"at": 12.0, "rows": 4, "positions": 30, "trains": True}]
    return [
        validation,
        *step,
        {"at": 15.0, "step": True},
        *({**event, "at": 16.0} for event in step),
        {"at": 18.0, "step": True},
    ]


SFT_LOG = [{"tokens": 60.0, "loss": 2.0}, {"tokens": 132.0, "loss": 1.0}]


def test_padding_share() -> None:
    assert training.padding_share(75, 100) == 0.25
    assert training.padding_share(100, 100) == 0


def test_flops_of_training() -> None:
    # Two tokens through frozen matrices (2 + 2) and adapters (2 + 2 + 2), one of them through the head (2 + 2).
    assert training.training_flops(PARAMETERS, tokens=2, scored=1) == 2 * (4 * 100 + 6 * 10) + 4 * 1000


def test_recomputation_costs_one_more_forward_pass_of_the_layers() -> None:
    once, twice = (training.training_flops(PARAMETERS, 5, 3, again) for again in (False, True))
    assert twice - once == 5 * 2 * (100 + 10)


def test_flops_of_rollouts() -> None:
    assert training.rollout_flops(PARAMETERS, tokens=7, sampled=3) == 7 * 2 * (100 + 10) + 3 * 2 * 1000


def test_parameters_of_a_model_with_a_tied_head() -> None:
    shapes = {
        "model.embed_tokens.weight": (50, 4),
        "model.layers.0.mlp.up_proj.weight": (12, 4),
        "model.layers.1.mlp.up_proj.weight": (12, 4),
        "model.layers.0.input_layernorm.weight": (4,),
        "model.norm.weight": (4,),
    }
    assert training.parameters_of(shapes, rank=2) == training.Parameters(layers=96, adapters=64, head=200)
    assert training.parameters_of(shapes | {"lm_head.weight": (60, 4)}, rank=2).head == 240


def test_a_ratio_above_one_means_that_ours_is_faster_and_is_taken_within_a_round() -> None:
    # The second round ran at half the machine's speed: the ratios do not change.
    assert training.ratio_summary([1, 2], [3, 6]) == {"median": 3, "lowest": 3, "highest": 3}
    assert training.ratio_summary([1, 1, 2], [2, 4, 2]) == {"median": 2, "lowest": 1, "highest": 4}


def test_rounds_must_match() -> None:
    with pytest.raises(ValueError, match="shorter"):
        training.ratio_summary([1, 2], [3])


def test_steps_of_sft_leave_the_validation_before_them_out() -> None:
    first, second = training.steps_of(sft_trace(), SFT_LOG)["steps"]
    assert (first["seconds"], second["seconds"]) == (5.0, 3.0)
    assert (first["tokens"], second["tokens"]) == (60, 72)
    assert first["positions"] == second["positions"] == 80
    assert first["rolled_out_positions"] == second["rolled_out_positions"] == 0


def test_steps_of_grpo_begin_with_their_rollouts() -> None:
    trace = [
        {"at": 1.0, "rows": 16, "positions": 160, "trains": False},
        {"at": 2.0, "rows": 16, "positions": 16, "trains": False},
        {"at": 5.0, "rows": 4, "positions": 48, "trains": True},
        {"at": 9.0, "step": True},
    ]
    log = [{"tokens": 170.0, "loss": 0.1, "reward": 0.5, "step_time": 7.9, "completions/mean_length": 1.5}]
    (step,) = training.steps_of(trace, log)["steps"]
    assert step["seconds"] == 8.0
    assert (step["rolled_out_positions"], step["rolled_out_rows"], step["positions"]) == (176, 32, 48)
    assert step["completion_tokens"] == 24


def test_a_step_that_was_not_seen_is_an_error() -> None:
    with pytest.raises(training.RunFailed, match="2 optimizer steps"):
        training.steps_of(sft_trace(), SFT_LOG[:1])


def test_figures_leave_the_first_step_out() -> None:
    variant = training.Variant("ours", training.own_sft, None, recomputes=False, scores_all=False)
    found = {"wall": 20.0, "busy": 2.0} | training.steps_of(sft_trace(), SFT_LOG)
    figures = training.figures_of(found, variant, PARAMETERS, {"fastest": 1e4}, scored_share=0.5)
    assert figures["tokens_per_second"] == 72 / 3
    assert figures["outside"] == 20 - 8
    assert figures["padding"] == 1 - 132 / 160
    assert figures["useful"] == training.training_flops(PARAMETERS, 72, 36) / 3 / 1e4


@pytest.mark.parametrize(("recomputes", "scores_all", "scored"), [(True, True, 80), (True, False, 36), (False, True, 80)])
def test_executed_operations_count_padding_recomputation_and_the_whole_head(
    recomputes: bool, scores_all: bool, scored: int
) -> None:
    variant = training.Variant("other", training.own_sft, "bfloat16", recomputes, scores_all)
    found = {"wall": 20.0, "busy": 2.0} | training.steps_of(sft_trace(), SFT_LOG)
    figures = training.figures_of(found, variant, PARAMETERS, {"bfloat16": 1e4}, scored_share=0.5)
    assert figures["executed"] == training.training_flops(PARAMETERS, 80, scored, recomputes) / 3 / 1e4


def test_both_sides_get_the_same_hyperparameters(tmp_path: Path) -> None:
    job = training.Job(tmp_path / "t", tmp_path / "v", tmp_path, tmp_path / "m", "float32", steps=4, threads=2)
    for own, trl, settings in (
        (training.own_sft, training.trl_sft, training.SFT),
        (training.own_grpo, training.trl_grpo, training.GRPO),
    ):
        ours, theirs = (list(map(str, command(job, tmp_path))) for command in (own, training.tuned(trl)))
        for name, value in settings.items():
            assert theirs[theirs.index(f"--{name}") + 1] == str(value)
            assert f'"{name}": ' in ours[ours.index("--settings") + 1]
        assert theirs[theirs.index("--lora_alpha") + 1] == str(training.LORA["lora_alpha"])
        assert theirs[-2:] == ["--dtype", "float32"]


def test_trl_at_its_defaults_is_told_nothing_of_number_formats(tmp_path: Path) -> None:
    job = training.Job(tmp_path / "t", tmp_path / "v", tmp_path, tmp_path / "m", "float32", steps=4, threads=2)
    for command in (training.trl_sft, training.trl_grpo):
        assert not {"--bf16", "--dtype", "--gradient_checkpointing"} & set(map(str, command(job, tmp_path)))
