"""The workflow on a GPU with CUDA: left out unless asked for (`make test-gpu`)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT, Project, copy_project, made_once, tiny_settings
from test_training_at_scale import KILL_AFTER_STEP

pytestmark = pytest.mark.gpu

GRPO = "results/demo/grpo/checkpoint/manifest.json"
ZERO2, ZERO2_OFFLOAD, ZERO3 = (f"config/deepspeed/{name}.json" for name in ("zero2", "zero2_offload", "zero3"))
IN_SYNC = 0.05
"""Largest healthy mean difference of log-probabilities in bfloat16; with weights of two steps before it is above 0.1."""

ON_THE_CARD = {rule: {"gpu": 1} for rule in ("train_sft", "train_grpo", "sample_for_audit", "generate_answers")}
AS_IN_PRODUCTION = {
    "sft": {"precision": "bfloat16"},
    "merge": {"dtype": "bfloat16"},
    "grpo": {
        "lora": None,
        "rollout": "vllm-colocate",
        "vllm_gpu_memory_utilization": 0.1,
        "precision": "bfloat16",
        "gradient_checkpointing": True,
        "launch": {"deepspeed": ZERO2_OFFLOAD},
    },
    "resources": ON_THE_CARD,
}


def run(project: Project, *arguments: str, check: bool = True, environment: dict[str, str] | None = None) -> None:
    """Runs snakemake with every core and one GPU."""
    more = ("--cores", str(os.cpu_count()), "--resources", "gpu=1")
    project.snakemake(*arguments, *more, check=check, environment=environment)


def facts(project: Project, stage: str) -> dict:
    return json.loads((project.results() / f"provenance/{stage}.json").read_text())["facts"]


def training_log(project: Project, stage: str = "grpo") -> list[dict]:
    return [json.loads(line) for line in (project.results() / stage / "training_log.jsonl").read_text().splitlines()]


def copy_of(project: Project, folder: Path) -> Project:
    """A copy with its results, to change at will."""
    shutil.copytree(project.folder, folder / "project", symlinks=True)
    return Project(folder / "project")


@pytest.fixture(scope="session")
def card() -> str:
    """The first GPU's name."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU with CUDA on this machine")
    return torch.cuda.get_device_name()


@pytest.fixture(scope="session")
def ran_as_in_production(card: str, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Project:
    """The whole pipeline with the settings that the production configuration has for one GPU, on a tiny model."""

    def make(folder: Path) -> None:
        copy = copy_project(folder)
        copy.configure(**tiny_settings(tiny_model))
        copy.configure(**AS_IN_PRODUCTION)
        run(copy)

    return Project(made_once(tmp_path_factory, "ran_as_in_production", make))


def test_the_whole_pipeline_as_in_production(ran_as_in_production: Project, card: str) -> None:
    """SFT, merge, audit, GRPO with DeepSpeed and vLLM, three models' answers, the report: on the card and in bfloat16."""
    for stage in ("train_sft", "train_grpo"):
        assert facts(ran_as_in_production, stage)["device"] == card
        assert facts(ran_as_in_production, stage)["dtype"] == "bfloat16"
    for model in ("base", "sft", "grpo"):
        assert facts(ran_as_in_production, f"generate_answers.{model}")["device"] == card
    entries = training_log(ran_as_in_production)
    assert [entry["step"] for entry in entries] == [1, 2, 3]
    for entry in entries:
        assert 0 < entry["sampling/sampling_logp_difference/mean"] < IN_SYNC
    losses = [entry["validation_loss"] for entry in training_log(ran_as_in_production, "sft") if "validation_loss" in entry]
    assert losses[-1] < losses[0] - 0.1
    assert (ran_as_in_production.results() / "report/index.html").exists()
    assert ran_as_in_production.jobs() == set()


@pytest.mark.parametrize(
    "settings",
    [
        {"launch": {"deepspeed": ZERO2}},
        {"launch": {"deepspeed": ZERO3}},
        {"launch": {"deepspeed": None}},
        {"vllm_enable_sleep_mode": True},
        {"lora": {"r": 4}, "learning_rate": 0.01, "launch": {"deepspeed": None}},
        {
            "lora": {"r": 4, "load_in_4bit": True},
            "learning_rate": 0.01,
            "rollout": "transformers",
            "launch": {"deepspeed": None},
        },
    ],
    ids=["zero2", "zero3", "without deepspeed", "sleep mode", "lora", "four bits"],
)
def test_grpo(ran_as_in_production: Project, card: str, tmp_path: Path, settings: dict) -> None:
    copy = copy_of(ran_as_in_production, tmp_path)
    copy.configure(grpo=settings)
    run(copy, "grpo")
    entries = training_log(copy)
    assert [entry["step"] for entry in entries] == [1, 2, 3]
    assert all(entry["grad_norm"] > 0 for entry in entries)
    if settings.get("rollout") != "transformers":
        assert max(entry["sampling/sampling_logp_difference/mean"] for entry in entries) < IN_SYNC


def test_sft_in_four_bits(ran_as_in_production: Project, card: str, tmp_path: Path) -> None:
    copy = copy_of(ran_as_in_production, tmp_path)
    copy.configure(sft={"lora": {"load_in_4bit": True}}, merge={"dtype": "float32"})
    run(copy, "merged")
    losses = [entry["validation_loss"] for entry in training_log(copy, "sft") if "validation_loss" in entry]
    assert losses[-1] < losses[0] - 0.1


def test_answers_by_vllm(ran_as_in_production: Project, card: str, tmp_path: Path) -> None:
    """Greedy answers of both engines to the same questions: most are the same text, though not every sum is rounded alike."""
    copy = copy_of(ran_as_in_production, tmp_path)
    table = copy.results() / "evaluation/sft/answers.parquet"
    by_transformers = pd.read_parquet(table).set_index("id")["answer"]
    copy.configure(evaluation={"generation": {"engine": "vllm", "gpu_memory_utilization": 0.1}})
    run(copy, "results/demo/evaluation/sft/answers.parquet")
    by_vllm = pd.read_parquet(table).set_index("id")["answer"]
    assert (by_vllm == by_transformers).mean() > 0.5


def test_a_killed_training_goes_on(ran_as_in_production: Project, card: str, tmp_path: Path) -> None:
    copy = copy_of(ran_as_in_production, tmp_path)
    copy.configure(grpo={"max_steps": 4})
    script = copy.folder / "kill" / "sitecustomize.py"
    script.parent.mkdir()
    script.write_text(KILL_AFTER_STEP)
    path = f"{script.parent}:{os.environ.get('PYTHONPATH', '')}"
    run(copy, GRPO, check=False, environment=os.environ | {"PYTHONPATH": path, "ECG_GRPO_TEST_KILL_AFTER_STEP": "3"})
    assert not (copy.folder / GRPO).exists()
    run(copy, GRPO)
    assert facts(copy, "train_grpo")["resumed_from_step"] == 2
    assert [entry["step"] for entry in training_log(copy)] == [1, 2, 3, 4]


def test_a_job_sees_one_gpu_and_none_is_lent_twice(card: str, tmp_path: Path) -> None:
    """The driver's own list of cards: a second job waits; who asks for more than there are is told."""
    script = ROOT / "workflow_scripts/take_gpus.sh"
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environment["TMPDIR"] = str(tmp_path)
    count = len(subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout.splitlines())

    def start(gpus: int, command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "-c", f"set -euo pipefail; . {script} {gpus}; {command}"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    seen, _ = start(1, 'python -c "import torch; print(torch.cuda.device_count())"').communicate(timeout=60)
    assert seen.split() == ["1"]
    holder = start(count, "echo holding; sleep 3")
    assert holder.stdout is not None
    assert holder.stdout.readline() == "holding\n"
    output, said = start(1, "echo mine").communicate(timeout=30)
    assert output == "mine\n"
    assert f"waiting for 1 free GPUs of {count}" in said
    refused = start(count + 1, "echo never")
    output, said = refused.communicate(timeout=30)
    assert refused.returncode == 1
    assert output == ""
    assert f"asks for {count + 1} GPUs and this machine has {count}" in said
