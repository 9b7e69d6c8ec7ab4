"""benchmarks/gpu_memory.py, as far as it goes without a GPU: its records and what it would run."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from llama_3 import save_tiny_llama_3
from snakemake.utils import update_config

from ecg_grpo.settings.grpo import GRPOSettings
from ecg_grpo.settings.run import Settings, load_settings
from ecg_grpo.settings.sft import SFTSettings
from ecg_grpo.tables import read_rows

sys.path.insert(0, str(ROOT / "benchmarks"))
import gpu_memory


def configuration(name: str) -> Settings:
    merged = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    update_config(merged, yaml.safe_load((ROOT / f"config/{name}.yaml").read_text()))
    return load_settings(merged, [name])


def test_records_have_exactly_the_tokens_asked_for(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    save_tiny_llama_3(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    tokenizer.chat_template = (ROOT / "resources/chat_templates/llama-3.jinja").read_text()
    tokenizer.save_pretrained(tmp_path / "model")
    gpu_memory.save_records(tmp_path / "records.parquet", 5, 96, 40, tmp_path / "model")
    rows = read_rows(tmp_path / "records.parquet", "id", "task", "prompt", "question", "answer", "prompt_tokens")
    assert len({row["answer"] for row in rows}) == 5
    for row in rows:
        assert row["prompt_tokens"] == 96
        messages = [*row["prompt"], {"role": "assistant", "content": row["answer"]}]
        assert len(tokenizer.apply_chat_template(messages, return_dict=False)) == 96 + 40


@pytest.mark.parametrize("name", ["llama-3.2-3b", "llama-3.2-3b-8gpu", "llama-3.2-3b-24gb"])
def test_it_runs_the_configurations_own_sections(name: str, tmp_path: Path) -> None:
    settings = configuration(name)
    commands = gpu_memory.commands(settings, tmp_path)
    assert list(commands) == gpu_memory.PROGRAMS_MEASURED

    def section(program: str) -> str:
        words = shlex.split(commands[program][0])
        return words[words.index("--settings") + 1]

    sft = SFTSettings.from_json(section("train_sft"))
    assert sft == settings.sft.model_copy(update={"evaluations": 1})
    grpo = GRPOSettings.from_json(section("train_grpo"))
    differing = {key for key, value in grpo if value != getattr(settings.grpo, key)}
    assert differing <= {"guards", "dynamic_sampling"}
    for command, _ in commands.values():
        assert command.startswith(("python workflow_scripts/", "exec 9>&2"))


def test_only_finished_lines_of_a_growing_log_are_read(tmp_path: Path) -> None:
    log = tmp_path / "training_log.jsonl"
    assert gpu_memory.seconds_of_steps(log) == []
    lines = [{"step": 0, "eval_rouge_l": 0.1, "seconds": 1}, {"step": 1, "loss": 0.5, "seconds": 3}]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 2, "loss": 0.4, "sec')
    assert gpu_memory.seconds_of_steps(log) == [3]
