"""Where a killed training goes on."""

from __future__ import annotations

import shutil
from argparse import Namespace
from pathlib import Path

import pytest
from conftest import ROOT

import train_grpo
from ecg_grpo.checkpoints import COMPLETE, last_checkpoint, mark_complete, remove_checkpoints_after, scratch_directory
from ecg_grpo.settings.grpo import GRPOSettings, ValidationSettings

PROGRAM = ROOT / "workflow_scripts/train_grpo.py"


def checkpoint(scratch: Path, step: int, damage: str | None = None) -> Path:
    folder = scratch / f"checkpoint-{step}"
    (folder / "global_step").mkdir(parents=True)
    for name in ("adapter_model.safetensors", "optimizer.pt", "global_step/shard.pt"):
        (folder / name).write_bytes(b"weights" * 10)
    if damage != "killed before the end":
        mark_complete(folder)
    if damage == "cut":
        (folder / "optimizer.pt").write_bytes(b"weights")
    if damage == "lost":
        (folder / "global_step/shard.pt").unlink()
    if damage == "mark cut":
        (folder / COMPLETE).write_text((folder / COMPLETE).read_text()[:20])
    return folder


@pytest.mark.parametrize(
    ("damages", "expected"),
    [
        ({}, None),
        ({4: None}, 4),
        ({4: None, 8: None}, 8),
        ({4: None, 8: "killed before the end"}, 4),
        ({4: None, 8: "cut"}, 4),
        ({4: None, 8: "lost"}, 4),
        ({4: None, 8: "mark cut"}, 4),
        ({4: "cut", 8: "lost"}, None),
        ({4: None, 10: None}, 4),  # the end itself: going on from there would train too far
        ({10: None}, None),
    ],
)
def test_the_last_whole_checkpoint_before_the_end_counts(tmp_path: Path, damages: dict, expected: int | None) -> None:
    for step, damage in damages.items():
        checkpoint(tmp_path, step, damage)
    found = last_checkpoint(tmp_path, 10)
    assert found == (tmp_path / f"checkpoint-{expected}" if expected else None)
    remove_checkpoints_after(tmp_path, found)
    assert {int(folder.name.split("-")[1]) for folder in tmp_path.iterdir()} == {
        step for step in damages if step <= (expected or 0)
    }


def test_scratch_belongs_to_settings_number_format_and_inputs(tmp_path: Path) -> None:
    file = tmp_path / "input"
    file.write_text("one")
    first = scratch_directory(tmp_path / "scratch", PROGRAM, "{}", "float32", [file])
    assert scratch_directory(tmp_path / "scratch", PROGRAM, "{}", "float32", [file]) == first
    others = [
        scratch_directory(tmp_path / "scratch", PROGRAM, '{"a": 1}', "float32", [file]),
        scratch_directory(tmp_path / "scratch", PROGRAM, "{}", "bfloat16", [file]),
    ]
    file.write_text("two")
    others.append(scratch_directory(tmp_path / "scratch", PROGRAM, "{}", "float32", [file]))
    assert len({first, *others}) == 4
    assert list((tmp_path / "scratch").iterdir()) == [others[-1]], "what a changed training left is removed"


def test_checkpoints_of_a_training_that_validates_belong_to_what_the_metrics_code_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "workflow_scripts/ecg_grpo", tmp_path / "scripts/ecg_grpo")
    (tmp_path / "resources").symlink_to(ROOT / "resources")
    monkeypatch.setattr(train_grpo, "METRICS_MODULE", tmp_path / "scripts/ecg_grpo/metrics.py")
    arguments = Namespace(settings="{}", reward="{}")
    validating = GRPOSettings(validation=ValidationSettings(eval_steps=50))
    alone, before = (train_grpo.what_it_is_told(arguments, settings) for settings in (GRPOSettings(), validating))
    for name, added, changes in (("metrics", "# why\n", False), ("meteor", "# why\n", False), ("meteor", "x = 1\n", True)):
        file = tmp_path / f"scripts/ecg_grpo/{name}.py"
        file.write_text(file.read_text() + added)
        assert (train_grpo.what_it_is_told(arguments, validating) != before) is changes, (name, added)
    assert train_grpo.what_it_is_told(arguments, GRPOSettings()) == alone
