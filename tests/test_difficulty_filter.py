"""The difficulty filter drops what teaches GRPO nothing, keeps the rest as it is, and says why."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CORES, ROOT, SAMPLE
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ecg_grpo.difficulty import (
    DIFFICULTY,
    Difficulty,
    count_reasons,
    difficulty_of,
    require_enough_prompts,
)
from ecg_grpo.errors import InputError
from ecg_grpo.files import new_model_directory
from ecg_grpo.settings.difficulty_filter import DifficultyFilterSettings
from ecg_grpo.tables import RECORDS, read_rows, write_table

unit = st.floats(0, 1)


@st.composite
def settings_of_any_kind(draw: st.DrawFn) -> DifficultyFilterSettings:
    low, high = sorted((draw(unit), draw(unit)))
    if low == high:
        low, high = 0.0, 1.0
    return DifficultyFilterSettings(min_reward=low, max_reward=high, min_spread=draw(st.floats(0, 0.5)))


@given(st.lists(unit, min_size=2, max_size=16), settings_of_any_kind())
def test_a_prompt_is_kept_exactly_if_in_range_and_spread(rewards: list[float], settings: DifficultyFilterSettings) -> None:
    judged = difficulty_of(rewards, settings)
    assert (judged.mean_reward, judged.spread) == (fmean(rewards), stdev(rewards))
    in_range = settings.min_reward <= fmean(rewards) <= settings.max_reward
    assert (judged.reason == "kept") == (in_range and stdev(rewards) >= settings.min_spread)
    assert (judged.reason in ("too_easy", "too_hard")) == (not in_range)


@pytest.mark.parametrize(
    ("rewards", "reason"),
    [
        ([0.5, 0.5, 0.5, 0.5], "no_spread"),
        ([0.0, 0.0, 0.0, 0.0], "too_hard"),
        ([1.0, 1.0, 1.0, 1.0], "too_easy"),
        ([0.0, 1.0, 0.0, 1.0], "kept"),
        ([0.5, 0.5, 0.5, 0.505], "no_spread"),
        ([0.5, 0.5, 0.5, 0.6], "kept"),
        ([0.04, 0.05, 0.02, 0.06], "kept"),
        ([0.0, 0.0, 0.0, 0.06], "too_hard"),
    ],
)
def test_reasons_with_the_default_settings(rewards: list[float], reason: str) -> None:
    assert difficulty_of(rewards, DifficultyFilterSettings()).reason == reason


@given(st.lists(st.lists(unit, min_size=2, max_size=4), min_size=1), settings_of_any_kind())
def test_counts_add_up(groups: list[list[float]], settings: DifficultyFilterSettings) -> None:
    judged = [difficulty_of(rewards, settings) for rewards in groups]
    counts = count_reasons(judged)
    assert sum(counts.values()) == len(groups)
    assert {reason: count for reason, count in counts.items() if count} == Counter(entry.reason for entry in judged)


def test_too_few_prompts_are_refused_with_the_figures() -> None:
    judged = [Difficulty(0.95, 0.1, "too_easy"), Difficulty(0.05, 0.1, "too_hard"), Difficulty(0.5, 0.1, "kept")]
    judged.append(Difficulty(0.5, 0.0, "no_spread"))
    require_enough_prompts(Path("train.parquet"), judged, 1)
    with pytest.raises(InputError) as caught:
        require_enough_prompts(Path("train.parquet"), judged, 2)
    assert str(caught.value).startswith(
        "train.parquet: the difficulty filter leaves 1 of 4 prompts (1 too hard, 1 too easy, 1 without spread; mean rewards "
        "from 0.05 to 0.95, median 0.50), one GRPO step takes 2. Widen difficulty_filter.min_reward"
    )
    with pytest.raises(InputError, match="leaves 0 of 1 prompts"):
        require_enough_prompts(Path("train.parquet"), judged[:1], 0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"min_reward": 0.5, "max_reward": 0.5}, r"min_reward \(0.5\) must be less than max_reward \(0.5\)"),
        ({"min_reward": 0.95}, r"min_reward \(0.95\) must be less than max_reward \(0.9\)"),
        ({"max_reward": 1.5}, "max_reward"),
        ({"min_spread": -0.1}, "min_spread"),
        ({"samples": 1}, "samples"),
        ({"temperature": 0}, "temperature"),
        ({"engine": "sglang"}, "engine"),
        ({"gpu_memory_utilization": 1}, "gpu_memory_utilization"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict, expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        DifficultyFilterSettings.model_validate(change)


@dataclass(frozen=True)
class Workplace:
    """A folder with a training split and a model, and the program that filters the one by the other."""

    folder: Path
    python: str = sys.executable

    def run(self, name: str, prompts_per_step: int = 1, **settings: object) -> subprocess.CompletedProcess[str]:
        """Runs the program; results go to `<folder>/<name>/`."""
        settings = {"samples": 3, "max_completion_length": 8, "batch_size": 4, "precision": "float32", **settings}
        program = [self.python, "workflow_scripts/filter_prompts.py"]
        files = {
            "train": self.folder / "train.parquet",
            "sft-model": self.folder / "model/manifest.json",
            **{key: self.folder / name / f"{key}.parquet" for key in ("prompts", "difficulty")},
            "provenance": self.folder / name / "provenance.json",
        }
        options = {
            **files,
            "prompts-per-step": prompts_per_step,
            "threads": 2,
            "settings": json.dumps(settings),
        }
        arguments = [str(part) for key, value in options.items() for part in (f"--{key}", value)]
        return subprocess.run([*program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)

    def results(self, name: str) -> tuple[list[dict], list[dict]]:
        """The rows of the kept prompts and of the difficulties."""
        return read_rows(self.folder / name / "prompts.parquet"), read_rows(self.folder / name / "difficulty.parquet")

    def files(self, name: str) -> list[str]:
        """The names of what a run left behind."""
        return sorted(file.name for file in (self.folder / name).glob("*")) if (self.folder / name).exists() else []


def training_rows(count: int) -> list[dict[str, object]]:
    """Rows as `prepare_data` writes them, of the sample data; prompts of different lengths."""
    pairs = json.loads((SAMPLE / "ECG Knowledge (Basic Q&A).json").read_text())[:count]
    return [
        {
            "id": f"EBK-{index:05d}",
            "task": "EBK",
            "source_file": "ECG Knowledge (Basic Q&A).json",
            "source_row": index,
            "turn": None,
            "subject": None,
            "context": "",
            "history": [],
            "question": pair["Q"],
            "answer": pair["A"],
            "prompt": [{"role": "system", "content": "Answer."}, {"role": "user", "content": pair["Q"]}],
            "split": "train",
            "cluster": f"EBK-{index:05d}",
            "prompt_tokens": 0,
            "answer_tokens": 0,
            "flags": ["contradicts EBK-00001"] if index == 2 else [],
        }
        for index, pair in enumerate(pairs)
    ]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Workplace:
    folder = tmp_path_factory.mktemp("difficulty")
    with new_model_directory(folder / "model") as partial:
        for file in tiny_model.iterdir():
            shutil.copy(file, partial)
    write_table(folder / "train.parquet", training_rows(10), RECORDS, {})
    place = Workplace(folder)
    run = place.run("open", min_reward=0.0, max_reward=1.0, min_spread=0.0)
    assert run.returncode == 0, run.stderr
    return place


@pytest.mark.pipeline
def test_an_open_filter_keeps_every_row_as_it_was(workplace: Workplace) -> None:
    prompts, difficulty = workplace.results("open")
    assert prompts == read_rows(workplace.folder / "train.parquet")
    assert pq.read_schema(workplace.folder / "open/difficulty.parquet").equals(DIFFICULTY)
    assert [row["id"] for row in difficulty] == [row["id"] for row in prompts]
    assert all(row["kept"] and row["reason"] == "kept" for row in difficulty)
    assert all(0 < row["mean_reward"] < 1 and row["spread"] >= 0 and 1 <= row["mean_length"] <= 8 for row in difficulty)
    assert len({row["mean_reward"] for row in difficulty}) > 5
    assert any(row["spread"] > 0 for row in difficulty), "the samples of a prompt were all the same"
    facts = json.loads((workplace.folder / "open/provenance.json").read_text())["facts"]
    assert facts["prompts"] == {"kept": 10, "too_easy": 0, "too_hard": 0, "no_spread": 0}
    assert facts["generated_tokens"] == pytest.approx(3 * sum(row["mean_length"] for row in difficulty))
    assert facts["generation_seconds"] > 0
    assert 0 <= facts["truncated_completions"] <= 30


@pytest.mark.pipeline
def test_the_rows_between_the_bounds_are_kept_in_order_and_two_runs_agree(workplace: Workplace) -> None:
    _, difficulty = workplace.results("open")
    low = median(row["mean_reward"] for row in difficulty)
    ids = {row["id"] for row in difficulty if row["mean_reward"] >= low}
    assert 0 < len(ids) < 10
    for name in ("first", "second"):
        run = workplace.run(name, prompts_per_step=2, min_reward=low, max_reward=1.0, min_spread=0.0)
        assert run.returncode == 0, run.stderr
    prompts, judged = workplace.results("first")
    assert prompts == [row for row in read_rows(workplace.folder / "train.parquet") if row["id"] in ids]
    assert {row["id"] for row in judged if row["reason"] == "too_hard"} == {row["id"] for row in difficulty} - ids
    for file in ("prompts.parquet", "difficulty.parquet"):
        assert (workplace.folder / "first" / file).read_bytes() == (workplace.folder / "second" / file).read_bytes()


@pytest.mark.pipeline
def test_another_seed_samples_other_completions(workplace: Workplace) -> None:
    run = workplace.run("seed", seed=1, min_reward=0.0, max_reward=1.0, min_spread=0.0)
    assert run.returncode == 0, run.stderr
    assert workplace.results("seed")[1] != workplace.results("open")[1]


@pytest.mark.pipeline
def test_too_few_prompts_are_refused_and_nothing_is_written(workplace: Workplace) -> None:
    run = workplace.run("strict", prompts_per_step=2, min_reward=0.98, max_reward=0.99)
    assert run.returncode == 1
    assert "train.parquet: the difficulty filter leaves 0 of 10 prompts (10 too hard, 0 too easy" in run.stderr
    assert "one GRPO step takes 2" in run.stderr
    assert "Traceback" not in run.stderr
    assert workplace.files("strict") == []


def test_a_split_that_is_too_small_anyway_is_refused_before_sampling(workplace: Workplace) -> None:
    run = workplace.run("small", prompts_per_step=11)
    assert run.returncode == 1
    assert "the training split has 10 prompts, one GRPO step takes 11" in run.stderr
    assert "filter_prompts 4/10" not in run.stderr
    assert workplace.files("small") == []


@pytest.mark.pipeline
def test_every_column_stays(workplace: Workplace, tmp_path: Path) -> None:
    shutil.copytree(workplace.folder / "model", tmp_path / "model")
    schema = RECORDS.append(pa.field("weight", pa.float64()))
    write_table(tmp_path / "train.parquet", [row | {"weight": 0.5} for row in training_rows(2)], schema, {"a": "b"})
    run = Workplace(tmp_path).run("more", min_reward=0.0, max_reward=1.0, min_spread=0.0)
    assert run.returncode == 0, run.stderr
    assert read_rows(tmp_path / "more/prompts.parquet") == read_rows(tmp_path / "train.parquet")
    assert pq.read_schema(tmp_path / "more/prompts.parquet").equals(schema)


def test_without_vllm_the_message_names_the_environment(workplace: Workplace, tmp_path: Path) -> None:
    # A finder in front of all others, so that the test holds where vLLM is installed too.
    hide = (
        "import sys\n\n\nclass Hide:\n    def find_spec(name, path, target=None):\n        if name == 'vllm':\n"
        "            raise ModuleNotFoundError('hidden', name='vllm')\n\n\nsys.meta_path.insert(0, Hide)\n"
        "from ecg_grpo.vllm_on_cpu import import_vllm\n\nimport_vllm()\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", hide], cwd=ROOT / "workflow_scripts", capture_output=True, text=True, check=False
    )
    assert "InputError: vllm: the engine vllm is asked for, but its package is not installed" in run.stderr
    assert "envs/train_vllm.yaml" in run.stderr


@pytest.fixture(scope="module")
def with_vllm(workplace: Workplace) -> Workplace:
    python = os.environ.get("ECG_GRPO_VLLM_PYTHON") or str(ROOT / ".venv-vllm/bin/python")
    if not Path(python).exists():
        pytest.skip(f"there is no {python}: run `make env-vllm`, or name a python that has vLLM in ECG_GRPO_VLLM_PYTHON")
    return Workplace(workplace.folder, python)


@pytest.mark.vllm
@pytest.mark.pipeline
def test_vllm_samples_the_same_distribution_reproducibly(with_vllm: Workplace) -> None:
    for name in ("vllm-1", "vllm-2"):
        run = with_vllm.run(name, engine="vllm", samples=8, min_reward=0.0, max_reward=1.0, min_spread=0.0)
        assert run.returncode == 0, run.stderr
    run = with_vllm.run("hf", samples=8, min_reward=0.0, max_reward=1.0, min_spread=0.0)
    assert run.returncode == 0, run.stderr
    for file in ("prompts.parquet", "difficulty.parquet"):
        assert (with_vllm.folder / "vllm-1" / file).read_bytes() == (with_vllm.folder / "vllm-2" / file).read_bytes()
    prompts, judged = with_vllm.results("vllm-1")
    assert prompts == read_rows(with_vllm.folder / "train.parquet")
    assert sum(row["spread"] > 0 for row in judged) > 5
    for column in ("mean_reward", "mean_length"):
        of_vllm, of_transformers = (fmean(row[column] for row in with_vllm.results(name)[1]) for name in ("vllm-1", "hf"))
        assert of_vllm == pytest.approx(of_transformers, rel=0.25), column


@pytest.mark.vllm
def test_vllm_and_transformers_agree_greedily(with_vllm: Workplace) -> None:
    """The same prompts, tokenised alike, reach both engines: a second start token would change the answers."""
    program = (
        "import sys, torch\nfrom pathlib import Path\nfrom ecg_grpo.generation import Generation, complete_all\n"
        "from ecg_grpo.tables import read_rows\n\n"
        "prompts = [row['prompt'] for row in read_rows(Path(sys.argv[2]), 'prompt')]\n"
        "answers = [complete_all(Path(sys.argv[1]), prompts, Generation(torch.float32, 8, 1, engine), lambda *_: None)"
        " for engine in ('transformers', 'vllm')]\n"
        "texts = [[(one.text, one.finish_reason, one.completion_tokens) for (one,) in groups] for groups in answers]\n"
        "assert texts[0] == texts[1], texts\nassert len(texts[0]) == 10\n"
    )
    arguments = [str(with_vllm.folder / "model"), str(with_vllm.folder / "train.parquet")]
    run = subprocess.run(
        [with_vllm.python, "-c", program, *arguments],
        cwd=ROOT / "workflow_scripts",
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": CORES},
    )
    assert run.returncode == 0, run.stderr
