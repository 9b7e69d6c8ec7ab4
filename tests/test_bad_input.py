"""Whatever a user may give wrongly is refused before training, in one message, and leaves nothing half-written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import Project


def refusal(project: Project, *arguments: str) -> str:
    """What snakemake and the program said, after checking that the run failed and showed no traceback."""
    run = project.snakemake(*arguments, check=False)
    assert run.returncode != 0
    assert "Traceback" not in run.stderr + run.stdout
    assert not list(project.folder.rglob("*.partial*"))
    return run.stderr


def test_a_misspelt_key(project: Project) -> None:
    project.configure(grpo={"learnin_rate": 1e-5})
    message = refusal(project)
    assert "config/config.yaml: grpo.learnin_rate: no such key" in message


@pytest.mark.parametrize("sweep", ["", "sweep: {grpo.seed: [1, 2]}\n"], ids=["alone", "in a sweep"])
def test_a_key_that_is_written_twice(project: Project, sweep: str) -> None:
    (project.folder / "mine.yaml").write_text(f"grpo:\n  seed: 1\nsft: {{seed: 1}}\ngrpo:\n  beta: 0.1\n{sweep}")
    message = refusal(project, "--dry-run", "--configfile", "mine.yaml")
    (line,) = [line for line in message.splitlines() if line.startswith("configuration error: ")]
    assert "mine.yaml: grpo: the key is in line 1 and again in line 4, which would replace it. Make one" in line
    (project.folder / "mine.yaml").write_text(f"grpo:\n  lora: {{r: 8, r: 16}}\n{sweep}")
    message = refusal(project, "--dry-run", "--configfile", "mine.yaml")
    assert "mine.yaml: grpo.lora.r: the key is in line 2 and again in line 2" in message


def test_a_value_of_the_wrong_type(project: Project) -> None:
    project.configure(sft={"learning_rate": "fast"})
    assert "sft.learning_rate" in refusal(project)
    assert not (project.folder / "results/demo").exists()


def test_a_missing_raw_folder(project: Project) -> None:
    project.configure(data={"raw_dir": "no/such/folder"})
    message = refusal(project)
    assert "no/such/folder: this raw data folder does not exist" in message
    assert "data.raw_dir" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.system_prompt", "no/such.txt"),
        ("base_model.chat_template", "no/such.txt"),
        ("sft.launch.deepspeed", "no/such.txt"),
        ("grpo.launch.deepspeed", "no/such.txt"),
        ("reward_model.training.launch.deepspeed", "no/such.txt"),
        ("evaluation.ratings", ["README.md", "no/such.txt"]),
    ],
)
def test_a_missing_file_that_the_configuration_names(project: Project, key: str, value: object) -> None:
    for part in reversed(key.split(".")):
        value = {part: value}
    project.configure(**value)
    message = refusal(project, "--dry-run")
    assert message.splitlines()[-1].startswith(f"configuration error: {key}: no such file: no/such.txt. ")


def test_a_missing_system_prompt_of_models_that_reason(project: Project) -> None:
    project.configure(data={"system_prompt": "not/read.txt", "reasoning_system_prompt": "no/such.txt"})
    project.configure(reasoning=True, sft={"max_length": 1200})
    assert "configuration error: data.reasoning_system_prompt: no such file: no/such.txt" in refusal(project, "--dry-run")


def test_a_raw_file_under_another_name(project: Project) -> None:
    folder = project.folder / "resources/sample"
    (folder / "ECG Knowledge (Basic Q&A).json").rename(folder / "ECG Knowledge.json")
    message = refusal(project)
    assert "resources/sample/ECG Knowledge.json: not a file of ECG-Expert-QA" in message
    assert "ECG Knowledge (Basic Q&A).json" in message


def test_a_model_directory_without_weights(project: Project, tiny_model: Path) -> None:
    broken = project.folder / "broken"
    shutil.copytree(tiny_model, broken, ignore=shutil.ignore_patterns("*.safetensors"))
    project.configure(base_model={"path": "broken"})
    message = refusal(project)
    assert "broken: the model directory has no weights (*.safetensors)" in message


@pytest.mark.pipeline
@pytest.mark.parametrize("defect", ["half", "shape", "nul", "encoding"])
def test_a_raw_file_that_cannot_be_read(project: Project, defect: str) -> None:
    file = project.folder / "resources/sample/ECG Knowledge (Basic Q&A).json"
    text = file.read_text()
    rows = json.loads(text)
    if defect == "half":
        file.write_text(text[: len(text) // 2])
        expected = "not valid JSON at line"
    elif defect == "shape":
        file.write_text(json.dumps([{"question": row["Q"], "answer": row["A"]} for row in rows]))
        expected = "row 0: key 'Q': is missing (found: 'question', 'answer') (106 of 106 records cannot be read)"
    elif defect == "nul":
        file.write_text(text.replace("ECG", "E\0CG", 1))
        expected = "not valid JSON at line"
    else:
        file.write_bytes(text.replace("ECG", "ÉCG", 1).encode("latin-1", errors="replace"))
        expected = "not UTF-8 (byte "
    message = refusal(project)
    assert f"{file.relative_to(project.folder)}: " in message
    assert expected in message
    assert message.count(expected) == 1
    assert not list(project.results().glob("data/*"))
    assert not (project.results() / "sft").exists()


@pytest.mark.pipeline
def test_too_few_prompts_for_one_grpo_batch_are_refused_before_sft(project: Project) -> None:
    for file in project.folder.glob("resources/sample/*.json"):
        file.write_text(json.dumps(json.loads(file.read_text())[:12]))
    project.configure(
        data={"validation_fraction": 0.1, "test_fraction": 0.1},
        grpo={"per_device_train_batch_size": 8, "gradient_accumulation_steps": 100},
    )
    message = refusal(project)
    assert "data/train.parquet: the training split has" in message
    assert "one GRPO step takes 100" in message
    assert "grpo.gradient_accumulation_steps" in message
    assert not (project.results() / "sft").exists()


@pytest.mark.pipeline
def test_a_model_file_that_was_changed_behind_the_manifest(finished_copy: Project) -> None:
    weights = finished_copy.results() / "sft_model" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    finished_copy.configure(grpo={"learning_rate": 1e-4})
    message = refusal(finished_copy, "grpo")
    assert "sft_model/model.safetensors: the file is not the one that the manifest lists" in message
    assert not (finished_copy.results() / "grpo/checkpoint").exists() or not list(
        (finished_copy.results() / "grpo/checkpoint").glob("manifest.json")
    )
