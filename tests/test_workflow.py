"""Targets, optional stages, what a configuration changes, and that a killed training goes on where it stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest
from conftest import CORES, Project

from ecg_grpo.files import sha256_of
from ecg_grpo.tables import read_rows

pytestmark = pytest.mark.pipeline

AFTER_GRPO = {
    *("merge_grpo_checkpoint", "generate_answers", "score_answers", "score_as_ecg_bench", "check_contamination"),
    *("compare_models", "make_report"),
}
AFTER_AUDIT = AFTER_GRPO | {"audit_reward", "require_sound_reward", "train_grpo"}


def test_a_finished_run_has_nothing_to_do(finished: Project) -> None:
    assert finished.jobs() == set()


def test_the_metrics_code_belongs_to_grpo_only_where_it_validates(finished_copy: Project) -> None:
    finished_copy.configure(grpo={"validation": {"eval_steps": 2, "prompts": 8, "per_device_eval_batch_size": 8}})
    finished_copy.snakemake("results/demo/grpo/checkpoint/manifest.json")
    assert finished_copy.jobs("results/demo/grpo/checkpoint/manifest.json") == set()
    imported = finished_copy.folder / "workflow_scripts/ecg_grpo/meteor.py"
    text = imported.read_text()
    imported.write_text(text + "_UNUSED = 1\n")
    assert finished_copy.jobs("results/demo/grpo/checkpoint/manifest.json") == {"train_grpo"}
    imported.write_text(text)
    code = '_ROUGE["rougeL"].score(reference, prediction)["rougeL"].fmeasure'
    finished_copy.edit("workflow_scripts/ecg_grpo/metrics.py", code, "0.0")
    assert finished_copy.jobs("results/demo/grpo/checkpoint/manifest.json") == {"train_grpo"}


def test_the_difficulty_filter_stands_between_sft_and_grpo(finished_copy: Project) -> None:
    finished_copy.configure(
        difficulty_filter={"enabled": True, "samples": 2, "min_reward": 0.0, "min_spread": 0.0, "max_completion_length": 8}
    )
    assert finished_copy.jobs() == {"filter_prompts", "train_grpo"} | AFTER_GRPO
    finished_copy.snakemake("results/demo/grpo/checkpoint/manifest.json")
    finished_copy.configure(reward={"weights": {"chrf": 0.25}})
    assert finished_copy.jobs("results/demo/grpo/checkpoint/manifest.json") == {
        *("filter_prompts", "audit_reward", "require_sound_reward", "train_grpo")
    }
    finished_copy.configure(reward={"weights": {"chrf": 0.5}}, grpo={"gradient_accumulation_steps": 2})
    assert finished_copy.jobs("results/demo/grpo/checkpoint/manifest.json") == {"train_grpo"}


def test_the_reward_model_stands_between_data_and_the_rewards_that_use_it(finished_copy: Project) -> None:
    trained = {"sample_for_reward_model", "make_preference_pairs", "train_reward_model"}
    finished_copy.configure(reward_model={"enabled": True})
    assert finished_copy.jobs() == trained | {"make_report"}
    finished_copy.configure(
        reward={"weights": {"reward_model": 0.5}},
        reward_model={"enabled": False, "training": {"max_steps": 2, "evaluations": 1, "validation_pairs": 8}},
        reward_audit={"audit": {"max_beating_reference": 1.0, "max_beating_paraphrase": 1.0}},  # two steps teach nothing
    )
    assert finished_copy.jobs() == trained | AFTER_AUDIT
    checkpoint = "results/demo/grpo/checkpoint/manifest.json"
    finished_copy.snakemake(checkpoint)
    paid = [row["reward_model"] for row in read_rows(finished_copy.results() / "grpo/completions.parquet", "reward_model")]
    assert all(0 <= value <= 1 for value in paid)
    assert len(set(paid)) > 1
    finished_copy.configure(reward={"weights": {"reward_model": 0.25}})
    assert finished_copy.jobs(checkpoint) == {"audit_reward", "require_sound_reward", "train_grpo"}
    finished_copy.configure(reward_model={"training": {"learning_rate": 2e-4}})
    assert "train_reward_model" in finished_copy.jobs(checkpoint)
    finished_copy.configure(reward={"weights": {"reward_model": None}})
    assert not trained & finished_copy.jobs(checkpoint)


def test_what_a_run_needs_is_configured_and_reruns_nothing(finished_copy: Project) -> None:
    finished_copy.configure(resources={"train_grpo": {"mem_mb": 9000, "runtime": 30, "gpu": 1}})
    assert finished_copy.jobs() == set()
    plan = finished_copy.snakemake("--dry-run", "-p", "--forcerun", "train_grpo", "train_sft").stdout
    assert "take_gpus.sh 1 1;" in next(line for line in plan.splitlines() if "train_grpo.py" in line)
    assert "take_gpus.sh 0 1;" in next(line for line in plan.splitlines() if "train_sft.py" in line)


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"train_gpro": {"gpu": 1}}, "resources: no such rule: train_gpro"),
        ({"score_answers": {"gpu": 1}}, "resources.score_answers.gpu: this rule computes without a GPU"),
        ({"train_grpo": {"memory": 1}}, "resources.train_grpo.memory: no such key"),
    ],
)
def test_resources_that_cannot_be_are_refused(project: Project, resources: dict, message: str) -> None:
    project.configure(resources=resources)
    run = project.snakemake("-n", check=False)
    assert run.returncode == 1
    assert f"configuration error: {message}" in run.stderr.replace("config/config.yaml: ", "")


def test_named_targets_stop_where_they_say(project: Project) -> None:
    first = {"fetch_base_model", "prepare_data"}
    through_sft = first | {"train_sft"}
    audited = {"sample_for_audit", "audit_reward", "require_sound_reward"}
    through_grpo = through_sft | {"merge_sft_adapter", "train_grpo", "merge_grpo_checkpoint"} | audited
    expected = {
        "data": first | {"make_data_report"},
        "sft": through_sft,
        "merged": through_sft | {"merge_sft_adapter"},
        "reward_model": through_sft
        | {"merge_sft_adapter", "sample_for_reward_model", "make_preference_pairs", "train_reward_model"},
        "grpo": through_grpo,
        "export_ecg_bench": through_grpo,
        "export_gguf": through_grpo,
        "export_verl": through_sft | {"merge_sft_adapter"},
        "evaluation": through_grpo
        | {"generate_answers", "generate_baselines", "score_answers", "check_contamination", "compare_models"},
    }
    for target, rules in expected.items():
        assert project.jobs(target) - {target} == rules, target


def test_reasonings_are_written_only_where_models_reason(project: Project) -> None:
    assert "bootstrap_reasoning" not in project.jobs()
    project.configure(reasoning=True)
    assert "configuration error" in project.snakemake("-n", check=False).stderr, "a record may have become too long for SFT"
    project.configure(sft={"max_length": 1200})
    assert project.jobs("sft") - {"sft"} == {"fetch_base_model", "prepare_data", "bootstrap_reasoning", "train_sft"}
    plan = project.snakemake("-n", "-p").stdout
    assert "--system-prompt resources/prompts/system_reasoning.txt" in plan
    assert "--reasonings results/demo/reasoning/train.parquet results/demo/reasoning/validation.parquet" in plan
    assert plan.count('"reasoning": true') == 2, "of audit and GRPO"
    assert plan.count("--model results/demo/base_model/manifest.json --prompt") == 2
    project.configure(bootstrap_reasoning={"model": "nowhere"})
    assert "bootstrap_reasoning.model" in project.snakemake("-n", check=False).stderr


def test_raw_files_are_fetched_only_where_no_folder_is_named(project: Project) -> None:
    assert "fetch_raw_data" not in project.jobs("data")
    project.configure(data={"raw_dir": None}, raw_data={"files": ["EBK", "PRTK"]})
    assert project.jobs("data") - {"data"} == {"fetch_base_model", "fetch_raw_data", "prepare_data", "make_data_report"}
    plan = project.snakemake("data", "-n", "-p").stdout
    assert "'results/demo/raw/ECG Knowledge (Basic Q&A).json'" in plan
    assert "Cardiology Knowledge" not in plan


def test_an_overlay_changes_only_what_it_names(project: Project) -> None:
    overlay = project.folder / "overlay.yaml"
    overlay.write_text("run: other\ngrpo:\n  learning_rate: 0.5\n")
    plan = project.snakemake("grpo", "-n", "-p", "--configfile", "overlay.yaml").stdout
    assert '"learning_rate": 0.5' in plan
    assert '"max_steps": 3' in plan
    assert "results/other/grpo/checkpoint/manifest.json" in plan


def test_a_killed_training_goes_on_from_its_checkpoint(finished: Project, finished_copy: Project) -> None:
    """SIGKILL in the middle of GRPO; the next snakemake resumes and ends with the unbroken run's weights."""
    for name in ("grpo", "grpo_model"):
        for file in sorted((finished_copy.results() / name).rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
    running = subprocess.Popen(
        ["snakemake", "--cores", CORES, "results/demo/grpo/checkpoint/manifest.json"],
        cwd=finished_copy.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list(finished_copy.results().glob("scratch/train_grpo-*/checkpoint-2/trainer_state.json")):
        assert time.monotonic() < deadline, "no checkpoint appeared"
        assert running.poll() is None, "the run ended before it could be killed"
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    finished_copy.snakemake("--unlock")
    finished_copy.snakemake("grpo")
    provenance = json.loads((finished_copy.results() / "provenance" / "train_grpo.json").read_text())
    assert provenance["facts"]["resumed_from_step"] == 2
    for name in ("grpo/checkpoint/manifest.json", "grpo/completions.parquet", "grpo_model/manifest.json"):
        assert sha256_of(finished_copy.results() / name) == sha256_of(finished.results() / name), name
    steps = [
        json.loads(line)["step"] for line in (finished_copy.results() / "grpo/training_log.jsonl").read_text().splitlines()
    ]
    assert steps == [1, 2, 3]
