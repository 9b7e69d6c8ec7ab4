"""Whether an export is what ECG-Bench and its successor take: everything that their code relies on, looked at in the files."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from safetensors import safe_open
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ecg_grpo.ecg_bench_export import (
    BENCHMARKS,
    DATASET,
    ENTRY,
    FACTS,
    MODEL,
    README,
    ROWS,
    SYSTEM_PROMPT,
    key_of,
    text_digest,
    tokenizer_digest,
)
from ecg_grpo.errors import InputError
from ecg_grpo.files import MANIFEST, model_directory, read_json
from ecg_grpo.llama_3 import ANSWER_STARTS, BEGIN_OF_TEXT, END_OF_TURN, VOCABULARY, fastchat_text, lacks
from ecg_grpo.prompts import Message
from ecg_grpo.weight_digests import tensor_digests, tensor_formats

_PICKLES = {".bin", ".ckpt", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth"}
_DATED = ("strftime_now", "date_string", "Today Date", "Cutting Knowledge Date")
_GENERATION = {"bos_token_id", "do_sample", "eos_token_id", "pad_token_id", "transformers_version"}
_FIELDS = {
    *("model", "tokenizer", "chat_template", "native_dtype", "tokens_to_add", "find_unused_parameters", "model_hidden_size"),
    *("output_hidden_states", "system_prompt", "role", "watch_tokens"),
}


def validate(folder: Path) -> None:
    """Fails unless an export is what the two projects take.

    Args:
        folder: as `export_ecg_bench` writes it.

    Raises:
        InputError: names everything that is wrong, in one message.
    """
    if found := problems(folder):
        raise InputError(folder, "; ".join(found), "Make it anew: snakemake --cores all --forcerun export_ecg_bench.")


def problems(folder: Path) -> list[str]:
    """Everything that is wrong with an export; empty if nothing is."""
    if not folder.is_dir():
        return ["there is no such folder"]
    if missing := [name for name in (MODEL, SYSTEM_PROMPT, ENTRY, README, FACTS) if not (folder / name).exists()]:
        return [f"{name} is missing" for name in missing]
    export = _Export(folder)
    found = []
    for check in (_manifest, _files, _weights, _vocabulary, _template, _generation, _entry, _datasets, _prompts, _readme):
        try:
            found += check(export)
        except InputError as error:
            found.append(f"{Path(error.where).name}: {error.what}")
        except Exception as error:  # tokenizers raises nothing narrower; what cannot be looked at is not in order
            found.append(f"{check.__name__[1:]} cannot be checked ({type(error).__name__}: {error})")
    return list(dict.fromkeys(found))


class _Export:
    """An export's parts, each read when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.model = folder, folder / MODEL

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the run said of itself."""
        return read_json(self.folder / FACTS)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The model's config.json."""
        return read_json(self.model / "config.json")

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        return AutoTokenizer.from_pretrained(self.model)

    @cached_property
    def system_prompt(self) -> str:
        """As both projects read it: nothing is taken off."""
        return (self.folder / SYSTEM_PROMPT).read_text(encoding="utf-8")

    def rows(self, benchmark: str, split: str) -> list[dict[str, str]]:
        """A split's rows for one of the projects."""
        return pq.read_table(BENCHMARKS[benchmark].file(self.folder, split, self.facts["fold"])).to_pylist()

    @cached_property
    def entry(self) -> dict[str, dict[str, Any]]:
        """The entry in HF_LLMS, read without running the file; a number format is its name."""
        tree = ast.parse((self.folder / ENTRY).read_text(encoding="utf-8"))
        (value,) = (
            node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ENTRY"
        )
        return ast.literal_eval(_Literal(str(self.model)).visit(value))


class _Literal(ast.NodeTransformer):
    """Makes constants of the two names that the entry is not to spell out."""

    def __init__(self, model: str) -> None:
        self._model = model

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Constant(self._model) if node.id == "MODEL" else node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        return ast.Constant(node.attr) if ast.unparse(node.value) == "torch" else node


def _manifest(export: _Export) -> Iterator[str]:
    if (export.folder / MANIFEST).is_file():  # it is written last
        model_directory(export.folder / MANIFEST)
    yield from ()


def _files(export: _Export) -> Iterator[str]:
    for file in sorted(export.folder.rglob("*")):
        name = file.relative_to(export.folder)
        if file.is_file() and (file.suffix in _PICKLES or _is_pickle(file)):
            yield f"{name} is or may hold a pickle"
        if file.name.startswith("adapter_"):
            yield f"{name} belongs to an adapter, which neither project loads"
        if file.suffix == ".py" and file.parent != export.folder:
            yield f"{name} is code beside the model"
    if "auto_map" in export.config:
        yield "config.json asks for code of its own (auto_map)"


def _is_pickle(file: Path) -> bool:
    with file.open("rb") as stream:
        head = stream.read(6)
    return (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05") or head.startswith((b"PK\x03\x04", b"\x93NUMPY"))


def _weights(export: _Export) -> Iterator[str]:
    files = sorted(export.model.glob("*.safetensors"))
    if not files:
        yield "the model has no weights (*.safetensors)"
        return
    formats = tensor_formats(export.model)
    if adapted := [name for name in formats if "lora_" in name]:
        yield f"the weights hold an adapter's ({adapted[0]})"
    if {str(format).removeprefix("torch.") for format in formats.values()} != {export.config["dtype"]}:
        yield "weights and config.json name different number formats"
    for file in files:
        with safe_open(file, "pt") as stream:
            for name in ("model.embed_tokens.weight", "lm_head.weight"):
                if name in formats and name in stream.keys():  # noqa: SIM118, not a dictionary
                    rows = stream.get_slice(name).get_shape()[0]
                    if rows != len(export.tokenizer):
                        yield f"{name} has {rows} rows, the tokenizer {len(export.tokenizer)} tokens"
    if "model.embed_tokens.weight" not in formats:
        yield "the weights hold no embeddings"
    base = export.facts["base_weights"]
    found = tensor_digests(export.model, formats)
    if base.keys() != found.keys():
        yield "the model has not the tensors of its base model"
    if all(base.get(name) == digest for name, digest in found.items()):
        yield "the weights are those of the base model"


def _vocabulary(export: _Export) -> Iterator[str]:
    for reason in lacks(export.tokenizer):
        yield reason.replace("its tokenizer", "the tokenizer")
    if export.config.get("model_type") != "llama":
        yield f"config.json says {export.config.get('model_type')}, not llama"
    if export.config.get("vocab_size") != len(export.tokenizer):
        yield f"config.json says {export.config.get('vocab_size')} tokens, the tokenizer has {len(export.tokenizer)}"
    if export.config.get("vocab_size") != VOCABULARY:
        yield f"config.json says {export.config.get('vocab_size')} tokens, Llama 3 has {VOCABULARY}"
    if tokenizer_digest(export.tokenizer) != export.facts["base_tokenizer"]:
        yield "the tokenizer is not the base model's"
    for name, expected in (("bos_token", BEGIN_OF_TEXT), ("eos_token", END_OF_TURN)):
        if getattr(export.tokenizer, name) != expected:
            yield f"the tokenizer's {name} is {getattr(export.tokenizer, name)!r}, not {expected!r}"
    if export.tokenizer.pad_token_id in (None, export.tokenizer.eos_token_id):
        yield "the tokenizer has no padding token that differs from the end token"


def _template(export: _Export) -> Iterator[str]:
    template = export.tokenizer.chat_template
    if not template:
        yield "the model has no chat template"
        return
    if dated := [word for word in _DATED if word in template]:
        yield f"the chat template writes a date ({dated[0]})"
    asked = [Message(role="system", content=export.system_prompt), Message(role="user", content="Which lead?")]
    days = {_render(template, asked, export.tokenizer.bos_token, day) for day in ("01 Jan 2001", "31 Dec 2040")}
    if len(days) > 1:
        yield "the chat template writes another prompt on another day"


def _render(template: str, messages: list[Message], start: str, day: str) -> str:
    """A prompt as transformers renders it on a given day."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.globals |= {"strftime_now": lambda _: day, "raise_exception": _refuse}
    return environment.from_string(template).render(messages=messages, bos_token=start, add_generation_prompt=True)


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _generation(export: _Export) -> Iterator[str]:
    generation = read_json(export.model / "generation_config.json")
    if generation.get("do_sample"):
        yield "generation_config.json samples (do_sample)"
    if others := sorted(name for name, value in generation.items() if name not in _GENERATION and value is not None):
        yield f"generation_config.json is not plain greedy decoding ({', '.join(others)})"
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if generation.get(name) != getattr(export.tokenizer, name):
            yield f"generation_config.json: {name} is {generation.get(name)}, the tokenizer's {getattr(export.tokenizer, name)}"
    if export.config.get("eos_token_id") != export.tokenizer.eos_token_id:
        yield f"config.json: eos_token_id is {export.config.get('eos_token_id')}, not {export.tokenizer.eos_token_id}"


def _entry(export: _Export) -> Iterator[str]:
    ((key, entry),) = export.entry.items()
    if key != key_of(export.facts["run"], export.facts["model"]) or "llama-3" not in key:
        yield f"the entry's name is {key!r}"
    if entry.keys() != _FIELDS:
        yield f"the entry has other fields than the projects read ({', '.join(sorted(entry.keys() ^ _FIELDS))})"
    stated = {
        "model": str(export.model),
        "tokenizer": str(export.model),
        "chat_template": "llama-3",
        "native_dtype": export.config["dtype"],
        "tokens_to_add": {"additional_special_tokens": []},
        "model_hidden_size": export.config["hidden_size"],
        "system_prompt": True,
        "role": "assistant",
    }
    for name, expected in stated.items():
        if entry.get(name) != expected:
            yield f"the entry's {name} is {entry.get(name)!r}, not {expected!r}"
    watched = entry["watch_tokens"]
    tokenizer = export.tokenizer
    for name in ("bos_token", "eos_token"):
        if watched[name] != {getattr(tokenizer, f"{name}_id"): getattr(tokenizer, name)}:
            yield f"the entry's {name} {watched[name]} is not the tokenizer's"
    starts = tokenizer.encode(ANSWER_STARTS, add_special_tokens=False)
    expected = {"order": starts} | dict(zip(starts, tokenizer.convert_ids_to_tokens(starts), strict=True))
    if watched["response_start"] != expected:
        yield f"the entry's response_start {watched['response_start']} is not what stands before an answer ({expected})"


def _datasets(export: _Export) -> Iterator[str]:
    fold = export.facts["fold"]
    asked, written = {}, {}
    for name, benchmark in BENCHMARKS.items():
        expected = {benchmark.file(export.folder, split, fold) for split in ("train", "test")}
        if expected ^ (found := set(benchmark.file(export.folder, "train", fold).parent.glob("*"))):
            names = ", ".join(sorted(file.name for file in expected ^ found))
            yield f"{name}: the splits are not fold{fold}_train and fold{fold}_test ({names})"
            continue
        for split in ("train", "test"):
            where = f"{name} {split}"
            schema = pq.read_schema(benchmark.file(export.folder, split, fold))
            if schema.remove_metadata() != ROWS:
                yield f"{where}: the columns are {', '.join(schema.names)}, not {', '.join(ROWS.names)} (texts)"
                continue
            rows = export.rows(name, split)
            if not rows:
                yield f"{where}: there are no rows"
            if {row["ecg_path"] for row in rows} - {benchmark.ecg_path}:
                yield f"{where}: an ecg_path is not {benchmark.ecg_path!r}"
            if len({row["name"] for row in rows}) < len(rows):
                yield f"{where}: a name stands twice"
            turns = [_turns(row["text"]) for row in rows]
            if wrong := [row["name"] for row, parts in zip(rows, turns, strict=True) if parts is None]:
                yield f"{where}: {wrong[0]}: the text is not turns of human and gpt in turn, gpt the last ({len(wrong)} rows)"
                continue
            asked[name, split] = {json.dumps(parts[:-1]) for parts in turns}
            written[name, split] = [(row["name"], row["text"]) for row in rows]
        if both := asked.get((name, "train"), set()) & asked.get((name, "test"), set()):
            yield f"{name}: {len(both)} test questions stand among the training rows"
    for split in ("train", "test"):
        if len({json.dumps(rows) for (_, which), rows in written.items() if which == split}) > 1:
            yield f"the two projects have different {split} rows"


def _turns(text: str) -> list[dict[str, str]] | None:
    """The turns of a row, or None if they are not what both projects read."""
    try:
        turns = json.loads(text)
    except ValueError:
        return None
    if not isinstance(turns, list) or not turns or len(turns) % 2:
        return None
    for place, turn in enumerate(turns):
        if not isinstance(turn, dict) or turn.keys() != {"from", "value"} or turn["from"] != ("human", "gpt")[place % 2]:
            return None
        if not isinstance(turn["value"], str) or not turn["value"].strip():
            return None
    return turns


def _prompts(export: _Export) -> Iterator[str]:
    system = export.system_prompt
    if not system or system != system.strip():
        yield f"{SYSTEM_PROMPT} is empty, or has spaces at an end, which FastChat would keep"
    if text_digest(system) != export.facts["system_prompt"]:
        yield f"{SYSTEM_PROMPT} is not what the run was trained with"
    tokenizer, roles = export.tokenizer, {"human": "user", "gpt": "assistant"}
    starts = tokenizer.encode(ANSWER_STARTS, add_special_tokens=False)
    for split in ("train", "test"):
        for row in export.rows("ecg_language_models", split):
            said = [Message(role="system", content=system)]
            said += [Message(role=roles[turn["from"]], content=turn["value"]) for turn in _turns(row["text"]) or []]
            for messages, asks in ((said[:-1], True), (said, False)):
                text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asks)
                if text != fastchat_text(messages, asks):
                    yield f"{split}: {row['name']}: the chat template does not write what FastChat's llama-3 writes"
                    return
            ids = tokenizer.encode(fastchat_text(said[:-1], asks=True), add_special_tokens=False)
            if ids[-len(starts) :] != starts:
                yield f"{split}: {row['name']}: other tokens stand before the answer than the entry's response_start"
                return
            if ids[0] != tokenizer.bos_token_id or tokenizer.bos_token_id in ids[1:]:
                yield f"{split}: {row['name']}: the prompt does not have one start token"
                return


def _readme(export: _Export) -> Iterator[str]:
    text = (export.folder / README).read_text(encoding="utf-8")
    for name in (*export.entry, DATASET, SYSTEM_PROMPT, "not a medical device", "do not publish"):
        if name not in text:
            yield f"{README} does not say {name!r}"
