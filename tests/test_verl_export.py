"""The export to verl: verl itself reads it, knows every key, pays the same rewards, computes the same losses.

verl and what it imports stand in .venv-verl (`make env-verl`), in front of this environment's packages.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from modulefinder import ModuleFinder
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import ROOT, SAMPLE, Project
from test_environments import lock, normal

from ecg_grpo.files import new_model_directory
from ecg_grpo.metrics import METRICS
from ecg_grpo.prompts import extract_prediction, write_reasoned
from ecg_grpo.readers import read_records
from ecg_grpo.records import Record
from ecg_grpo.rewards import Case, RewardMix
from ecg_grpo.settings.reward import RewardInUse
from ecg_grpo.settings.run import Settings
from ecg_grpo.tables import MESSAGES, evenly, read_rows
from ecg_grpo.verl_export import VERL_ROWS, VERSION, without_counterpart

FOLDER = Path("results/a-run/export")
PROGRAMS = ("reward_function.py", "batch_advantage.py", "check_launch.py", "launch.sh")
ADAPTER = {"learning_rate": 1e-5, "lora": {"r": 16}, "launch": {"deepspeed": None}}
"""What docs/verl.md adds to the production run for an adapter in place of every parameter."""

TEXTS = [
    *("", "No.", "Yes, the QRS lasts 120 ms.", "yes " * 40, "<answer>", "Paragraph one.\n\nParagraph two: ≥ 5 mm."),
    write_reasoned("The rate is 150/min and regular, hence flutter with two to one conduction.", "Atrial flutter."),
    "<think>It never ends",
]


def settings_of(*files: str, **changes: dict) -> Settings:
    """The configuration of these files, and changes of its sections."""
    merged: dict = {}
    for part in [*(yaml.safe_load((ROOT / "config" / file).read_text()) for file in ("config.yaml", *files)), changes]:
        _merge(merged, part)
    return Settings.model_validate(merged)


def _merge(base: dict, changes: dict) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


RUNS = {
    "demo": settings_of(),
    "production": settings_of("llama-3.2-3b.yaml"),
    "adapter": settings_of("llama-3.2-3b.yaml", grpo=ADAPTER),
    "several": settings_of(
        "llama-3.2-3b-8gpu.yaml",
        reasoning=True,
        reward={"weights": {"rouge_l": 1.0, "chrf": None}},
        grpo={
            "num_iterations": 2,
            "max_steps": 10,
            "warmup_steps": 4,
            "lr_scheduler_type": "cosine",
            "gradient_accumulation_steps": 1,
            "per_device_train_batch_size": 4,
            "max_completion_length": 64,
            "beta": 0.01,
            "delta": 2.5,
            "epsilon_high": None,
            "scale_rewards": "none",
            "dynamic_sampling": None,
            "vllm_importance_sampling_mode": "token_truncate",
            "validation": {"metric": "meteor", "prompts": 4, "per_device_eval_batch_size": 1, "eval_steps": 50},
            "deliver": "last",
            "save_steps": 50,
            "report_to": ["wandb"],
            "launch": {"processes": 4, "machines": 2},
        },
        resources={"train_grpo": {"gpu": 4}},
    ),
}


@dataclass(frozen=True)
class Workplace:
    """A project's folder with a run's data and SFT model."""

    folder: Path

    def export(self, name: str, grpo: str, reward: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The program, as the rule runs it."""
        here, run = FOLDER / name, Path("results/a-run")
        deepspeed = json.loads(grpo)["launch"]["deepspeed"] if "launch" in json.loads(grpo) else None
        command = [
            *(sys.executable, "workflow_scripts/export_verl.py", "--run", "a-run", "--log", here / "export.log"),
            *("--train", run / "data/train.parquet", "--validation", run / "data/validation.parquet"),
            *("--sft-model", run / "sft_model/manifest.json", "--launch-files", *([ROOT / deepspeed] if deepspeed else [])),
            *("--programs", *(f"resources/verl/{file}" for file in PROGRAMS)),
            *("--readme-template", "resources/verl/README.md.j2", "--copies", *(here / file for file in PROGRAMS)),
            *("--verl-train", here / "train.parquet", "--verl-validation", here / "validation.parquet"),
            *("--configuration", here / "verl.yaml", "--readme", here / "README.md"),
            *("--settings", grpo, "--reward", reward),
        ]
        return subprocess.run(list(map(str, command)), cwd=self.folder, capture_output=True, text=True, check=check)


def rows_of(model: Path) -> list[dict]:
    """Forty records of the sample, each fifth of them asked after another one in the same dialogue."""
    from transformers import AutoTokenizer

    from ecg_grpo.prompts import build_prompt

    tokenizer = AutoTokenizer.from_pretrained(model)
    records = [one for file in sorted(SAMPLE.glob("*.json")) for one in list(read_records(file))[:8] if isinstance(one, Record)]
    rows = []
    for place, record in enumerate(records[:40]):
        history = [("What is\n\nseen in V1?", "An R wave ≥ 7 mm.")] if place % 5 == 0 else []
        prompt = build_prompt("You are a cardiologist.", record.context, record.question, history)
        tokens = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
        found = {"id": record.id, "prompt": prompt, "question": record.question, "answer": record.answer}
        rows.append(found | {"prompt_tokens": len(tokens)})
    return rows


@pytest.fixture(scope="module")
def workplace(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp("verl")
    for name in ("workflow_scripts", "resources"):
        (folder / name).symlink_to(ROOT / name)
    run = folder / "results/a-run"
    with new_model_directory(run / "sft_model") as directory:
        shutil.copytree(tiny_model, directory, dirs_exist_ok=True)
    columns = [("id", pa.string()), ("prompt", MESSAGES), ("question", pa.string()), ("answer", pa.string())]
    schema = pa.schema([*columns, ("prompt_tokens", pa.int32())])
    rows = rows_of(tiny_model)
    assert len(rows) == 40
    (run / "data").mkdir()
    for split, part in (("train", rows[:33]), ("validation", rows[33:])):
        pq.write_table(pa.Table.from_pylist(part, schema=schema), run / f"data/{split}.parquet")
    return Workplace(folder)


@pytest.fixture(scope="module")
def exported(workplace: Workplace) -> dict[str, Path]:
    """The exported folders of several runs."""
    for name, settings in RUNS.items():
        workplace.export(name, settings.grpo.as_json(), settings.reward_in_use.as_json())
    return {name: workplace.folder / FOLDER / name for name in RUNS}


@pytest.fixture(scope="module")
def verl_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables with which python finds verl."""
    folder = ROOT / ".venv-verl"
    if not (folder / "complete").exists():
        pytest.skip("no .venv-verl: run `make env-verl`")
    scratch = {"HF_DATASETS_CACHE": str(tmp_path_factory.mktemp("datasets")), "HF_HUB_OFFLINE": "1"}
    return os.environ | scratch | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def probe(environment: dict[str, str], *arguments: object) -> list[dict]:
    command = [sys.executable, ROOT / "tests/verl_probe.py", *arguments]
    ours = [environment["PYTHONPATH"], str(ROOT / "workflow_scripts"), str(ROOT / "resources/verl")]
    environment = environment | {"PYTHONPATH": ":".join(ours)}
    run = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-4000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def seen(exported: dict[str, Path], verl_environment: dict[str, str]) -> dict[str, dict]:
    """What verl makes of each folder."""
    return dict(zip(exported, probe(verl_environment, "folders", json.dumps(TEXTS), *exported.values()), strict=True))


def test_the_version_is_that_of_the_lock() -> None:
    assert lock("requirements_verl.lock")["verl"] == {VERSION}
    assert f'VERSION = "{VERSION}"' in (ROOT / "resources/verl/check_launch.py").read_text()


def test_the_rows_are_those_that_the_run_trains_on(exported: dict[str, Path], workplace: Workplace) -> None:
    data = workplace.folder / "results/a-run/data"
    for name, settings in RUNS.items():
        train, validation = (read_rows(data / f"{split}.parquet") for split in ("train", "validation"))
        if settings.grpo.validation is not None:
            at_once = settings.grpo.validation.per_device_eval_batch_size * settings.grpo.launch.processes
            validation = evenly(validation, settings.grpo.validation.prompts, at_once)
        for split, records in (("train", train), ("validation", validation)):
            file = exported[name] / f"{split}.parquet"
            assert pq.read_schema(file).equals(VERL_ROWS)
            for place, (row, record) in enumerate(zip(read_rows(file), records, strict=True)):
                assert row["prompt"] == record["prompt"]
                assert row["reward_model"] == {"style": "rule", "ground_truth": record["answer"]}
                about = {"index": place, "split": split, "id": record["id"], "question": record["question"]}
                assert row["extra_info"] == about
                assert row["data_source"] == "ecg_expert_qa"


def test_verl_keeps_every_row_and_its_prompt(exported: dict[str, Path], seen: dict[str, dict]) -> None:
    for name, found in seen.items():
        for split, prompts in found["prompts"].items():
            assert prompts == [row["prompt"] for row in read_rows(exported[name] / f"{split}.parquet")]
        assert max(found["lengths"]) == found["config"]["data"]["max_prompt_length"]


def test_what_is_written_is_what_verl_has(exported: dict[str, Path], seen: dict[str, dict]) -> None:
    for name, folder in exported.items():
        written = yaml.safe_load((folder / "verl.yaml").read_text())
        assert written.pop("defaults") == ["ppo_trainer", "_self_"]
        del written["hydra"]
        for path, value in leaves(written):
            found = seen[name]["config"]
            for key in path:
                found = found[key]
            assert found == value, path


def leaves(tree: dict, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    for key, value in tree.items():
        yield from leaves(value, (*above, key)) if isinstance(value, dict) else [((*above, key), value)]


@pytest.mark.parametrize("name", RUNS)
def test_the_values_mean_what_the_settings_say(seen: dict[str, dict], workplace: Workplace, name: str) -> None:
    config, grpo = seen[name]["config"], RUNS[name].grpo
    actor, rollout, data, trainer = (
        *(config["actor_rollout_ref"][part] for part in ("actor", "rollout")),
        *(config[part] for part in ("data", "trainer")),
    )
    gpus = trainer["nnodes"] * trainer["n_gpus_per_node"]
    assert gpus == grpo.launch.processes
    assert data["train_batch_size"] * rollout["n"] == grpo.completions_per_step
    # Backward passes of one GPU for an optimizer step.
    per_gpu = actor["ppo_mini_batch_size"] * rollout["n"] / gpus
    assert per_gpu / actor["ppo_micro_batch_size_per_gpu"] == grpo.gradient_accumulation_steps
    updates = data["train_batch_size"] / actor["ppo_mini_batch_size"] * actor["ppo_epochs"]
    assert updates == grpo.num_iterations
    assert trainer["total_training_steps"] * updates == grpo.steps(33)
    assert trainer["total_epochs"] * (33 // data["train_batch_size"]) >= trainer["total_training_steps"]
    assert trainer["save_freq"] * updates == grpo.save_steps
    assert data["max_response_length"] == grpo.max_completion_length
    model, optimizer = config["actor_rollout_ref"]["model"], actor["optim"]
    assert Path(model["path"]) == workplace.folder / "results/a-run/sft_model"
    assert (model["lora_rank"] == 0) == (grpo.lora is None)
    if grpo.lora is not None:
        assert (model["lora_rank"], model["lora_alpha"]) == (grpo.lora.r, grpo.lora.lora_alpha)
        assert model["target_modules"] == grpo.lora.target_modules
    assert optimizer["lr"] == grpo.learning_rate
    assert optimizer["weight_decay"] == grpo.weight_decay
    assert optimizer["clip_grad"] == grpo.max_grad_norm
    assert actor["use_kl_loss"] == (grpo.beta > 0)
    assert actor["kl_loss_coef"] == grpo.beta
    assert config["algorithm"]["use_kl_in_reward"] is False
    assert config["algorithm"]["filter_groups"]["enable"] == (grpo.dynamic_sampling == "replace")
    assert (rollout["temperature"], rollout["top_p"], rollout["top_k"]) == (grpo.temperature, 1.0, -1)
    assert (trainer["test_freq"] > 0) == trainer["val_before_train"] == (grpo.validation is not None)
    assert trainer["logger"] == ["console", "tensorboard", *grpo.report_to]


def test_single_values(seen: dict[str, dict]) -> None:
    def value(name: str, path: str) -> object:
        found = seen[name]["config"]
        for key in path.split("."):
            found = found[key]
        return found

    actor = "actor_rollout_ref.actor"
    assert value("production", f"{actor}.fsdp_config.optimizer_offload") is True, "as zero2_offload.json"
    assert value("adapter", f"{actor}.fsdp_config.optimizer_offload") is False
    assert value("adapter", "actor_rollout_ref.model.lora_rank") == 16
    assert value("production", "algorithm.adv_estimator") == "grpo_batch_std"
    assert value("several", f"{actor}.optim.lr_scheduler_type") == "cosine"
    assert value("several", f"{actor}.optim.lr_warmup_steps") == 2, "four optimizer steps are two of verl's"
    assert value("several", "trainer.total_training_steps") == 5
    assert value("several", "trainer.test_freq") == 25
    assert value("several", "actor_rollout_ref.rollout.val_kwargs.do_sample") is False
    assert value("production", "trainer.max_actor_ckpt_to_keep") is None, "deliver: best"
    folders = {value(name, "trainer.default_local_dir") for name in RUNS}
    assert len({Path(folder).name for folder in folders}) == len(RUNS), "another training resumes from other checkpoints"


def test_verl_pays_the_run_s_rewards(seen: dict[str, dict]) -> None:
    for name, settings in RUNS.items():
        reward, validation = settings.reward_in_use, settings.grpo.validation
        mix = RewardMix(reward.weighted(), reward.gating(), min_reasoning_words=reward.demanded_reasoning_words)
        scored = seen[name]["scored"]
        assert len(scored) == 3 * 33 + len(TEXTS)
        assert len({one["reward"] for one in scored}) > 3
        for one in scored:
            case = Case(one["text"], one["reference"], one["question"])
            (values,) = mix.values([case])
            assert one["reward"] == pytest.approx(mix.total(values), abs=1e-6)
            expected = {"score": mix.total(values)} | {f"part_{part}": value for part, value in values.items()}
            if validation is not None:
                measure = METRICS[validation.metric].score
                expected["acc"] = measure(extract_prediction(one["text"]), one["reference"], one["question"])
            assert one["logged"] == pytest.approx(expected, abs=1e-6)
        right = scored[33:66] if settings.reasoning else scored[:33]
        assert sum(one["reward"] for one in right) / 33 > 0.9, "answered as the reference does"
    assert "acc" not in seen["demo"]["scored"][0]["logged"]


LOSSES = [
    {},
    {"delta": 1.5},
    {"epsilon_high": 0.28, "scale_rewards": "batch"},
    {"loss_type": "grpo", "scale_rewards": "none"},
    {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    {"loss_type": "dr_grpo", "max_completion_length": 6},
    {"loss_type": "cispo", "epsilon_high": 2.0},
    {"loss_type": "sapo"},
    *(
        {"vllm_importance_sampling_mode": f"{level}_{what}", "vllm_importance_sampling_clip_max": 1.2}
        for level in ("token", "sequence")
        for what in ("mask", "truncate")
    ),
]


def test_losses_and_advantages_are_trl_s(verl_environment: dict[str, str]) -> None:
    for settings, found in zip(LOSSES, probe(verl_environment, "losses", json.dumps(LOSSES)), strict=True):
        assert found["size"] > 1e-3, settings
        assert found["loss"] < 1e-5, settings
        assert found["advantage"] < 2e-3, settings


def check(folder: Path, environment: dict[str, str], *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, folder / "check_launch.py", *overrides]
    return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)


def test_a_launch_is_checked(exported: dict[str, Path], verl_environment: dict[str, str]) -> None:
    found = check(exported["adapter"], verl_environment, "trainer.total_training_steps=2")
    assert found.returncode == 0, found.stderr
    assert re.search(r"keys are verl's own, the files are there, the reward can be computed$", found.stdout.strip())


@pytest.mark.parametrize(
    ("old", "new", "overrides", "message"),
    [
        ("clip_ratio_high:", "clip_ratio_hihg:", (), "has no key actor_rollout_ref.actor.clip_ratio_hihg, and"),
        ("sft_model", "sft_modle", (), "sft_modle: does not exist. If the project was moved"),
        ("a-run", "a-run", ("trainer.total_steps=2",), "Could not override 'trainer.total_steps'"),
    ],
)
def test_what_verl_would_not_say_is_said(
    exported: dict[str, Path],
    verl_environment: dict[str, str],
    tmp_path: Path,
    old: str,
    new: str,
    overrides: tuple[str, ...],
    message: str,
) -> None:
    shutil.copytree(exported["demo"], tmp_path / "verl")
    file = tmp_path / "verl/verl.yaml"
    file.write_text(file.read_text().replace(old, new))
    found = check(tmp_path / "verl", verl_environment, *overrides)
    assert found.returncode == 1
    (line,) = [line for line in found.stderr.splitlines() if "check_launch: error:" in line]
    assert message in line
    assert "Traceback" not in found.stderr


def test_without_verl_the_check_says_so(exported: dict[str, Path]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    found = check(exported["demo"], environment)
    assert found.returncode == 1
    assert found.stderr == f"check_launch: error: verl is not installed here. Install verl=={VERSION} (README.md).\n"


def test_the_launcher_starts_verl_only_after_the_check(exported: dict[str, Path], tmp_path: Path) -> None:
    """With a stand-in for python, which notes how it was called and fails if it is told to."""
    stand_in = tmp_path / "python"
    stand_in.write_text('#!/bin/sh\necho "$PYTHONPATH|$VERL_USE_EXTERNAL_MODULES|$*" >> "$CALLS"\nexit "${ENDS_WITH:-0}"\n')
    stand_in.chmod(0o755)
    folder = exported["demo"]
    for status, calls in (("0", 2), ("1", 1)):
        environment = os.environ | {"CALLS": str(tmp_path / status), "ENDS_WITH": status}
        environment |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": "/other"}
        run = subprocess.run([folder / "launch.sh", "a.b=c"], env=environment, cwd=tmp_path, check=False)
        assert run.returncode == int(status)
        lines = (tmp_path / status).read_text().splitlines()
        assert len(lines) == calls
        assert lines[0] == f"{folder}:/other|batch_advantage|{folder}/check_launch.py a.b=c"
    expected = f"-m verl.trainer.main_ppo --config-path {folder} --config-name verl a.b=c"
    assert (tmp_path / "0").read_text().splitlines()[1].endswith(expected)


REFUSED = [
    ({"loss_type": "bnpo"}, {}, "grpo.loss_type: bnpo"),
    ({"loss_type": "luspo", "importance_sampling_level": "sequence"}, {}, "grpo.loss_type: luspo"),
    ({"loss_type": "vespo"}, {}, "grpo.loss_type: vespo"),
    ({"loss_type": "dapo", "importance_sampling_level": "sequence"}, {}, "sequence with grpo.loss_type: dapo"),
    ({"loss_type": "grpo", "importance_sampling_level": "sequence", "delta": 2}, {}, "sequence with grpo.delta: 2.0"),
    ({"lr_scheduler_type": "linear"}, {}, "grpo.lr_scheduler_type: linear"),
    ({"multi_objective_aggregation": "normalize_then_sum"}, {}, "grpo.multi_objective_aggregation: normalize_then_sum"),
    ({"mask_truncated_completions": True}, {}, "grpo.mask_truncated_completions: true"),
    ({"top_entropy_quantile": 0.2}, {}, "grpo.top_entropy_quantile: 0.2"),
    ({"use_adaptive_entropy": True}, {}, "grpo.use_adaptive_entropy: true"),
    ({"sync_ref_model": True, "beta": 0.1, "lora": None}, {}, "grpo.sync_ref_model: true"),
    ({"dynamic_sampling": "redraw"}, {}, "grpo.dynamic_sampling: redraw"),
    ({"precision": "float32"}, {}, "grpo.precision: float32"),
    ({"lora": {"lora_dropout": 0.1}}, {}, "grpo.lora.lora_dropout: 0.1"),
    ({"lora": {"load_in_4bit": True}}, {}, "grpo.lora.load_in_4bit: true"),
    *(({}, {"weights": {name: 1.0}}, f"reward: {name} (it needs a model)") for name in ("embedding", "reward_model")),
    ({}, {"gates": {"reference_probability": 0.5}}, "reward: reference_probability (it needs a model)"),
    (
        {},
        {"weights": {"judge": 1.0}, "judge": {"endpoint": {"base_url": "http://127.0.0.1:9/v1", "model": "a"}}},
        "reward: judge (it needs a model)",
    ),
]


@pytest.mark.parametrize(("grpo", "reward", "message"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_verl_cannot_do_is_named(grpo: dict, reward: dict, message: str) -> None:
    settings = settings_of(grpo=grpo).grpo
    (found,) = without_counterpart(settings, RewardInUse.model_validate(reward))
    assert found in message or message in found


def test_what_can_be_exported_has_nothing_to_refuse() -> None:
    for settings in RUNS.values():
        assert without_counterpart(settings.grpo, settings.reward_in_use) == []


def test_a_refusal_is_one_line_and_nothing_is_written(workplace: Workplace) -> None:
    grpo = settings_of(grpo={"loss_type": "bnpo", "lora": {"lora_dropout": 0.1}}).grpo
    few = settings_of(grpo={"gradient_accumulation_steps": 128}).grpo
    cases = {
        "refused": (grpo, "configuration: verl 0.9.1 has no counterpart of grpo.loss_type: bnpo; grpo.lora.lora_dropout: 0.1."),
        "few": (few, "train.parquet: the training split has 33 prompts, one GRPO step takes 64."),
    }
    for name, (settings, message) in cases.items():
        run = workplace.export(name, settings.as_json(), "{}", check=False)
        assert run.returncode == 1
        (line,) = run.stderr.splitlines()
        assert line.startswith("export_verl: error: ")
        assert message in line
        assert [file.name for file in (workplace.folder / FOLDER / name).glob("[!.]*")] == ["export.log"]


@pytest.mark.pipeline
def test_the_workflow_exports_what_it_trains_on(finished_copy: Project) -> None:
    assert finished_copy.jobs("export_verl") == {"export_verl"}
    finished_copy.snakemake("export_verl")
    assert finished_copy.jobs("export_verl") == set()
    results = finished_copy.results()
    trained_on, exported = (read_rows(results / f"{folder}/train.parquet", "prompt") for folder in ("data", "export/verl"))
    assert exported == trained_on
    written = yaml.safe_load((results / "export/verl/verl.yaml").read_text())
    assert written["actor_rollout_ref"]["model"]["path"] == str(results / "sft_model")
    assert written["trainer"]["total_training_steps"] == 3
    assert os.access(results / "export/verl/launch.sh", os.X_OK)


def test_twice_gives_the_same_bytes(exported: dict[str, Path], workplace: Workplace, tmp_path: Path) -> None:
    settings = RUNS["production"]
    before = {file.name: file.read_bytes() for file in exported["production"].glob("[!.]*") if file.suffix != ".log"}
    assert len(before) == 8
    workplace.export("production", settings.grpo.as_json(), settings.reward_in_use.as_json())
    for name, content in before.items():
        assert (exported["production"] / name).read_bytes() == content, name


def test_the_readme_names_what_the_reward_imports(exported: dict[str, Path]) -> None:
    finder = ModuleFinder(path=[str(ROOT / "workflow_scripts")])
    for module in ("metrics", "rewards", "settings/reward", "prompts"):
        finder.run_script(str(ROOT / f"workflow_scripts/ecg_grpo/{module}.py"))
    from importlib.metadata import packages_distributions

    distributions, top = packages_distributions(), {name.split(".")[0] for name in finder.badmodules}
    needed = {normal(distributions[name][0]) for name in top - set(sys.stdlib_module_names) if name in distributions}
    readme = (exported["demo"] / "README.md").read_text()
    listed = readme.split("In an environment with")[1].split("(the versions")[0]
    assert needed == set(re.findall(r"`([\w-]+)`", listed))


def test_the_readme_says_what_is_otherwise(exported: dict[str, Path]) -> None:
    text = {name: (folder / "README.md").read_text() for name, folder in exported.items()}
    assert "| deliver: best | Every checkpoint is kept" in text["production"]
    assert "zero2_offload.json | FSDP shards; the optimizer lies in main memory" in text["production"]
    assert "| rollout: transformers | vLLM samples" in text["demo"]
    assert "an adapter (LoRA, rank 16) is trained" in text["adapter"]
    assert "every parameter is trained" in text["production"]
    assert "lora" not in text["production"].lower()


def test_the_lock_agrees_with_the_environment_before_which_it_stands() -> None:
    locked = lock()
    for name, versions in lock("requirements_verl.lock").items():
        assert locked.get(name, versions) == versions, name


def commands_of(readme: Path) -> str:
    """The block that makes a model of a checkpoint."""
    (block,) = re.findall(r"```\n(STEP=.*?)```", readme.read_text(), flags=re.S)
    return block


def save_checkpoint(base: Path, actor: Path, alpha: int | None, rank: int = 16) -> None:
    """What verl's FSDP engine saves of one process: an adapter of the rank, or with None every weight moved a little."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    (actor / "huggingface").mkdir(parents=True)
    model.config.save_pretrained(actor / "huggingface")
    AutoTokenizer.from_pretrained(base).save_pretrained(actor / "huggingface")
    if alpha is None:
        for weight in model.parameters():
            weight.data += 0.02 * torch.randn_like(weight)
    else:
        meta = {"r": rank, "lora_alpha": alpha, "task_type": "CAUSAL_LM"}
        (actor / "lora_train_meta.json").write_text(json.dumps(meta))
        model = get_peft_model(model, LoraConfig(target_modules="all-linear", **meta | {"lora_alpha": alpha or 1}))
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.data = 0.02 * torch.randn_like(weight)
    torch.save(model.state_dict(), actor / "model_world_size_1_rank_0.pt")
    (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 1, "world_size": 1}))


@pytest.mark.parametrize(("name", "alpha", "status"), [("adapter", 32, 0), ("adapter", 0, 1), ("production", None, 0)], ids=str)
def test_the_readme_s_commands_make_a_model_of_a_checkpoint(
    exported: dict[str, Path],
    workplace: Workplace,
    verl_environment: dict[str, str],
    name: str,
    alpha: int | None,
    status: int,
) -> None:
    from safetensors.torch import load_file

    base = workplace.folder / "results/a-run/sft_model"
    block = commands_of(exported[name] / "README.md")
    step = workplace.folder / re.search(r"^STEP=(\S+)", block)[1]
    shutil.rmtree(step, ignore_errors=True)
    shutil.rmtree(exported[name] / "model", ignore_errors=True)
    save_checkpoint(base, step / "actor", alpha)
    environment = verl_environment | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    run = subprocess.run(["bash", "-e"], input=block, cwd=workplace.folder, env=environment, capture_output=True, text=True)
    assert (run.returncode != 0) == status, run.stderr[-3000:]
    model = exported[name] / "model"
    assert model.exists() == (not status)
    if not status:
        assert (model / "manifest.json").exists()
        one, other = load_file(base / "model.safetensors"), load_file(model / "model.safetensors")
        assert any(not one[key].to(other[key].dtype).equal(other[key]) for key in other)
    if name == "adapter":
        (step / "actor/lora_train_meta.json").unlink()
        assert subprocess.run(["bash", "-e"], input=block.split("python")[0], cwd=workplace.folder, text=True).returncode == 1


def test_the_documentation_shows_the_adapter_that_is_tested() -> None:
    overlay = re.search(r"```yaml\n(grpo:.*?)```", (ROOT / "docs/verl.md").read_text(), flags=re.S)[1]
    assert yaml.safe_load(overlay) == {"grpo": ADAPTER}
