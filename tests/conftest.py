"""What the tests share: a tiny real model, a copy of the project to work in, and one finished run of the whole pipeline."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "resources" / "sample"
RULE_FILES = sorted(file for file in (ROOT / "rules").glob("*.smk") if file.stem != "one_run")
"""All that have rules with programs; the other one has targets."""

SYSTEMS = ["echo", "constant", "nearest", "base", "sft", "grpo"]
REPRODUCIBLE = [
    *(f"data/{name}.parquet" for name in ("train", "validation", "test", "quarantine", "dropped")),
    *("data/account.json", "data/data_report.json"),
    *("sft/checkpoint/manifest.json", "sft_model/manifest.json", "grpo/checkpoint/manifest.json"),
    *("grpo_model/manifest.json", "grpo/completions.parquet", "evaluation/comparison.json"),
    *(f"evaluation/{system}/scores.parquet" for system in SYSTEMS),
    "evaluation/contamination.parquet",
]
"""Results that hold no time of day and no seconds: two runs write the same bytes."""

ONE_OF_SEVERAL = "PYTEST_XDIST_WORKER" in os.environ
CORES = "1" if ONE_OF_SEVERAL else "2"
"""For Snakemake. Threads of two trainings on the same two cores would wait for each other most of the time."""

# Tests that import torch run in processes of their own (the programs); what runs in this one must not take every core.
os.environ.setdefault("OMP_NUM_THREADS", CORES)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

WRITES_ITS_OUTPUTS = """#!/bin/sh
for argument; do
    case $argument in
    */scratch* | */tensorboard* | */.store) ;;
    results/*) [ -e "$argument" ] || { mkdir -p "$(dirname "$argument")" && echo "{}" >"$argument"; } ;;
    esac
done
"""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Project:
    """A copy of the project's files in a folder of its own."""

    folder: Path

    def snakemake(
        self, *arguments: str, check: bool = True, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs snakemake there, as a user would."""
        run = subprocess.run(
            ["snakemake", "--cores", CORES, *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        if check and run.returncode:
            logs = "\n".join(file.read_text()[-3000:] for file in self.folder.glob("results/*/logs/*.log"))
            raise AssertionError(f"snakemake {arguments} ended with {run.returncode}\n{run.stderr[-5000:]}\n{logs}")
        return run

    def jobs(self, *arguments: str) -> set[str]:
        """The rules of which a dry run would run a job."""
        return rules_in(self.snakemake(*arguments, "--dry-run", "--quiet", "host").stdout)

    def results(self, run: str = "demo") -> Path:
        """The folder of a run."""
        return self.folder / "results" / run

    def configure(self, **sections: object) -> None:
        """Changes keys of config/config.yaml: `configure(grpo={"learning_rate": 1e-5})`."""
        file = self.folder / "config" / "config.yaml"
        configuration = yaml.safe_load(file.read_text())
        _update(configuration, sections)
        file.write_text(yaml.safe_dump(configuration, sort_keys=False))

    def edit(self, file: str, old: str, new: str) -> None:
        """Replaces a text that must stand in a file exactly once."""
        path = self.folder / file
        text = path.read_text()
        assert text.count(old) == 1, f"{file} has {old!r} {text.count(old)} times"
        path.write_text(text.replace(old, new))

    def forget(self, *results: str) -> None:
        """Deletes folders of the results."""
        for name in results:
            shutil.rmtree(self.results() / name, ignore_errors=True)


def stand_in_for_programs(folder: Path) -> dict[str, str]:
    """For tests of the graph: environment variables with which a rule's `python` writes an empty object to each output."""
    folder.mkdir(exist_ok=True)
    (folder / "python").write_text(WRITES_ITS_OUTPUTS)
    (folder / "python").chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}


def _update(configuration: dict, changes: dict) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(configuration.get(key), dict):
            _update(configuration[key], value)
        else:
            configuration[key] = value


def rules_in(plan: str) -> set[str]:
    """The rules of which a dry run that printed this would run a job."""
    lines = plan.split("Job stats:")[1].splitlines() if "Job stats:" in plan else []
    return {words[0] for line in lines if len(words := line.split()) == 2 and words[1].isdigit()} - {"total", "report"}


def copy_project(folder: Path) -> Project:
    """The files that git knows, or would take up, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file() or (ROOT / name).is_symlink():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target, follow_symlinks=False)
    return Project(folder)


def tiny_settings(model: Path) -> dict[str, object]:
    """The demo's configuration made small: the same stages, seconds each."""
    return {
        "base_model": {"source": "path", "path": str(model), "eos_token": None, "pad_token": None},
        "data": {"max_prompt_tokens": 700, "max_answer_tokens": 300, "test_fraction": 0.05, "validation_fraction": 0.05},
        "sft": {
            "max_length": 1000,
            "per_device_train_batch_size": 16,
            "num_train_epochs": 0.5,
            "learning_rate": 0.01,
            "save_steps": 4,
        },
        "reward_model": {"samples": {"questions": 16, "generation": {"max_new_tokens": 32}}},
        "grpo": {
            "max_steps": 3,
            "max_completion_length": 16,
            "save_steps": 2,
            "learning_rate": 0.001,
            "guards": {"max_clipped_ratio": None, "max_entropy": None},  # random weights: no end, ln(600) nats
        },
        "evaluation": {
            "generation": {"max_new_tokens": 16},
            "comparison": {"resamples": 200},
            "meaning": None,
            "reference_loss": None,
        },
    }


def pytest_configure(config: pytest.Config) -> None:
    """Hides the GPUs of a machine that has some from all tests but those for them: a processor's sums are what they compare."""
    if shutil.which("nvidia-smi") and config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that no worker ends long after the others. The longest makes the finished run; the next ones do
    without it, so that nobody waits.
    """
    pipeline, need_the_run = set(), set()
    for item in items:
        if item.get_closest_marker("pipeline"):
            pipeline.add(item.path)
        if "finished" in getattr(item, "fixturenames", ()):
            need_the_run.add(item.path)

    def place(item: pytest.Item) -> int:
        if item.path.stem == "test_training_at_scale":
            return 0
        return 2 if item.path in need_the_run else 1 if item.path in pipeline else 3

    items.sort(key=place)


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first of the tests' processes to ask for it makes, while the others wait."""
    root = factory.getbasetemp().parent if ONE_OF_SEVERAL else factory.getbasetemp()
    folder, done = root / name, root / f"{name}.done"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with its own tokenizer, as a model directory."""
    return made_once(tmp_path_factory, "tiny_model", save_tiny_model)


def save_tiny_model(folder: Path) -> None:
    """Weights, tokenizer and chat template. head_dim is 64: vLLM on CPU refuses less."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    texts = [value for file in sorted(SAMPLE.glob("*.json")) for row in json.loads(file.read_text()) for value in row.values()]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|pad|>", "<|start|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|start|>", eos_token="<|end|>", pad_token="<|pad|>", chat_template=CHAT_TEMPLATE
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(fast),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=64,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            bos_token_id=fast.bos_token_id,
            eos_token_id=fast.eos_token_id,
            pad_token_id=fast.pad_token_id,
        )
    )
    model.save_pretrained(folder)
    fast.save_pretrained(folder)


@pytest.fixture(scope="session")
def vllm_environment() -> dict[str, str]:
    """Environment variables with which a rule's `python` and `accelerate` are those that have vLLM and DeepSpeed."""
    folder = ROOT / ".venv-vllm"
    if not (folder / "complete").exists():
        pytest.skip("no .venv-vllm: run `make env-vllm`")
    return os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}


@pytest.fixture
def in_own_mounts() -> list[str]:
    """A command before another one, which may then mount file systems that nobody else sees."""
    command = ["unshare", "-rm"]
    allowed = subprocess.run([*command, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    if allowed.returncode:
        pytest.skip("this user may not mount file systems")
    return command


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path) -> Project:
    """A fresh copy of the project with the tiny configuration and no results."""
    copy = copy_project(tmp_path / "project")
    copy.configure(**tiny_settings(tiny_model))
    return copy


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Project:
    """A project in which the whole pipeline ran. Tests read it; what they change they put back or copy first."""

    def make(folder: Path) -> None:
        copy = copy_project(folder)
        copy.configure(**tiny_settings(tiny_model))
        copy.snakemake()

    folder = tmp_path_factory.mktemp("finished") / "project"
    shutil.copytree(made_once(tmp_path_factory, "finished_run", make), folder, symlinks=True)
    return Project(folder)


@pytest.fixture
def finished_copy(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished project, results and Snakemake's memory included, to change at will."""
    folder = tmp_path / "project"
    shutil.copytree(finished.folder, folder, symlinks=True)
    return Project(folder)
