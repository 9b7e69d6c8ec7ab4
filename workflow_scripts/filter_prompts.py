"""Drops the training prompts that GRPO cannot learn from: those that the SFT model always or never answers.

Every prompt is answered several times, and the answers are scored with GRPO's own rewards. Prompts whose rewards are all
high, all low or all equal are left out (DAPO, arXiv 2503.14476, and arXiv 2504.03380 do the like during the training).

    python workflow_scripts/filter_prompts.py --help
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import fmean

from ecg_grpo.batches import require_one_grpo_batch
from ecg_grpo.difficulty import (
    DIFFICULTY,
    count_reasons,
    difficulty_of,
    require_enough_prompts,
)
from ecg_grpo.files import model_directory
from ecg_grpo.progress import StageProgress
from ecg_grpo.reward_arguments import add_reward_arguments, load_configured_mix
from ecg_grpo.rewards import Case
from ecg_grpo.settings.difficulty_filter import DifficultyFilterSettings
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import read_rows, write_table

parser = StageParser("filter_prompts", __doc__)
parser.add_input("--train", help="training split (parquet)")
parser.add_input("--sft-model", help="manifest.json of the merged SFT model")
parser.add_output("--prompts", help="the kept rows of the training split, in its order (parquet) to write")
parser.add_output("--difficulty", help="every prompt's difficulty and why it was kept or dropped (parquet) to write")
parser.add_argument("--scratch", type=Path, help="folder in which a judge's replies are kept (default: none)")
add_reward_arguments(parser)
parser.add_argument("--prompts-per-step", type=int, default=1, help="prompts that one GRPO step takes; fewer are refused")
parser.add_settings("difficulty_filter")


def filter_prompts(arguments: argparse.Namespace, stage: Stage) -> None:
    """Samples, scores, judges, writes."""
    import pyarrow.parquet as pq

    from ecg_grpo.device import prepare_device
    from ecg_grpo.generation import Generation, Sampling, complete_all

    settings = DifficultyFilterSettings.from_json(arguments.settings)
    mix = load_configured_mix(arguments, stage, arguments.sft_model)
    rows = read_rows(arguments.train)
    require_one_grpo_batch(arguments.train, len(rows), max(1, arguments.prompts_per_step))
    directory = model_directory(arguments.sft_model)
    dtype = prepare_device(settings.precision, stage)
    started = time.monotonic()
    with StageProgress(stage, len(rows)) as progress:
        generation = Generation(
            dtype=dtype,
            max_new_tokens=settings.max_completion_length,
            batch_size=settings.batch_size,
            engine=settings.engine,
            sampling=Sampling(settings.temperature, settings.samples, settings.seed),
            gpu_memory_utilization=settings.gpu_memory_utilization,
        )
        groups = complete_all(directory, [row["prompt"] for row in rows], generation, progress.step)
    completions = [completion for group in groups for completion in group]
    stage.facts["generated_tokens"] = sum(completion.completion_tokens for completion in completions)
    stage.facts["truncated_completions"] = sum(completion.finish_reason == "length" for completion in completions)
    stage.facts["generation_seconds"] = round(time.monotonic() - started, 1)
    judged = [
        difficulty_of(
            mix.rewards([Case(completion.text, row["answer"], row["question"], row["prompt"]) for completion in group]),
            settings,
        )
        for row, group in zip(rows, groups, strict=True)
    ]
    stage.facts["prompts"] = count_reasons(judged)
    stage.say(f"{stage.name}: {stage.facts['prompts']}")
    require_enough_prompts(arguments.train, judged, arguments.prompts_per_step)
    metadata = {"settings": arguments.settings, "reward": arguments.reward}
    write_table(
        arguments.difficulty,
        (
            {
                "id": row["id"],
                "mean_reward": entry.mean_reward,
                "spread": entry.spread,
                "mean_length": fmean(completion.completion_tokens for completion in group),
                "kept": entry.reason == "kept",
                "reason": entry.reason,
            }
            for row, group, entry in zip(rows, groups, judged, strict=True)
        ),
        DIFFICULTY,
        metadata,
    )
    kept = (row for row, entry in zip(rows, judged, strict=True) if entry.reason == "kept")
    write_table(arguments.prompts, kept, pq.read_schema(arguments.train), metadata)


if __name__ == "__main__":
    parser.run(filter_prompts)
