"""A run's model and data as ECG-Bench and its successor ECG-Language-Models take them.

`ecg_bench`             github.com/willxxy/ECG-Bench b115bc4
`ecg_language_models`   github.com/ELM-Research/ECG-Language-Models 26c2d54

Both load a merged model directory by an entry in a table of theirs, and a dataset by its name there. `ecg_bench_check` says
whether a folder is what they take.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ecg_grpo.errors import InputError
from ecg_grpo.files import link, read_json, write_json
from ecg_grpo.llama_3 import ANSWER_STARTS, VOCABULARY, fastchat_text, lacks
from ecg_grpo.prompts import Message
from ecg_grpo.tables import write_table
from ecg_grpo.weight_digests import tensor_digests, tensor_formats

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DATASET = "ecg-expert-qa"
"""The dataset's name in `HF_DATASETS`. One with `ecg-qa` or `pretrain-mimic` in it would be read as those are."""

MODEL, SYSTEM_PROMPT, ENTRY, README, FACTS = "model", "system_prompt.txt", "hf_llms_entry.py", "README.md", "export.json"
"""What an export's files are called."""

ROWS = pa.schema([("ecg_path", pa.string()), ("text", pa.string()), ("name", pa.string())])
"""One row a record: its signal, its turns as JSON (`[{"from": "human", "value": …}, {"from": "gpt", "value": …}]`), its id."""

SIGNAL_SAMPLES = 1250
"""Samples of each of 12 leads of the signal that ECG-Bench is given: 5 seconds at 250 Hz, its own default."""


@dataclass(frozen=True)
class Benchmark:
    """One of the two projects.

    Attributes:
        owner: the prefix of dataset names that stands in its code.
        ecg_path: what a row without a recording has there. ECG-Bench reads `./data` as `./ecg_bench/data` and opens the file,
            the successor makes a flat line of the word.
    """

    owner: str
    ecg_path: str

    def file(self, folder: Path, split: str, fold: int) -> Path:
        """A split's file in an export: `datasets.load_dataset` takes its name from the file's."""
        return folder / "datasets" / self.owner / DATASET / "data" / f"fold{fold}_{split}-00000-of-00001.parquet"


BENCHMARKS = {
    "ecg_bench": Benchmark("willxxy", f"./data/{DATASET}/flatline.npy"),
    "ecg_language_models": Benchmark("ELM-Research", "flatline"),
}

_REWRITTEN = re.compile(
    r"\b(?:image|picture)\b|<\s*ecg\s*>|^\s*(?:(?:user|assistant|human|gpt|model|system|q|a)\s*)?[:\uff1a]", re.IGNORECASE
)
"""What at least one of the projects takes out of a text or replaces before a model sees it."""


def refuse_if_unfit(manifest: Path) -> None:
    """Checks what can be said of a model before anything is computed.

    Args:
        manifest: the model's manifest.json.

    Raises:
        InputError: the model is no Llama 3, or was trained on prompts that the projects do not write.
    """
    from transformers import AutoTokenizer

    config = read_json(manifest.parent / "config.json")
    reasons = []
    if config.get("model_type") != "llama" or config.get("vocab_size") != VOCABULARY:
        reasons = [f"its config.json says {config.get('model_type')} with a vocabulary of {config.get('vocab_size')}"]
    tokenizer = None if reasons else AutoTokenizer.from_pretrained(manifest.parent)
    if reasons := reasons or lacks(tokenizer):
        raise InputError(
            manifest.parent,
            f"ECG-Bench and its successor would be told that this model is a Llama 3, and it is none ({'; '.join(reasons)})",
            "Export a run of a Llama 3 model, such as that of config/llama-3.2-3b.yaml.",
        )
    asked = [Message(role="system", content="Who you are."), Message(role="user", content="A question?")]
    if tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True) != fastchat_text(asked, asks=True):
        raise InputError(
            manifest.parent,
            "its chat template writes other prompts than FastChat's llama-3, with which ECG-Bench and its successor ask",
            "Set base_model.chat_template to resources/chat_templates/llama-3.jinja (and chat_date to null) and train again.",
        )


def refuse_other_prompts(rows: Iterable[Mapping[str, Any]], system_prompt: str, file: Path) -> None:
    """Checks that every record is asked under the one system prompt that an export can have.

    Args:
        rows: records with `prompt`.
        system_prompt: that prompt.
        file: where the records are from, for the message.

    Raises:
        InputError: a record is asked under another one, or none.
    """
    found = {row["prompt"][0]["content"] if row["prompt"][0]["role"] == "system" else "" for row in rows}
    if others := found - {system_prompt}:
        raise InputError(file, f"its prompts have {1 + len(others)} system prompts", "Prepare the data again.")


def turns(prompt: Sequence[Message], answer: str) -> list[dict[str, str]]:
    """A record as both projects read it; the system prompt comes from a file there.

    Args:
        prompt: as `build_prompt` made it: earlier turns of a dialogue stand before the question, the context before the first.
        answer: the reference.
    """
    speakers = {"user": "human", "assistant": "gpt"}
    asked = [{"from": speakers[message["role"]], "value": message["content"]} for message in prompt[1:]]
    return [*asked, {"from": "gpt", "value": answer}]


def write_datasets(folder: Path, splits: Mapping[str, Sequence[Mapping[str, Any]]], fold: int) -> None:
    """Writes every split for both projects.

    Args:
        folder: the export.
        splits: records with `id`, `prompt` and `answer`, by the split's name.
        fold: number that the projects know the split by.
    """
    for benchmark in BENCHMARKS.values():
        for split, records in splits.items():
            rows = [
                {
                    "ecg_path": benchmark.ecg_path,
                    "text": json.dumps(turns(record["prompt"], record["answer"]), ensure_ascii=False),
                    "name": record["id"],
                }
                for record in records
            ]
            write_table(benchmark.file(folder, split, fold), rows, ROWS, {})


def link_model(source: Path, target: Path) -> None:
    """Links a model's files; what decides how is generated when nobody says it is written anew.

    Args:
        source: a directory that a manifest stands for.
        target: the directory to make.
    """
    from transformers import AutoTokenizer

    for name in read_json(source / "manifest.json")["files"]:
        if name != "generation_config.json":
            link(source / name, target / name)
    tokenizer = AutoTokenizer.from_pretrained(source)
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    write_json(target / "generation_config.json", ids | {"do_sample": False})


def entry(model: Path, run: str, of: str) -> dict[str, Any]:
    """What a template needs to write the entry in `HF_LLMS`, every token's number from the tokenizer.

    Args:
        model: directory of the model.
        run: name of the run.
        of: which of its models it is.
    """
    from transformers import AutoTokenizer

    tokenizer, config = AutoTokenizer.from_pretrained(model), read_json(model / "config.json")
    starts = tokenizer.encode(ANSWER_STARTS, add_special_tokens=False)
    return {
        "key": key_of(run, of),
        "dtype": config["dtype"],
        "hidden_size": config["hidden_size"],
        "bos": (tokenizer.bos_token_id, tokenizer.bos_token),
        "eos": (tokenizer.eos_token_id, tokenizer.eos_token),
        "response_start": list(zip(starts, tokenizer.convert_ids_to_tokens(starts), strict=True)),
    }


def key_of(run: str, of: str) -> str:
    """The entry's name. The successor takes a model for a Llama 3 by `llama-3` in it."""
    return f"{run}-{of}" if "llama-3" in run else f"llama-3-{run}-{of}"


def rewritten(records: Iterable[Mapping[str, Any]]) -> int:
    """How many records have a text that a project changes before a model sees it."""
    return sum(
        any(_REWRITTEN.search(turn["value"]) for turn in turns(record["prompt"], record["answer"])) for record in records
    )


def write_facts(folder: Path, base: Path, run: str, of: str, fold: int, system_prompt: str) -> None:
    """What the export can be checked against when the run is not at hand.

    Args:
        folder: the export, its model in place.
        base: directory of the base model.
        run, of, fold: what is exported.
        system_prompt: that of the run's prompts.
    """
    formats = tensor_formats(folder / MODEL)
    facts = {
        "run": run,
        "model": of,
        "fold": fold,
        "system_prompt": text_digest(system_prompt),
        "base_tokenizer": tokenizer_digest(base),
        "base_weights": tensor_digests(base, formats),
    }
    write_json(folder / FACTS, facts)


def text_digest(text: str) -> str:
    """SHA-256 of a text, 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def tokenizer_digest(model: Path | PreTrainedTokenizerBase) -> str:
    """SHA-256 of all that a tokenizer does: vocabulary, merges, added tokens, and how text is split.

    Args:
        model: a model's directory, or its tokenizer.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model) if isinstance(model, Path) else model
    return text_digest(tokenizer.backend_tokenizer.to_str())
