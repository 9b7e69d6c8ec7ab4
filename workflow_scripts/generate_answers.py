"""A model answers every question of a split, greedily; prompts are those of the training, answers are all kept."""

from __future__ import annotations

import argparse
import time

from ecg_grpo.files import model_directory
from ecg_grpo.progress import StageProgress
from ecg_grpo.prompts import extract_prediction
from ecg_grpo.settings.evaluation import GenerationSettings
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import ANSWERS, read_rows, write_table

parser = StageParser("generate_answers", __doc__)
parser.add_input("--model", help="manifest.json of the model")
parser.add_input("--questions", help="split to answer (parquet)")
parser.add_output("--answers", help="answers to write (parquet)")
parser.add_settings("evaluation.generation")


def generate_answers(arguments: argparse.Namespace, stage: Stage) -> None:
    """Loads the model, answers, writes."""
    from ecg_grpo.device import prepare_device
    from ecg_grpo.generation import generate

    settings = GenerationSettings.from_json(arguments.settings)
    records = read_rows(arguments.questions, "id", "task", "cluster", "context", "question", "answer", "prompt")
    directory = model_directory(arguments.model)
    dtype = prepare_device(settings.precision, stage)
    started = time.monotonic()
    with StageProgress(stage, len(records)) as progress:
        completions = generate(
            directory,
            [record["prompt"] for record in records],
            dtype,
            settings.batch_size,
            settings.max_new_tokens,
            progress.step,
        )
    stage.facts["generated_tokens"] = sum(completion.completion_tokens for completion in completions)
    stage.facts["generation_seconds"] = round(time.monotonic() - started, 1)
    rows = [
        {
            **record,
            "completion": completion.text,
            "prediction": extract_prediction(completion.text),
            "finish_reason": completion.finish_reason,
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.completion_tokens,
        }
        for record, completion in zip(records, completions, strict=True)
    ]
    write_table(arguments.answers, rows, ANSWERS, {"settings": arguments.settings})


if __name__ == "__main__":
    parser.run(generate_answers)
