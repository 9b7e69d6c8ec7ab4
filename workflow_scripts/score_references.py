"""A model's loss on every reference answer, as SFT measures it: negative log-likelihood per token, in nats.

It needs no generated answer, so it sees small changes that greedy answers hide; the exponential of its mean is the perplexity.
Where models reason, the reference follows the model's own reasoning and its tokens alone are scored.
"""

from __future__ import annotations

import argparse
import math

from ecg_grpo.files import model_directory
from ecg_grpo.progress import StageProgress
from ecg_grpo.settings.scoring import ReferenceLossSettings
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.supervised import supervised_example
from ecg_grpo.tables import REFERENCE_LOSS, read_rows, write_table

parser = StageParser("score_references", __doc__)
parser.add_input("--model", nargs="+", metavar="FILE", help="the model's manifest.json, or all files of its directory")
parser.add_input("--questions", help="split with the reference answers (parquet)")
parser.add_input(
    "--reasoned", nargs="*", default=[], metavar="FILE", help="the model's answers, after whose reasonings to score (parquet)"
)
parser.add_output("--losses", help="losses to write (parquet)")
parser.add_settings("evaluation.reference_loss")


def score_references(arguments: argparse.Namespace, stage: Stage) -> None:
    """Loads the model, scores, writes."""
    settings = ReferenceLossSettings.from_json(arguments.settings)
    records = read_rows(arguments.questions, "id", "prompt", "answer")
    (first, *others) = arguments.model
    directory = first.parent if others else model_directory(first)

    from ecg_grpo.device import prepare_device
    from ecg_grpo.reference_loss import ReferenceLoss, losses_after_reasoning, reference_losses
    from ecg_grpo.reference_probability import Thought

    dtype = prepare_device(settings.precision, stage)
    if arguments.reasoned:
        reasonings = {
            row["id"]: row["reasoning"] or "" for file in arguments.reasoned for row in read_rows(file, "id", "reasoning")
        }
        thoughts = [Thought(record["prompt"], reasonings[record["id"]], record["answer"]) for record in records]
        losses = losses_after_reasoning(directory, thoughts, dtype, settings.batch_size)
    else:
        examples = [supervised_example(record["prompt"], record["answer"]) for record in records]
        losses = reference_losses(directory, examples, dtype, settings.batch_size)
    found: dict[int, ReferenceLoss] = {}
    with StageProgress(stage, len(records)) as progress:
        for batch in losses:
            found |= batch
            progress.step(len(found), "references")
    if found:
        tokens = sum(loss.tokens for loss in found.values())
        per_token = sum(loss.tokens * loss.mean for loss in found.values()) / tokens
        per_record = sum(loss.mean for loss in found.values()) / len(found)
        stage.facts |= {"reference_tokens": tokens, "nats_per_token": round(per_token, 4)}
        stage.facts |= {"mean_of_records": round(per_record, 4), "perplexity": round(math.exp(per_record), 3)}
        stage.say(f"{stage.name}: {per_record:.4f} nats, perplexity {math.exp(per_record):.3f}")
    rows = ({"id": record["id"], "reference_loss": found[index].mean} for index, record in enumerate(records))
    write_table(arguments.losses, rows, REFERENCE_LOSS, {"settings": arguments.settings})


if __name__ == "__main__":
    parser.run(score_references)
