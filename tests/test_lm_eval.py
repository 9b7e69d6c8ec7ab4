"""lm-evaluation-harness gives the answers and the means that the workflow's own evaluation gives."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, Project
from hypothesis import given
from hypothesis import strategies as st
from test_environments import lock

from ecg_grpo.lm_eval_task import SCORES, VERSION
from ecg_grpo.metrics import METRICS
from ecg_grpo.prompts import extract_prediction

CODE = ROOT / "resources/lm_eval/ecg_expert_qa.py"
TOKENS, BATCH = 40, 8


@pytest.fixture(scope="module")
def task_code() -> ModuleType:
    spec = importlib.util.spec_from_file_location(CODE.stem, CODE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PIECES = st.sampled_from(
    ["<think>", "</think>", "<answer>", "</answer>", "the ST elevation", "QRS 120 ms", " ", "\n", ".", "ΔT ≥ 5", "<"]
)
TEXTS = st.one_of(st.lists(PIECES, max_size=10).map("".join), st.text(max_size=30))


@given(TEXTS)
def test_answers_are_taken_apart_as_in_the_library(task_code: ModuleType, completion: str) -> None:
    assert task_code.prediction_of(completion) == extract_prediction(completion)


@given(TEXTS, TEXTS)
def test_scores_are_those_of_the_library(task_code: ModuleType, completion: str, reference: str) -> None:
    prediction = extract_prediction(completion)
    expected = {name: METRICS[name].score(prediction, reference, "") for name in SCORES}
    assert task_code.score({"answer": reference}, [completion]) == pytest.approx(expected, abs=1e-12)


def test_the_version_is_that_of_the_lock() -> None:
    assert lock()["lm-eval"] == {VERSION}


def test_the_task_needs_nothing_of_this_project() -> None:
    assert not re.search(r"^\s*(from|import) (ecg_grpo|evaluate)\b", CODE.read_text(), flags=re.M)


def test_a_prompt_that_is_not_the_training_s_is_refused(task_code: ModuleType) -> None:
    doc = {"prompt": [{"role": "user", "content": "Which lead?"}]}
    ask = partial(task_code.ECGExpertQA.fewshot_context, None, doc)
    assert ask(0, apply_chat_template=True, chat_template=lambda messages, **_: messages[0]["content"]) == "Which lead?"
    with pytest.raises(ValueError, match="--apply_chat_template"):
        ask(0)
    for examples, system in ((1, None), (0, "You are a pirate.")):
        with pytest.raises(ValueError, match="Leave out"):
            ask(examples, system, apply_chat_template=True, chat_template=str)


@dataclass(frozen=True)
class Compared:
    """The workflow's own evaluation of a model, and what lm-eval made of the exported task and of a changed one."""

    answers: list[dict]
    scores: pa.Table
    samples: dict[str, dict[str, dict]]
    means: dict[str, float]
    changed: str

    def differing(self, task: str) -> set[str]:
        """Records to which lm-eval has another answer than the workflow."""
        samples = self.samples[task]
        assert samples.keys() == {row["id"] for row in self.answers}
        return {row["id"] for row in self.answers if samples[row["id"]]["resps"] != [[row["completion"]]]}


@pytest.fixture(scope="module")
def compared(finished: Project, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """The test split's questions, answered by a model whose answers are many words and end by themselves at times."""
    folder = tmp_path_factory.mktemp("lm_eval")
    talker, run, split = folder / "talker", folder / "run", folder / "test.parquet"
    make_talker(tiny_model, talker)
    write_questions(finished.results() / "data/test.parquet", split, talker)
    settings = ("--settings", json.dumps({"precision": "float32", "max_new_tokens": TOKENS, "batch_size": BATCH}))
    answers, scores = run / "evaluation/talker/answers.parquet", run / "evaluation/talker/scores.parquet"
    model = ("--model", *sorted(talker.iterdir()))
    call("generate_answers", *model, "--questions", split, "--answers", answers, *settings)
    call("score_answers", "--answers", answers, "--scores", scores)
    sources, task = ROOT / "resources/lm_eval", run / "lm_eval"
    call(
        *("write_lm_eval_task", "--questions", split, "--run", "a-run", *settings, "--code", CODE),
        *("--task-template", sources / "ecg_expert_qa.yaml.j2", "--readme-template", sources / "README.md.j2"),
        *("--task", task / "ecg_expert_qa.yaml", "--task-questions", task / "ecg_expert_qa.parquet"),
        *("--task-code", task / "ecg_expert_qa.py", "--readme", task / "README.md"),
    )
    moved = folder / "moved"
    task.rename(moved)
    (command,) = re.findall(r"```\n(lm_eval .*?)```", (moved / "README.md").read_text(), flags=re.S)
    for name, here in ((f"{run}/grpo_model", talker), (task, moved), (f"{run}/lm_eval_output", folder / "output")):
        assert command.count(str(name)) >= 1
        command = re.sub(rf"{name}(?=[\s,])", str(here), command)
    changed = add_changed_task(moved)
    command = command.replace("--tasks ecg_expert_qa", "--tasks ecg_expert_qa,changed").replace("\\\n", " ")
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | offline
    found = subprocess.run(shlex.split(command), cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-3000:]
    (summary,) = (folder / "output").rglob("results_*.json")
    return Compared(
        pq.read_table(answers).to_pylist(),
        pq.read_table(scores),
        {name: read_samples(folder / "output", name) for name in ("ecg_expert_qa", "changed")},
        json.loads(summary.read_text())["results"]["ecg_expert_qa"],
        changed,
    )


def call(program: str, *arguments: object) -> None:
    subprocess.run([sys.executable, ROOT / f"workflow_scripts/{program}.py", *map(str, arguments)], check=True)


def make_talker(tiny_model: Path, folder: Path) -> None:
    """A random model with large weights; its tokenizer puts a start token before every text, its settings forbid repetition."""
    import torch
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    config = AutoConfig.from_pretrained(tiny_model, initializer_range=0.3, tie_word_embeddings=False)
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] *= 2
        model.lm_head.weight[tokenizer.convert_tokens_to_ids("Ċ")] *= 4  # an empty line ends no answer
    model.generation_config.repetition_penalty = 5.0
    model.save_pretrained(folder)
    # Not the token that the chat template begins with, so that it would be seen to be there twice.
    tokenizer.bos_token = tokenizer.pad_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|pad|> $A", special_tokens=[("<|pad|>", tokenizer.pad_token_id)]
    )
    tokenizer.save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder)("a")["input_ids"][0] == tokenizer.pad_token_id


def write_questions(split: Path, target: Path, talker: Path) -> None:
    """The split, with what the sample data and random weights lack: dialogues, and references that share words with answers."""
    import torch

    from ecg_grpo.generation import Generation, complete_all

    table = pq.read_table(split)
    rows = table.to_pylist()
    for row in rows[::4]:
        row["prompt"][1:1] = [
            {"role": "user", "content": "What is seen in V1?\n\nAnd in V6?"},
            {"role": "assistant", "content": "An R wave ≥ 7 mm."},
        ]
    generation = Generation(torch.float32, TOKENS, BATCH)
    groups = complete_all(talker, [row["prompt"] for row in rows], generation, lambda *_: None)
    for row, (completion,) in zip(rows[::3], groups[::3], strict=True):
        row["answer"] = completion.text[: len(completion.text) // 2] + row["answer"]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), target)


def add_changed_task(folder: Path) -> str:
    """Puts a task that asks one question otherwise beside the task; returns the question's record."""
    copy = folder / "changed"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("changed"))
    task = copy / "ecg_expert_qa.yaml"
    task.write_text(task.read_text().replace("task: ecg_expert_qa\n", "task: changed\n"))
    questions = pq.read_table(copy / "ecg_expert_qa.parquet")
    rows = questions.to_pylist()
    rows[5]["prompt"][-1]["content"] += " "
    pq.write_table(pa.Table.from_pylist(rows, schema=questions.schema), copy / "ecg_expert_qa.parquet")
    return rows[5]["id"]


def read_samples(folder: Path, task: str) -> dict[str, dict]:
    """lm-eval's log of a task, by record."""
    (file,) = folder.rglob(f"samples_{task}_*.jsonl")
    samples = [json.loads(line) for line in file.read_text().splitlines()]
    return {sample["doc"]["id"]: sample for sample in samples}


@pytest.mark.pipeline
def test_the_answers_say_something(compared: Compared) -> None:
    assert len({row["completion"] for row in compared.answers}) > 0.9 * len(compared.answers)
    assert {row["finish_reason"] for row in compared.answers} == {"stop", "length"}
    assert {len(row["prompt"]) for row in compared.answers} == {2, 4}
    assert any("\n\n" in row["completion"].strip() for row in compared.answers)


@pytest.mark.pipeline
def test_every_answer_is_the_workflow_s(compared: Compared) -> None:
    assert compared.differing("ecg_expert_qa") == set()


@pytest.mark.pipeline
def test_the_means_are_the_workflow_s(compared: Compared) -> None:
    for name in SCORES:
        column = compared.scores[name].to_pylist()
        expected = sum(column) / len(column)
        assert expected > 0
        assert compared.means[f"{name},none"] == pytest.approx(expected, abs=1e-9), name


@pytest.mark.pipeline
def test_another_prompt_gives_another_answer(compared: Compared) -> None:
    """One space more in one question: what compares the answers sees it."""
    assert compared.differing("changed") == {compared.changed}


@pytest.mark.pipeline
def test_the_workflow_exports_the_split_that_it_answers(finished: Project) -> None:
    results = finished.results()
    asked, exported = (pq.read_table(results / file) for file in ("data/test.parquet", "lm_eval/ecg_expert_qa.parquet"))
    assert exported.equals(asked.select(["id", "prompt", "answer"]))
    assert "max_gen_toks: 16" in (results / "lm_eval/ecg_expert_qa.yaml").read_text()
    (command,) = re.findall(r"```\n(lm_eval .*?)```", (results / "lm_eval/README.md").read_text(), flags=re.S)
    assert command in (ROOT / "docs/evaluation.md").read_text()
