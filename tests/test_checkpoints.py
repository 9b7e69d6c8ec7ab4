"""Where a killed training goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import ROOT

from ecg_grpo.checkpoints import scratch_directory
from ecg_grpo.stage import Stage

PROGRAM = ROOT / "workflow_scripts/train_grpo.py"


def checkpoint(scratch: Path, step: int, state: str | None = None) -> Path:
    folder = scratch / f"checkpoint-{step}"
    folder.mkdir()
    if state != "none":
        (folder / "trainer_state.json").write_text(state or json.dumps({"global_step": step}))
    return folder


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({}, None),
        ({4: None}, 4),
        ({4: None, 8: None}, 8),
        ({4: None, 8: "none"}, 4),  # killed before the trainer wrote its state
        ({4: None, 8: '{"glob'}, 4),  # killed while it did
        ({4: None, 10: None}, 4),  # the end itself: going on from there would train too far
        ({10: None}, None),
    ],
)
def test_the_last_whole_checkpoint_before_the_end_counts(tmp_path: Path, states: dict, expected: int | None) -> None:
    from ecg_grpo.training import resume_point

    for step, state in states.items():
        checkpoint(tmp_path, step, state)
    stage = Stage("test", 1, None)
    found = resume_point(tmp_path, 10, stage)
    assert found == (str(tmp_path / f"checkpoint-{expected}") if expected else None)
    assert stage.facts.get("resumed_from_step") == expected
    assert all(int(folder.name.split("-")[1]) <= (expected or 0) for folder in tmp_path.iterdir())


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
