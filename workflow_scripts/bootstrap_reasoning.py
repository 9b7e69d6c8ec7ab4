"""Writes the reasonings that SFT begins with: a model is shown question and answer and asked for the steps between them.

Of several samples the best is kept that does not quote the answer, passes bounds on length and repetition, and raises the
model's probability of the reference over no reasoning, empty words and a stranger's. The account says what was kept and why the
others were refused. A killed run goes on after the last batch that was finished.

    python workflow_scripts/bootstrap_reasoning.py --help
"""

from __future__ import annotations

import argparse
import gc
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ecg_grpo.checkpoints import scratch_directory
from ecg_grpo.errors import InputError
from ecg_grpo.files import model_directory, write_json
from ecg_grpo.journal import Journal
from ecg_grpo.progress import StageProgress
from ecg_grpo.reasoning import BEATEN, REASONINGS, BootstrapPrompt, Sample, account, choose, refusal, texts_to_beat
from ecg_grpo.settings.bootstrap_reasoning import BootstrapSettings
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import evenly, read_rows, write_table

if TYPE_CHECKING:
    import torch

parser = StageParser("bootstrap_reasoning", __doc__)
parser.add_input("--records", help="split with the reference answers (parquet)")
parser.add_input("--model", nargs="+", metavar="FILE", help="the model's manifest.json, or all files of its directory")
parser.add_input("--prompt", help="text with $question and $answer that asks for the steps between them")
parser.add_output("--reasonings", help="the kept reasonings to write (parquet)")
parser.add_output("--account", help="how many were kept and refused, with examples, to write (JSON)")
parser.add_argument("--scratch", type=Path, help="folder for work to go on from (default: none, a killed run starts anew)")
parser.add_settings("bootstrap_reasoning")


def bootstrap_reasoning(arguments: argparse.Namespace, stage: Stage) -> None:
    """Samples, refuses, scores, chooses, writes."""
    from ecg_grpo.answering import answer_questions, forget
    from ecg_grpo.device import prepare_device
    from ecg_grpo.generation import Generation, Sampling

    settings = BootstrapSettings.from_json(arguments.settings)
    prompt = BootstrapPrompt(arguments.prompt)
    rows = read_rows(arguments.records, "id", "question", "answer", "prompt")
    records = evenly(rows, settings.max_records or len(rows))
    (first, *others) = arguments.model
    directory = first.parent if others else model_directory(first)
    dtype = prepare_device(settings.generation.precision, stage)
    generation = Generation(
        dtype,
        settings.generation.max_new_tokens,
        max(1, settings.generation.batch_size // settings.sampling.samples),
        settings.generation.engine,
        Sampling(settings.sampling.temperature, settings.sampling.samples, settings.sampling.seed),
        settings.generation.gpu_memory_utilization,
    )
    scratch = None
    if arguments.scratch is not None:
        name = f"bootstrap_reasoning.{arguments.reasonings.stem}"
        inputs = [*arguments.model, arguments.records, arguments.prompt]
        scratch = scratch_directory(arguments.scratch, __file__, arguments.settings, str(dtype), inputs, name)
    asked = [{"prompt": prompt.messages(record["prompt"], record["answer"])} for record in records]
    found = answer_questions(directory, asked, generation, scratch, stage)
    gc.collect()  # vLLM gives its memory back when its engine is collected
    samples = []
    for place, record in enumerate(records):
        question = "\n".join(turn["content"] for turn in record["prompt"] if turn["role"] != "system")
        for completion in found[place]:
            text, ended = completion.text.strip(), completion.finish_reason == "stop"
            refused = refusal(text, ended, question, record["answer"], settings.filter, prompt.request)
            samples.append(Sample(place, text, refused))
    gains, to_beat = score(directory, records, samples, dtype, settings, scratch, stage)
    samples = choose(samples, gains, settings.filter.min_gain)
    counted = account(samples, records, len(rows)) | {"to_beat": to_beat}
    stage.facts |= {"records": counted["records"], "samples": counted["samples"]}
    stage.say(f"{stage.name}: {counted['records']}, {counted['samples']}")
    kept = [sample for sample in samples if sample.outcome == "kept"]
    if not kept:
        raise InputError(
            arguments.records,
            f"not one of {len(samples)} reasonings was good enough: {counted['samples']}",
            "Widen bootstrap_reasoning.filter, draw more samples, or name a larger bootstrap_reasoning.model.",
        )
    reasonings = ({"id": records[sample.record]["id"], "reasoning": sample.text, "gain": sample.gain} for sample in kept)
    write_table(arguments.reasonings, reasonings, REASONINGS, {"settings": arguments.settings})
    write_json(arguments.account, counted)
    forget(scratch)


def score(
    directory: Path,
    records: list[dict[str, Any]],
    samples: list[Sample],
    dtype: torch.dtype,
    settings: BootstrapSettings,
    scratch: Path | None,
    stage: Stage,
) -> tuple[dict[int, float], dict[str, float]]:
    """The gain (`Sample.gain`) of every sample that is open, by its place; and what had to be beaten: the mean log-probability
    of the references after each of `BEATEN`.
    """
    from ecg_grpo.reference_probability import Thought, load_scorer, reference_probabilities

    open_places = [place for place, sample in enumerate(samples) if sample.outcome is None]
    if not open_places:
        return {}, {}
    beaten = [(record, text) for record, texts in texts_to_beat(samples).items() for text in texts]
    texts = beaten + [(samples[place].record, samples[place].text) for place in open_places]
    thoughts = [Thought(records[record]["prompt"], text, records[record]["answer"]) for record, text in texts]
    journal = Journal(scratch and scratch / "scores.jsonl")
    scores = {int(index): value for entry in journal.entries for index, value in entry.items()}
    model, tokenizer = load_scorer(directory, dtype)
    with StageProgress(stage, len(thoughts), len(scores)) as progress:
        for batch in reference_probabilities(model, tokenizer, thoughts, settings.scoring.batch_size, len(journal.entries)):
            found = {index: one.mean_log_probability for index, one in batch.items()}
            journal.add(found)
            scores |= found
            progress.step(len(scores), "references")
    best: dict[int, float] = {}
    for index, (record, _) in enumerate(beaten):
        best[record] = max(scores[index], best.get(record, scores[index]))
    gains = {place: scores[len(beaten) + number] - best[samples[place].record] for number, place in enumerate(open_places)}
    return gains, {
        name: fmean(scores[index] for index in range(place, len(beaten), len(BEATEN))) for place, name in enumerate(BEATEN)
    }


if __name__ == "__main__":
    parser.run(bootstrap_reasoning)
