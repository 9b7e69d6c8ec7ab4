"""The reward model: trained through its program, resumed to the same weights, judged on held-out pairs, and scored with."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import CORES, ROOT, Project
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from test_preference_pairs import split_rows

from ecg_grpo.errors import InputError
from ecg_grpo.files import model_directory, new_model_directory, sha256_of
from ecg_grpo.model_rewards import Surroundings, load_mix
from ecg_grpo.preference_pairs import PREFERENCE_PAIRS, fragment, repetition
from ecg_grpo.reward_accuracy import accuracy_report, wilson_interval
from ecg_grpo.reward_model import RewardModel, conversation_tokens
from ecg_grpo.rewards import Case
from ecg_grpo.settings.reward import RewardSettings
from ecg_grpo.settings.reward_model import RewardTrainingSettings
from ecg_grpo.tables import RECORDS, SAMPLED_ANSWERS, read_rows, write_table

TRAINING = {
    "num_train_epochs": 3,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "learning_rate": 0.003,
    "max_length": 1500,
    "precision": "float32",
    "save_steps": 3,
    "evaluations": 1,
}


def pairs(rows: list[dict[str, Any]], texts: Any) -> list[dict[str, Any]]:
    """Pairs of the references and what `texts` makes of them: (kind, worse answer)."""
    return [
        {name: row[name] for name in ("id", "task", "cluster", "prompt")}
        | {"chosen": row["answer"], "rejected": rejected, "kind": kind, "paraphrased": "none"}
        for row in rows
        for kind, rejected in texts(row["answer"])
        if rejected is not None
    ]


def easy(answer: str) -> list[tuple[str, str | None]]:
    return [("fragment", fragment(answer, 3)), ("repetition", repetition(answer, 2))]


@dataclass(frozen=True)
class Workplace:
    """A folder with pairs and a base model, and the program that trains on them."""

    folder: Path

    def start(self, name: str, scratch: str = "scratch", **settings: object) -> subprocess.Popen[str]:
        """Starts the program; results go to `<folder>/<name>/`."""
        files = {
            **{split: self.folder / f"{split}.parquet" for split in ("train", "validation")},
            "base-model": self.folder / "base/manifest.json",
            "model": self.folder / name / "model/manifest.json",
            "accuracy": self.folder / name / "accuracy.json",
            "training-log": self.folder / name / "training_log.jsonl",
            "provenance": self.folder / name / "provenance.json",
            "scratch": self.folder / scratch,
        }
        settings = TRAINING | settings
        arguments = [str(part) for key, value in files.items() for part in (f"--{key}", value)]
        program = [sys.executable, "workflow_scripts/train_reward_model.py", *arguments, "--threads", CORES]
        return subprocess.Popen(
            [*program, "--settings", json.dumps(settings, sort_keys=True)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, name: str, scratch: str = "scratch", **settings: object) -> tuple[int, str]:
        """Runs the program to its end: exit status and everything that it said."""
        running = self.start(name, scratch, **settings)
        said, _ = running.communicate()
        return running.returncode, said

    def outcome(self, name: str) -> list[object]:
        """What two runs of the same training must share: weights, accuracy, losses."""
        log = [json.loads(line) for line in (self.folder / name / "training_log.jsonl").read_text().splitlines()]
        figures = [[entry.get(key) for key in ("step", "loss", "grad_norm", "accuracy", "validation_loss")] for entry in log]
        files = [self.folder / name / file for file in ("model/manifest.json", "accuracy.json")]
        return [*figures, *map(sha256_of, files)]

    def read(self, name: str, file: str) -> Any:
        return json.loads((self.folder / name / file).read_text())


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Workplace:
    """Two easy kinds of wrong answers, and a reward model that learnt them."""
    folder = tmp_path_factory.mktemp("reward_model")
    with new_model_directory(folder / "base") as partial:
        for file in tiny_model.iterdir():
            shutil.copy(file, partial)
    rows = split_rows(79)
    write_table(folder / "train.parquet", pairs(rows[:59], easy), PREFERENCE_PAIRS, {})
    write_table(folder / "validation.parquet", pairs(rows[59:], easy), PREFERENCE_PAIRS, {})
    place = Workplace(folder)
    status, said = place.run("unbroken")
    assert status == 0, said
    return place


@pytest.mark.pipeline
def test_a_few_steps_on_easy_kinds_beat_chance_and_both_lengths(workplace: Workplace) -> None:
    report = workplace.read("unbroken", "accuracy.json")
    assert report["all"]["low"] > 0.5
    assert report["all"]["accuracy"] > 0.9
    assert report["kinds"]["fragment"]["longer_wins"] == 1.0
    assert report["kinds"]["repetition"]["shorter_wins"] == 1.0
    assert report["all"]["longer_wins"] == pytest.approx(0.5, abs=0.05)
    assert report["kinds"]["fragment"]["clusters"] == report["kinds"]["fragment"]["pairs"] == 20
    assert (report["all"]["clusters"], report["all"]["pairs"]) == (20, 40)
    facts = workplace.read("unbroken", "provenance.json")["facts"]
    assert facts["held_out"]["accuracy"] == report["all"]["accuracy"]
    assert facts["checks"]["saved_difference"] < 1e-4
    assert not list((workplace.folder / "scratch").iterdir()), "nothing is kept once the model is delivered"


@pytest.mark.pipeline
def test_the_log_has_every_step_and_the_validation(workplace: Workplace) -> None:
    log = [json.loads(line) for line in (workplace.folder / "unbroken/training_log.jsonl").read_text().splitlines()]
    steps = [entry["step"] for entry in log if "loss" in entry]
    assert steps == list(range(1, RewardTrainingSettings(**TRAINING).steps(118) + 1))
    validated = [entry for entry in log if "validation_loss" in entry]
    assert [entry["step"] for entry in validated] == [0, steps[-1]]
    assert validated[-1]["validation_loss"] < validated[0]["validation_loss"]
    assert {"eval_accuracy", "eval_margin"} <= validated[0].keys()


@pytest.mark.pipeline
def test_two_runs_agree_and_a_killed_one_goes_on_to_the_same_weights(workplace: Workplace) -> None:
    running = workplace.start("killed", "other")
    deadline = time.monotonic() + 120
    while not list(workplace.folder.glob("other/*/checkpoint-*/complete.json")):
        assert time.monotonic() < deadline, "no checkpoint appeared"
        assert running.poll() is None, running.communicate()[0]
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    assert not (workplace.folder / "killed").exists()
    status, said = workplace.run("killed", "other")
    assert status == 0, said
    assert workplace.read("killed", "provenance.json")["facts"]["resumed_from_step"] >= 3
    assert workplace.outcome("killed") == workplace.outcome("unbroken")


@pytest.mark.pipeline
def test_every_parameter_can_be_trained(workplace: Workplace) -> None:
    status, said = workplace.run("full", lora=None, max_steps=2, learning_rate=0.001)
    assert status == 0, said
    assert RewardModel(workplace.folder / "full/model").score([[]], ["Yes."])


@pytest.mark.pipeline
def test_a_pair_that_is_too_long_is_refused_and_nothing_is_written(workplace: Workplace) -> None:
    status, said = workplace.run("long", max_length=60)
    assert status == 1
    assert "train.parquet: the trainer kept " in said
    assert "of 118 pairs: some texts are longer than reward_model.training.max_length. Raise" in said
    assert not (workplace.folder / "long").exists()


@pytest.fixture(scope="module")
def model(workplace: Workplace) -> Path:
    return model_directory(workplace.folder / "unbroken/model/manifest.json")


PROMPT = [{"role": "user", "content": "Is a QRS of 140 ms wide?"}]
ANSWERS = ["Yes.", "No, it is narrow.", "", "Yes, it is. " * 20, "Yes.", "120 ms is the limit."]


@pytest.mark.pipeline
def test_scores_are_the_head_on_the_last_token_through_a_sigmoid(model: Path) -> None:
    """By hand: every text alone, the last layer's last state times the head's weights."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    tokenizer, body = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model, dtype=torch.float32)
    weights = load_file(model / "model.safetensors")
    assert weights["score.weight"].dtype == torch.float32
    expected = []
    for answer in ANSWERS:
        text = f"<|start|>user\n{PROMPT[0]['content']}<|end|>\n<|start|>assistant\n{answer}<|end|>\n"
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
        with torch.inference_mode():
            state = body(ids).last_hidden_state[0, -1]
        expected.append(1 / (1 + math.exp(-float(state @ weights["score.weight"][0]))))
    reward_model = RewardModel(model, batch_size=4)
    found = reward_model.score([PROMPT] * len(ANSWERS), ANSWERS)
    assert found == pytest.approx(expected, abs=1e-6)
    assert all(0 < score < 1 for score in found)
    assert len(set(found)) == len(set(ANSWERS))


@pytest.mark.pipeline
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_the_same_scores_in_any_order_and_batch(model: Path, batch_size: int) -> None:
    once = RewardModel(model, batch_size)
    scores = once.score([PROMPT] * len(ANSWERS), ANSWERS)
    assert once.score([PROMPT] * len(ANSWERS), ANSWERS[::-1]) == scores[::-1]
    assert scores[0] == scores[4]
    assert [once.score([PROMPT], [answer])[0] for answer in ANSWERS] == pytest.approx(scores, abs=1e-6)
    assert once.score([], []) == []


@pytest.mark.pipeline
def test_a_text_is_rendered_as_in_training(model: Path, workplace: Workplace) -> None:
    """TRL's own tokens of a conversation are those that scoring reads."""
    from transformers import AutoTokenizer
    from trl.trainer.reward_trainer import _tokenize

    tokenizer = AutoTokenizer.from_pretrained(model)
    for answer in ANSWERS:
        messages = [*PROMPT, {"role": "assistant", "content": answer}]
        assert conversation_tokens(tokenizer, PROMPT, answer) == _tokenize(tokenizer, messages)["input_ids"]


@pytest.mark.pipeline
def test_what_is_no_reward_model_is_refused(model: Path, workplace: Workplace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no model directory with a config.json. Name the directory"):
        RewardModel(tmp_path / "nowhere")
    with pytest.raises(InputError, match="the model is no reward model but LlamaForCausalLM"):
        RewardModel(workplace.folder / "base")
    broken = shutil.copytree(model, tmp_path / "broken")
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({key: value for key, value in config.items() if key != "id2label"}))
    with pytest.raises(InputError, match="several numbers for a text"):
        RewardModel(broken)
    (broken / "config.json").write_text(json.dumps(config))
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(InputError, match="the reward model cannot be read"):
        RewardModel(broken).score([PROMPT], ["Yes."])
    (broken / "model.safetensors").unlink()
    with pytest.raises(InputError, match="no weights"):
        RewardModel(broken)
    with pytest.raises(ValueError, match="batch_size"):
        RewardModel(model, 0)
    with pytest.raises(ValueError, match="1 prompts and 2 completions"):
        RewardModel(model).score([PROMPT], ["Yes.", "No."])


@pytest.mark.pipeline
def test_a_head_without_weights_is_refused(model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(model, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    del weights["score.weight"]
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"the model has no weights for score.weight"):
        RewardModel(broken).score([PROMPT], ["Yes."])


MIXED = RewardSettings(weights={"reward_model": 1.0, "chrf": 1.0}, gates={"length": 0.0})


@pytest.mark.pipeline
def test_in_the_mix_it_is_its_score_of_prompt_and_answer(model: Path, workplace: Workplace) -> None:
    mix = load_mix(MIXED, Surroundings(reward_model=workplace.folder / "unbroken/model/manifest.json"))
    texts = [*ANSWERS, "<think>Broad.</think><answer>Yes.</answer>", "<think>Yes.</think><answer></answer>", "A \ud800 B"]
    values = mix.values([Case(text, "Yes, from 120 ms.", "Is it wide?", PROMPT) for text in texts])
    found = [one["reward_model"] for one in values]
    scores = RewardModel(model).score([PROMPT] * len(ANSWERS), [text.strip() for text in ANSWERS])
    assert found[: len(ANSWERS)] == pytest.approx([score if text else 0 for score, text in zip(scores, ANSWERS, strict=True)])
    assert found[len(ANSWERS) :] == [pytest.approx(scores[0]), 0, pytest.approx(found[-1])]
    assert 0 < found[-1] < 1
    first = values[1]
    assert mix.total(first) == pytest.approx(first["length"] * (first["reward_model"] + first["chrf"]) / 2)
    (elsewhere,) = mix.values([Case(ANSWERS[1], "Yes, from 120 ms.", "Is it wide?", [*PROMPT, *PROMPT])])
    assert elsewhere["reward_model"] != pytest.approx(first["reward_model"]), "it reads the prompt"


@pytest.mark.pipeline
def test_a_gate_takes_away_by_its_score(workplace: Workplace) -> None:
    settings = RewardSettings(weights={"chrf": 1.0}, gates={"reward_model": 0.5})
    mix = load_mix(settings, Surroundings(reward_model=workplace.folder / "unbroken/model/manifest.json"))
    (values,) = mix.values([Case("Yes.", "Yes, from 120 ms.", "Is it wide?", PROMPT)])
    assert mix.total(values) == pytest.approx(values["chrf"] * (0.5 + 0.5 * values["reward_model"]))


def test_without_a_model_the_part_is_refused(workplace: Workplace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"reward_model is part of the reward, but none is given. Name it with --reward-model"):
        load_mix(MIXED)
    with pytest.raises(InputError, match=r"no reward model but LlamaForCausalLM"):
        load_mix(MIXED, Surroundings(reward_model=workplace.folder / "base/manifest.json"))
    assert load_mix(RewardSettings(), Surroundings(reward_model=tmp_path / "nowhere.json")).models == {}


def audit(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Attacks the mix on ten records; three others are the training split."""
    records = split_rows(13)
    write_table(folder / "train.parquet", records[10:], RECORDS, {})
    write_table(folder / "validation.parquet", records[:10], RECORDS, {})
    write_table(folder / "samples.parquet", [row | {"completion": "Yes."} for row in records[:10]], SAMPLED_ANSWERS, {})
    files = {name: folder / f"{name}.parquet" for name in ("train", "validation", "samples")} | {"audit": folder / "audit.json"}
    options = [str(part) for name, file in files.items() for part in (f"--{name}", file)]
    options += ["--reward", MIXED.as_json(), "--settings", '{"resamples": 100}', *map(str, arguments)]
    program = [sys.executable, ROOT / "workflow_scripts/audit_reward.py", *options]
    return subprocess.run(program, capture_output=True, text=True, check=False)


@pytest.mark.pipeline
def test_the_audit_attacks_it_too(model: Path, workplace: Workplace, tmp_path: Path) -> None:
    run = audit(tmp_path, "--reward-model", workplace.folder / "unbroken/model/manifest.json")
    assert run.returncode == 0, run.stderr
    found = json.loads((tmp_path / "audit.json").read_text())
    assert found["parts"] == ["chrf", "reward_model", "length"]
    reference = found["honest"][0]
    records = split_rows(13)[:10]
    scores = RewardModel(model).score([row["prompt"] for row in records], [row["answer"] for row in records])
    assert reference["values"]["reward_model"] == pytest.approx(sum(scores) / 10, abs=1e-5)
    attacks = {row["name"]: row["values"]["reward_model"] for row in found["attacks"]}
    assert attacks["empty"] == attacks["hidden_in_reasoning"] == 0
    assert attacks["fragment"] < reference["values"]["reward_model"], "what it was trained on"


def test_the_audit_without_the_model_ends_with_one_line_and_no_table(tmp_path: Path) -> None:
    run = audit(tmp_path)
    assert run.returncode == 1
    assert "reward_model is part of the reward, but none is given" in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "audit.json").exists()


def test_wilsons_interval() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
    for (positive, number), expected in {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0, 0.1611),
    }.items():
        assert wilson_interval(positive / number, number) == pytest.approx(expected, abs=1e-4)
    assert wilson_interval(1.0, 29) == pytest.approx((0.8830, 1.0), abs=1e-4)


@given(st.floats(0, 1), st.integers(1, 10_000))
def test_wilsons_interval_holds_the_share(share: float, number: int) -> None:
    low, high = wilson_interval(share, number)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
    assert low < high


def test_accuracy_by_kind_beside_the_rules_of_length() -> None:
    def pair(kind: str, cluster: str, chosen: str, rejected: str) -> dict[str, str]:
        return {"kind": kind, "cluster": cluster, "task": "EBK", "paraphrased": "none", "chosen": chosen, "rejected": rejected}

    held_out = [
        pair("echo", "A", "a b c", "a"),
        pair("echo", "A", "a b", "a b"),
        pair("echo", "B", "a", "a b"),
        pair("numbers", "B", "a b", "c d"),
    ]
    report = accuracy_report(held_out, chosen=[3.0, 2.0, 1.0, 0.0], rejected=[1.0, 2.0, 2.0, -1.0])
    echo = report["kinds"]["echo"]
    assert (echo["pairs"], echo["clusters"]) == (3, 2)
    assert echo["accuracy"] == echo["longer_wins"] == echo["shorter_wins"] == 0.5
    assert (echo["low"], echo["high"]) == wilson_interval(0.5, 2)
    assert echo["mean_margin"] == pytest.approx(1 / 3)
    assert report["kinds"]["numbers"]["accuracy"] == 1
    assert report["all"]["accuracy"] == 0.625
    assert report["tasks"] == {"EBK": report["all"]}
    assert report["score_and_length"]["chosen"]["pearson"] == pytest.approx(0.6324555)
    assert report["score_and_length"]["chosen"]["spearman"] == pytest.approx(0.6324555)
    assert report["score_and_length"]["chosen"]["texts"] == 4
    stretched = accuracy_report(held_out, [99.0, 2.0, 1.0, 0.0], [1.0, 2.0, 2.0, -1.0])["score_and_length"]["chosen"]
    assert stretched["spearman"] == report["score_and_length"]["chosen"]["spearman"] != stretched["pearson"]
    constant = accuracy_report(held_out[:1], [1.0], [0.0])["score_and_length"]["chosen"]
    assert constant == {"texts": 1, "pearson": None, "spearman": None}
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize(
    ("number", "changes", "steps"),
    [
        (64, {}, 4),
        (65, {}, 5),
        (64, {"num_train_epochs": 2.5}, 10),
        (64, {"max_steps": 3}, 3),
        (64, {"launch": {"processes": 2}}, 2),
    ],
)
def test_steps(number: int, changes: dict, steps: int) -> None:
    assert RewardTrainingSettings.model_validate(changes).steps(number) == steps


def test_no_step_is_refused() -> None:
    with pytest.raises(ValidationError, match="max_steps must be -1 or at least 1"):
        RewardTrainingSettings(max_steps=0)


def test_texts_that_may_not_fit_are_refused_with_the_configuration(project: Project) -> None:
    project.configure(reward_model={"enabled": True, "training": {"max_length": 1299}})
    run = project.snakemake("-n", check=False)
    assert "is 1300, more than reward_model.training.max_length (1299)" in run.stderr
    project.configure(reward_model={"enabled": False})
    project.snakemake("-n")


def test_the_stage_runs_only_where_it_is_asked_for(project: Project) -> None:
    stage = {"sample_for_reward_model", "make_preference_pairs", "train_reward_model"}
    sft = {"fetch_base_model", "prepare_data", "train_sft", "merge_sft_adapter"}
    assert not stage & project.jobs()
    assert project.jobs("reward_model") - {"reward_model"} == stage | sft
    project.configure(reward_model={"enabled": True})
    assert stage <= project.jobs()
    project.configure(reward_model={"pairs": {"kinds": ["echo", "fragment"]}})
    assert project.jobs("reward_model") - {"reward_model"} == {
        *("fetch_base_model", "prepare_data", "make_preference_pairs", "train_reward_model")
    }


@pytest.mark.parametrize("how", [{"weights": {"reward_model": 0.5}}, {"gates": {"reward_model": 0.5}}])
def test_a_reward_that_uses_it_has_it_trained_first(project: Project, how: dict) -> None:
    """`reward_model.enabled` is false: a part of the reward is made like every other input."""
    stage, audit = (
        {"sample_for_reward_model", "make_preference_pairs", "train_reward_model"},
        "results/demo/reward_audit/audit.json",
    )
    assert not stage & project.jobs(audit)
    given = "--reward-model results/demo/reward_model/model/manifest.json"
    assert given not in project.snakemake("-n", "-p").stdout
    project.configure(reward=how, difficulty_filter={"enabled": True})
    assert stage <= project.jobs(audit)
    plan = project.snakemake("-n", "-p").stdout
    for program in ("audit_reward.py", "filter_prompts.py", "train_grpo.py"):
        (command,) = [line for line in plan.splitlines() if f"workflow_scripts/{program}" in line]
        assert given in command
    project.configure(reward_model={"training": {"max_length": 1299}})
    assert "more than reward_model.training.max_length" in project.snakemake("-n", check=False).stderr


@pytest.mark.pipeline
def test_the_workflow_trains_it_and_runs_again_what_a_setting_changes(finished_copy: Project) -> None:
    project = finished_copy
    project.configure(reward_model={"training": TRAINING | {"max_steps": 4}})
    project.snakemake("reward_model")
    folder = project.results() / "reward_model"
    report = json.loads((folder / "accuracy.json").read_text())
    assert {"echo", "fragment", "other_answer", "repetition", "fluent_nonsense"} <= report["kinds"].keys()
    for split in ("train", "validation"):
        samples = read_rows(folder / f"{split}_samples.parquet")
        records = {row["id"] for row in read_rows(project.results() / f"data/{split}.parquet", "id")}
        assert len(samples) == 2 * min(16, len(records))
        assert {row["id"] for row in samples} <= records
        assert json.loads((folder / f"{split}_pairs.json").read_text())["records_with_samples"] > 0
        assert "sft_sample" in {row["kind"] for row in read_rows(folder / f"{split}_pairs.parquet", "kind")}
    assert report["all"]["pairs"] == json.loads((folder / "validation_pairs.json").read_text())["all"]["pairs"]
    assert project.jobs("reward_model") == set()
    for change, expected in [
        ({"training": {"learning_rate": 0.001}}, {"train_reward_model"}),
        ({"pairs": {"seed": 1}}, {"make_preference_pairs", "train_reward_model"}),
        ({"samples": {"questions": 8}}, {"sample_for_reward_model", "make_preference_pairs", "train_reward_model"}),
        ({"enabled": True}, {"sample_for_reward_model", "make_preference_pairs", "train_reward_model"}),
    ]:
        project.configure(reward_model=change)
        assert project.jobs("reward_model") - {"reward_model"} == expected
