"""DeepSpeed, vLLM rollouts and several processes: the real ones, on a processor, through Snakemake."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Project
from safetensors.torch import load_file

from ecg_grpo.files import model_directory, sha256_of

pytestmark = [pytest.mark.pipeline, pytest.mark.vllm]

SFT = "results/demo/sft/checkpoint/manifest.json"
GRPO = "results/demo/grpo/checkpoint/manifest.json"
ZERO2, ZERO3 = (f"config/deepspeed/zero{stage}.json" for stage in (2, 3))
IN_SYNC = 0.01
"""Largest healthy mean difference of log-probabilities; without synchronisation it is above 0.1 within two steps."""


def training_log(project: Project, stage: str) -> list[dict]:
    return [json.loads(line) for line in (project.results() / stage / "training_log.jsonl").read_text().splitlines()]


def weights(project: Project, manifest: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in model_directory(project.folder / manifest).glob("*.safetensors"):
        found |= load_file(file)
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {"rollout": "vllm-colocate", "lora": None},
        {"rollout": "vllm-colocate"},
        {"lora": None, "launch": {"processes": 2, "deepspeed": ZERO2}},
        {"launch": {"deepspeed": ZERO3}},
        {"rollout": "vllm-colocate", "lora": None, "launch": {"processes": 2, "deepspeed": ZERO3}},
    ],
    ids=["vllm full", "vllm lora", "zero2 full, two processes", "zero3 lora", "zero3 vllm full, two processes"],
)
def test_grpo(finished_copy: Project, vllm_environment: dict[str, str], settings: dict) -> None:
    finished_copy.configure(grpo={"learning_rate": 1e-3, **settings})
    finished_copy.snakemake(GRPO, environment=vllm_environment)
    entries = training_log(finished_copy, "grpo")
    assert [entry["step"] for entry in entries] == [1, 2, 3]
    trained = weights(finished_copy, GRPO)
    start = weights(finished_copy, "results/demo/sft_model/manifest.json")
    if settings.get("lora", "") is None:
        assert trained.keys() >= start.keys() - {"lm_head.weight"}
        assert any(not torch.equal(trained[name].float(), start[name].float()) for name in start)
    else:
        assert any(name.endswith("lora_B.weight") and array.any() for name, array in trained.items())
    if settings.get("rollout"):
        for entry in entries:
            assert 0 < entry["sampling/sampling_logp_difference/mean"] < IN_SYNC
    processes = settings.get("launch", {}).get("processes", 1)
    logs = {file.name for file in (finished_copy.results() / "logs").glob("train_grpo.rank*.log")}
    assert logs == {f"train_grpo.rank{rank}.log" for rank in range(1, processes)}
    # Merging takes what came out, whichever way it was trained.
    finished_copy.snakemake("grpo", environment=vllm_environment)


@pytest.mark.parametrize(
    "settings",
    [{"launch": {"processes": 2, "deepspeed": ZERO2}}, {"lora": None, "learning_rate": 1e-3, "launch": {"deepspeed": ZERO3}}],
    ids=["zero2 lora, two processes", "zero3 full"],
)
def test_sft(finished_copy: Project, vllm_environment: dict[str, str], settings: dict) -> None:
    finished_copy.configure(sft=settings)
    finished_copy.snakemake("merged", environment=vllm_environment)
    losses = [entry["validation_loss"] for entry in training_log(finished_copy, "sft") if "validation_loss" in entry]
    assert losses[-1] < losses[0] - 0.1


def test_two_processes_train_as_one_does(finished: Project, finished_copy: Project) -> None:
    """Half the accumulation in each of two processes is the same batch: the first step's loss is the same number."""
    finished_copy.configure(sft={"gradient_accumulation_steps": 1, "train_sampling_strategy": "random"})
    finished_copy.snakemake(SFT)
    one = training_log(finished_copy, "sft")
    finished_copy.configure(sft={"per_device_train_batch_size": 8, "launch": {"processes": 2}})
    finished_copy.snakemake(SFT)
    two = training_log(finished_copy, "sft")
    assert [entry["step"] for entry in two] == [entry["step"] for entry in one]
    assert two[0]["validation_loss"] == pytest.approx(one[0]["validation_loss"], rel=0.02)
    assert two[-1]["validation_loss"] == pytest.approx(one[-1]["validation_loss"], rel=0.02)


def test_a_killed_run_with_zero_and_vllm_goes_on(finished_copy: Project, vllm_environment: dict[str, str]) -> None:
    """The last checkpoint is taken away as a kill before it would have: the rest is trained again, to the same weights."""
    finished_copy.configure(
        grpo={"rollout": "vllm-colocate", "lora": None, "max_steps": 4, "launch": {"deepspeed": ZERO2}, "save_steps": 2}
    )
    stop_after = {**vllm_environment, "ECG_GRPO_TEST_KILL_AFTER_STEP": "3"}
    script = finished_copy.folder / "kill" / "sitecustomize.py"
    script.parent.mkdir()
    script.write_text(KILL_AFTER_STEP)
    stop_after["PYTHONPATH"] = str(script.parent)
    broken = finished_copy.snakemake(GRPO, check=False, environment=stop_after)
    assert broken.returncode != 0
    assert list(finished_copy.results().glob("scratch/train_grpo-*/checkpoint-2/complete.json"))
    finished_copy.snakemake(GRPO, environment=vllm_environment)
    facts = json.loads((finished_copy.results() / "provenance/train_grpo.json").read_text())["facts"]
    assert facts["resumed_from_step"] == 2
    resumed, entries = sha256_of(finished_copy.folder / GRPO), training_log(finished_copy, "grpo")
    finished_copy.forget("grpo", "scratch")
    finished_copy.snakemake(GRPO, environment=vllm_environment)
    assert [entry["reward"] for entry in training_log(finished_copy, "grpo")] == [entry["reward"] for entry in entries]
    assert sha256_of(finished_copy.folder / GRPO) == resumed


KILL_AFTER_STEP = '''
"""Kills this process, as SIGKILL does, when the training log gets the line of a step."""
import os, sys

def watch(event, arguments):
    if event == "open" and str(arguments[0]).endswith("training_log.jsonl") and arguments[1] == "a":
        with open(arguments[0]) as lines:
            if sum(1 for _ in lines) == int(os.environ["ECG_GRPO_TEST_KILL_AFTER_STEP"]):
                os.kill(os.getpid(), 9)

if any("train_" in argument for argument in sys.orig_argv):
    sys.addaudithook(watch)
'''


def test_the_sync_guard_trips_when_weights_stay_behind(finished_copy: Project, vllm_environment: dict[str, str]) -> None:
    """The same run as `vllm full` above, on which the guard is quiet, but with the synchronisation taken out."""
    finished_copy.configure(grpo={"rollout": "vllm-colocate", "lora": None, "max_steps": 8})
    script = finished_copy.folder / "stale" / "sitecustomize.py"
    script.parent.mkdir()
    script.write_text(NEVER_SYNCHRONISE)
    run = finished_copy.snakemake(GRPO, check=False, environment={**vllm_environment, "PYTHONPATH": str(script.parent)})
    assert run.returncode != 0
    assert "sampling_logp_difference" in run.stderr
    assert "grpo.guards.max_sampling_logp_difference" in run.stderr
    assert "Traceback" not in run.stderr
    assert not (finished_copy.folder / GRPO).exists()


NEVER_SYNCHRONISE = '''
"""Takes the synchronisation of weights out of TRL as soon as it is imported."""
import sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name != "trl.generation.vllm_generation":
            return None
        sys.meta_path.remove(self)
        import importlib.util
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        def exec_module(module):
            execute(module)
            module.VLLMGeneration.sync_weights = lambda self: None
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
'''


def test_two_machines_of_a_slurm_job(finished_copy: Project, tmp_path: Path) -> None:
    """The command that the rule uses, with stand-ins for `srun` and `scontrol` that start both shares on this host."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in {"srun": SRUN, "scontrol": "#!/bin/sh\necho 127.0.0.1\n"}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(stat.S_IRWXU)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_ID": str(port - 20000 if port >= 20000 else port)}
    finished_copy.configure(grpo={"launch": {"processes": 2, "machines": 2}})
    finished_copy.snakemake(GRPO, environment=os.environ | job | {"PATH": f"{commands}:{os.environ['PATH']}"})
    assert [entry["step"] for entry in training_log(finished_copy, "grpo")] == [1, 2, 3]
    assert (finished_copy.results() / "logs/train_grpo.rank1.log").exists()


SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do case $1 in --nodes|--ntasks|--ntasks-per-node|--cpus-per-task) shift 2;; *) shift;; esac; done
export SLURM_JOB_NODELIST='node[1-2]' # srun itself sets it for what it starts
SLURM_NODEID=0 "$@" & first=$!
SLURM_NODEID=1 "$@" & second=$!
wait $first && wait $second
"""


def test_vllm_in_another_environment_is_asked_for_in_one_line(finished_copy: Project) -> None:
    finished_copy.configure(grpo={"rollout": "vllm-colocate", "lora": None})
    if shutil.which("vllm"):
        pytest.skip("vLLM is in the main environment")
    run = finished_copy.snakemake(GRPO, check=False)
    assert run.returncode != 0
    assert "envs/train_vllm.yaml" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_vllm_server_without_a_gpu_is_refused_in_one_line(finished_copy: Project) -> None:
    finished_copy.configure(grpo={"rollout": "vllm-server", "lora": None})
    run = finished_copy.snakemake(GRPO, check=False)
    assert run.returncode != 0
    assert "vllm-server needs CUDA GPUs" in run.stderr
    assert "Traceback" not in run.stderr


def test_every_trainer_argument_is_one_of_the_trainers() -> None:
    """In a process of its own: importing TRL takes seconds and much memory."""
    program = (
        "import dataclasses; from trl import GRPOConfig, SFTConfig; "
        "from ecg_grpo.settings.grpo import GRPOSettings; from ecg_grpo.settings.sft import SFTSettings\n"
        "for config, settings in ((GRPOConfig, GRPOSettings), (SFTConfig, SFTSettings)):\n"
        "    names = {field.name for field in dataclasses.fields(config)}\n"
        "    given = set(settings.model_fields) - settings.NOT_THE_TRAINERS\n"
        "    assert given and given <= names, given - names\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow_scripts")}
    subprocess.run(["python", "-c", program], check=True, env=environment)
