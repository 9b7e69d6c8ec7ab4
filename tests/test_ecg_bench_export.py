"""The export for ECG-Bench and its successor: what both load it with loads it, and whatever breaks it is found."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, Project
from llama_3 import DATED_TEMPLATE, save_tiny_llama_3

from ecg_grpo.ecg_bench_check import problems, validate
from ecg_grpo.ecg_bench_export import key_of, turns
from ecg_grpo.errors import InputError
from ecg_grpo.files import new_model_directory, read_json, sha256_of
from ecg_grpo.llama_3 import fastchat_text
from ecg_grpo.prompts import build_prompt
from ecg_grpo.tables import RECORDS, write_table

PLAIN = ROOT / "resources/chat_templates/llama-3.jinja"
SYSTEM = "You are a cardiology expert. Answer briefly."
TEST = "datasets/{}/ecg-expert-qa/data/fold1_test-00000-of-00001.parquet"
BOTH = ("willxxy", "ELM-Research")


def run_program(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / f"workflow_scripts/{name}.py", *map(str, arguments)]
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=offline)


def made(name: str, *arguments: object) -> None:
    run = run_program(name, *arguments)
    assert run.returncode == 0, run.stderr[-3000:]


def make_base_model(run: Path, source: Path, **settings: object) -> None:
    given = {"source": "path", "path": str(source), "dtype": "float32", "pad_token": "<|finetune_right_pad_id|>"} | settings
    template = ["--chat-template", given["chat_template"]] if "chat_template" in given else []
    made(
        *("fetch_base_model", "--settings", json.dumps(given), "--scratch", run / "scratch", *template),
        *("--manifest", run / "base_model/manifest.json"),
    )


def train(base: Path, target: Path, step: float) -> None:
    """The base model with other weights."""
    from safetensors.torch import load_file, save_file

    with new_model_directory(target) as folder:
        for file in base.iterdir():
            if file.name not in ("manifest.json", "model.safetensors"):
                shutil.copy(file, folder / file.name)
        weights = load_file(base / "model.safetensors")
        weights["model.norm.weight"] += step
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def write_split(file: Path, split: str, records: list[dict[str, Any]]) -> None:
    rows = [
        {"task": "EBK", "split": split, "cluster": record["id"], "prompt": build_prompt(SYSTEM, **record["asked"]), **record}
        for record in records
    ]
    write_table(file, rows, RECORDS, {})


TRAIN = [
    {
        "id": "EBK-00000",
        "asked": {"context": "", "question": "What is the QRS complex?"},
        "answer": "Ventricular depolarization.",
    },
    {"id": "EBK-00001", "asked": {"context": "", "question": "Q: Show an image."}, "answer": "There is none, ΔT ≥ 5 <ok>."},
]
HELD_OUT = [
    {"id": "EBK-00002", "asked": {"context": "", "question": "Which lead looks at\nthe wall?"}, "answer": "V6.\n\nAnd I."},
    {
        "id": "MROD-00003-01",
        "asked": {
            "context": "A man of 60.",
            "question": "And then?",
            "history": [("What is seen?", "ST elevation."), ("Where?", "In V1.")],
        },
        "answer": "Call the catheter laboratory.",
    },
    {"id": "EBK-00004", "asked": {"context": "", "question": "Is the picture normal?"}, "answer": "No."},
]


def make_run(run: Path, source: Path, **settings: object) -> Path:
    make_base_model(run, source, **settings)
    for number, stage in enumerate(("sft", "grpo"), 1):
        train(run / "base_model", run / f"{stage}_model", 0.25 * number)
    for split, records in (("train", TRAIN), ("test", HELD_OUT)):
        write_split(run / f"data/{split}.parquet", split, records)
    return run


def export_of(run: Path, folder: Path, of: str = "grpo", *arguments: object) -> subprocess.CompletedProcess[str]:
    templates = ROOT / "resources/ecg_bench"
    return run_program(
        *("export_ecg_bench", "--run", run.name, "--max-new-tokens", 256, "--of", of, "--log", folder.parent / "log.txt"),
        *("--base-model", run / "base_model/manifest.json", "--model", run / f"{of}_model/manifest.json"),
        *("--train", run / "data/train.parquet", "--test", run / "data/test.parquet"),
        *("--readme-template", templates / "README.md.j2", "--entry-template", templates / "hf_llms_entry.py.j2"),
        *("--manifest", folder / "manifest.json", *arguments),
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama") / "tiny-llama-3"
    save_tiny_llama_3(folder)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Path:
    """Models and data as a run leaves them, the base model made by the program that makes it."""
    return make_run(tmp_path_factory.mktemp("results") / "a-run", source, chat_template=str(PLAIN))


@pytest.fixture(scope="module")
def export(run: Path) -> Path:
    """The GRPO model's export; tests read it."""
    found = export_of(run, run / "export/ecg_bench")
    assert found.returncode == 0, found.stderr
    return run / "export/ecg_bench"


@pytest.fixture
def broken(export: Path, tmp_path: Path) -> Path:
    """A copy to break, without the manifest, which would find every change."""
    shutil.copytree(export, tmp_path / "export")
    (tmp_path / "export/manifest.json").unlink()
    return tmp_path / "export"


def test_the_export_is_as_it_should_be(export: Path, run: Path) -> None:
    assert problems(export) == []
    listed = read_json(export / "manifest.json")["files"]
    assert listed.keys() == {str(file.relative_to(export)) for file in export.rglob("*") if file.is_file()} - {"manifest.json"}
    weights = "model.safetensors"
    assert (export / "model" / weights).samefile(run / "grpo_model" / weights), "no room taken twice"
    for name in ("tokenizer.json", "tokenizer_config.json", weights):
        assert sha256_of(export / "model" / name) == sha256_of(run / "grpo_model" / name)
    assert not [file for file in export.rglob("*") if file.suffix in (".npy", ".bin", ".pt")]


def test_the_model_answers_greedily_as_it_is(export: Path, run: Path) -> None:
    """As both projects load it: nothing said of sampling, no token added, and the embeddings fit."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(export / "model")
    model = AutoModelForCausalLM.from_pretrained(export / "model")
    assert len(tokenizer) == model.get_input_embeddings().weight.shape[0] == model.config.vocab_size == 128_256
    assert not model.generation_config.do_sample
    assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == (128_009, 128_004)
    assert model.generation_config.temperature in (None, 1.0)
    trained = AutoModelForCausalLM.from_pretrained(run / "grpo_model")
    messages = build_prompt(SYSTEM, **HELD_OUT[1]["asked"])
    asked = tokenizer(fastchat_text(messages, asks=True), add_special_tokens=False, return_tensors="pt")
    options = {"max_new_tokens": 8, "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    answers = [one.generate(**asked, **options) for one in (model, model, trained)]
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[2])


def test_the_entry_is_one_that_both_projects_read(export: Path) -> None:
    import torch

    ((key, entry),) = runpy.run_path(str(export / "hf_llms_entry.py"))["ENTRY"].items()
    assert key == "llama-3-a-run-grpo"
    assert entry == {
        "model": str(export / "model"),
        "tokenizer": str(export / "model"),
        "chat_template": "llama-3",
        "native_dtype": torch.float32,
        "tokens_to_add": {"additional_special_tokens": []},
        "find_unused_parameters": False,
        "model_hidden_size": 16,
        "output_hidden_states": False,
        "system_prompt": True,
        "role": "assistant",
        "watch_tokens": {
            "bos_token": {128000: "<|begin_of_text|>"},
            "eos_token": {128009: "<|eot_id|>"},
            "response_start": {
                "order": [128006, 78191, 128007, 271],
                128006: "<|start_header_id|>",
                78191: "assistant",
                128007: "<|end_header_id|>",
                271: "ĊĊ",
            },
        },
    }
    assert key_of("llama-3.2-3b", "sft") == "llama-3.2-3b-sft"


@pytest.mark.parametrize(("owner", "path"), [("willxxy", "./data/ecg-expert-qa/flatline.npy"), ("ELM-Research", "flatline")])
def test_the_projects_dataset_call_finds_the_rows(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: str, path: str
) -> None:
    """`load_dataset("<owner>/<name>", split="fold1_test")`, in a folder with the link that the README asks for."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / owner).symlink_to(export / "datasets" / owner)
    monkeypatch.chdir(tmp_path)
    from datasets import load_dataset

    rows = load_dataset(f"{owner}/ecg-expert-qa", split="fold1_test", cache_dir=str(tmp_path / "cache"))
    assert rows.column_names == ["ecg_path", "text", "name"]
    assert set(rows["ecg_path"]) == {path}
    assert rows["name"] == [record["id"] for record in HELD_OUT]
    assert len(load_dataset(f"{owner}/ecg-expert-qa", split="fold1_train", cache_dir=str(tmp_path / "cache"))) == len(TRAIN)
    assert json.loads(rows[1]["text"]) == [
        {"from": "human", "value": "A man of 60.\n\nWhat is seen?"},
        {"from": "gpt", "value": "ST elevation."},
        {"from": "human", "value": "Where?"},
        {"from": "gpt", "value": "In V1."},
        {"from": "human", "value": "And then?"},
        {"from": "gpt", "value": "Call the catheter laboratory."},
    ]
    for row, record in zip(rows, HELD_OUT, strict=True):
        assert json.loads(row["text"]) == turns(build_prompt(SYSTEM, **record["asked"]), record["answer"])


def test_the_readme_says_what_to_do(export: Path) -> None:
    text = (export / "README.md").read_text()
    for said in (
        *('HF_DATASETS.append("ecg-expert-qa")', "HF_LLMS |= runpy", "--llm=llama-3-a-run-grpo", "--llm llama-3-a-run-grpo"),
        *(
            "The GRPO model of run `a-run`",
            "`willxxy/`",
            "`ELM-Research/`",
            "--perturb only_text --elm base_elf",
            "--max_new_tokens 256",
            "fold1_test",
        ),
        *("`max_new_tokens` is 128, in the code. The run's own answers had up to 256 tokens", "Empty answers count"),
        *("results/a-run/evaluation/ecg_bench.json", "not a medical device", "do not publish", "1 of the 3 test"),
    ):
        assert said in text, said
    assert "This run reasons" not in text
    assert "\n\n\n" not in text
    assert not re.search(r"\{[{%]", text)


def test_the_lines_that_the_readme_adds_to_the_constants(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPORT", str(export))
    (lines,) = re.findall(r"```python\n(.*?)```", (export / "README.md").read_text(), re.DOTALL)
    constants: dict[str, Any] = {"HF_DATASETS": ["another"], "HF_LLMS": {"another": {}}}
    exec(lines, constants)
    assert constants["HF_DATASETS"] == ["another", "ecg-expert-qa"]
    assert constants["HF_LLMS"].keys() == {"another", "llama-3-a-run-grpo"}
    assert constants["HF_LLMS"]["llama-3-a-run-grpo"]["model"] == str(export / "model")


def test_the_file_that_the_readme_makes_is_what_ecg_bench_opens(export: Path, tmp_path: Path) -> None:
    import numpy

    (command,) = re.findall(r'^python -c "(.*)"$', (export / "README.md").read_text(), re.MULTILINE)
    (tmp_path / "ecg_bench/data/ecg-expert-qa").mkdir(parents=True)
    subprocess.run([sys.executable, "-c", command], cwd=tmp_path, check=True)
    path = pq.read_table(export / TEST.format("willxxy"))["ecg_path"][0].as_py().replace("./data", "./ecg_bench/data")
    recording = numpy.load(tmp_path / path, allow_pickle=True).item()
    assert recording["ecg"].shape == (12, 1250)
    assert not recording["ecg"].any()
    assert recording["report"] == ""


def test_the_sft_model_and_another_fold(run: Path, tmp_path: Path) -> None:
    found = export_of(run, tmp_path / "export", "sft", "--fold", 3)
    assert found.returncode == 0, found.stderr
    validate(tmp_path / "export")
    assert (tmp_path / "export/model/model.safetensors").samefile(run / "sft_model/model.safetensors")
    files = sorted(file.name for file in (tmp_path / "export").rglob("*.parquet"))
    assert files == sorted(2 * [f"fold3_{split}-00000-of-00001.parquet" for split in ("test", "train")])
    assert 'folds = ["1"]` names: make that `["3"]`' in (tmp_path / "export/README.md").read_text()
    shutil.move(tmp_path / "export", tmp_path / "moved")
    checked = run_program("check_ecg_bench_export", tmp_path / "moved")
    assert (checked.returncode, checked.stdout.count("\n")) == (0, 1), checked.stderr


def edit_json(file: str, **changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / file).read_text()) | changes
        (folder / file).write_text(json.dumps({name: value for name, value in content.items() if value is not None}))

    return edit


def replace(file: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))

    return edit


def edit_rows(change: Callable[[list[dict]], list[dict]], *owners: str, split: str = "test") -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        for owner in owners or BOTH:
            file = folder / TEST.format(owner).replace("_test-", f"_{split}-")
            rows = change(pq.read_table(file).to_pylist())
            pq.write_table(pa.Table.from_pylist(rows), file)

    return edit


def with_text(*said: tuple[str, str]) -> Callable[[Path], None]:
    text = json.dumps([{"from": speaker, "value": value} for speaker, value in said])
    return edit_rows(lambda rows: [rows[0] | {"text": text}, *rows[1:]])


def other_weights(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        file = folder / "model/model.safetensors"
        weights = load_file(file)
        change(weights)
        save_file(weights, file, metadata={"format": "pt"})

    return edit


def base_weights(folder: Path) -> None:
    def undo(weights: dict) -> None:
        weights["model.norm.weight"] -= 0.5

    other_weights(undo)(folder)


def one_row_more(weights: dict) -> None:
    import torch

    weights["model.embed_tokens.weight"] = torch.cat([weights["model.embed_tokens.weight"], torch.zeros(1, 16)])


def half_of(weights: dict) -> None:
    weights["model.norm.weight"] = weights["model.norm.weight"].bfloat16()


def adapted(weights: dict) -> None:
    weights["model.layers.0.mlp.up_proj.lora_A.weight"] = weights["model.norm.weight"].clone()


def pickled(name: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        import torch

        torch.save({"weight": torch.zeros(2)}, folder / name)

    return edit


def added_token(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    tokenizer.add_tokens(["<signal>"])
    tokenizer.save_pretrained(folder / "model")


def renamed(old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        for owner in BOTH:
            data = folder / "datasets" / owner / "ecg-expert-qa/data"
            for file in data.glob(old):
                file.rename(data / new)

    return edit


def write(file: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_text(text)


def remove(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


TEMPLATE, GENERATION, ENTRY = "model/chat_template.jinja", "model/generation_config.json", "hf_llms_entry.py"
HEADER = "<|end_header_id|>"
FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no model": (lambda folder: shutil.rmtree(folder / "model"), "model is missing"),
    "no system prompt": (remove("system_prompt.txt"), "system_prompt.txt is missing"),
    "a pickle": (pickled("model/pytorch_model.bin"), "model/pytorch_model.bin is or may hold a pickle"),
    "a pickle under another name": (pickled("model/weights.txt"), "model/weights.txt is or may hold a pickle"),
    "a pickle for weights": (pickled("model/model.safetensors"), "model/model.safetensors is or may hold a pickle"),
    "a recording": (write("datasets/flatline.npy", "x"), "datasets/flatline.npy is or may hold a pickle"),
    "no weights": (remove("model/model.safetensors"), "the model has no weights"),
    "cut weights": (lambda folder: os.truncate(folder / "model/model.safetensors", 5000), "weights cannot be checked"),
    "an adapter's file": (write("model/adapter_config.json", "{}"), "model/adapter_config.json belongs to an adapter"),
    "an adapter's weights": (other_weights(adapted), "the weights hold an adapter's"),
    "a tensor less": (other_weights(lambda weights: weights.pop("model.norm.weight")), "has not the tensors of its base model"),
    "a tensor in another format": (other_weights(half_of), "name different number formats"),
    "the base model's weights": (base_weights, "the weights are those of the base model"),
    "embeddings of another size": (other_weights(one_row_more), "has 128257 rows, the tokenizer 128256 tokens"),
    "vocabulary of another size": (edit_json("model/config.json", vocab_size=128_000), "config.json says 128000 tokens"),
    "another architecture": (edit_json("model/config.json", model_type="mistral"), "config.json says mistral, not llama"),
    "code of its own": (edit_json("model/config.json", auto_map={"AutoModel": "code.Model"}), "asks for code of its own"),
    "code beside the model": (write("model/modeling.py", ""), "model/modeling.py is code beside the model"),
    "an added token": (added_token, "the tokenizer has 128,257 tokens and not 128,256"),
    "another tokenizer": (replace("model/tokenizer.json", "⟨5000⟩", "⟪5000⟫"), "the tokenizer is not the base model's"),
    "another end token": (
        edit_json("model/tokenizer_config.json", eos_token="<|end_of_text|>"),
        "eos_token is '<|end_of_text|>'",
    ),
    "padding is the end": (edit_json("model/tokenizer_config.json", pad_token="<|eot_id|>"), "no padding token that differs"),
    "a clock": (write(TEMPLATE, DATED_TEMPLATE), "the chat template writes a date (strftime_now)"),
    "a clock, seen": (write(TEMPLATE, DATED_TEMPLATE), "writes another prompt on another day"),
    "a fixed date": (
        write(TEMPLATE, f'{{%- set date_string = "26 Jul 2024" %}}{DATED_TEMPLATE.partition("%}")[2].partition("%}")[2]}'),
        "the chat template writes a date (date_string)",
    ),
    "another template": (
        replace(TEMPLATE, f"{HEADER}\\n\\n' -", f"{HEADER}\\n' -"),
        "does not write what FastChat's llama-3 writes",
    ),
    "two start tokens": (replace(TEMPLATE, "{{- bos_token", "{{- bos_token ~ bos_token"), "does not write what FastChat's"),
    "no template": (remove(TEMPLATE), "the model has no chat template"),
    "sampling": (edit_json(GENERATION, do_sample=True), "generation_config.json samples"),
    "a temperature": (edit_json(GENERATION, temperature=0.6), "not plain greedy decoding (temperature)"),
    "a penalty": (edit_json(GENERATION, repetition_penalty=1.1), "not plain greedy decoding (repetition_penalty)"),
    "several ends": (edit_json(GENERATION, eos_token_id=[128_001, 128_009]), "eos_token_id is [128001, 128009]"),
    "no padding": (edit_json(GENERATION, pad_token_id=None), "pad_token_id is None"),
    "an end of another kind": (edit_json("model/config.json", eos_token_id=128_001), "config.json: eos_token_id is 128001"),
    "an entry for another end": (replace(ENTRY, "128009", "128001"), "the entry's eos_token"),
    "an entry for another start": (replace(ENTRY, "128000", "1"), "the entry's bos_token"),
    "an answer's start in another order": (replace(ENTRY, "[128006, 78191", "[78191, 128006"), "the entry's response_start"),
    "an entry of another name": (replace(ENTRY, '"llama-3-a-run-grpo"', '"a-run"'), "the entry's name is 'a-run'"),
    "an entry of another template": (replace(ENTRY, '"llama-3",', '"qwen-7b-chat",'), "the entry's chat_template"),
    "an entry that adds a token": (replace(ENTRY, "[],", '["<ecg>"],'), "the entry's tokens_to_add"),
    "an entry of another format": (replace(ENTRY, "torch.float32", "torch.bfloat16"), "the entry's native_dtype"),
    "an entry of another model": (replace(ENTRY, '"tokenizer": MODEL', '"tokenizer": "gpt2"'), "the entry's tokenizer"),
    "an entry that lacks a field": (replace(ENTRY, '"role": "assistant",', ""), "the entry has other fields"),
    "an entry that is code": (replace(ENTRY, '"system_prompt": True', '"system_prompt": print()'), "entry cannot be checked"),
    "splits of another name": (
        renamed("fold1_test-*", "test-00000-of-00001.parquet"),
        "the splits are not fold1_train and fold1_test",
    ),
    "a third split": (
        lambda folder: write(f"datasets/willxxy/ecg-expert-qa/data/{'notes.txt'}", "")(folder),
        "the splits are not fold1_train and fold1_test",
    ),
    "another column": (
        edit_rows(lambda rows: [row | {"task": "EBK"} for row in rows]),
        "the columns are ecg_path, text, name, task",
    ),
    "no column name": (
        edit_rows(lambda rows: [{"ecg_path": "flatline", "text": row["text"]} for row in rows]),
        "the columns are",
    ),
    "no rows": (
        lambda folder: [write_table(folder / TEST.format(owner), [], empty_rows(), {}) for owner in BOTH],
        "there are no rows",
    ),
    "another recording": (edit_rows(lambda rows: [row | {"ecg_path": "noise"} for row in rows]), "an ecg_path is not"),
    "a name twice": (edit_rows(lambda rows: [row | {"name": "EBK-00002"} for row in rows]), "a name stands twice"),
    "a question last": (with_text(("human", "Why?"), ("gpt", "So."), ("human", "Why?")), "gpt the last (1 rows)"),
    "an answer first": (with_text(("gpt", "So."), ("human", "Why?")), "not turns of human and gpt in turn"),
    "two questions": (with_text(("human", "Why?"), ("human", "Why?")), "not turns of human and gpt in turn"),
    "an empty answer": (with_text(("human", "Why?"), ("gpt", " ")), "not turns of human and gpt in turn"),
    "turns of roles": (
        edit_rows(lambda rows: [row | {"text": '[{"role": "user", "content": "a"}]'} for row in rows]),
        "not turns of human and gpt in turn",
    ),
    "no JSON": (edit_rows(lambda rows: [row | {"text": "What?"} for row in rows]), "not turns of human and gpt in turn"),
    "a test question in training": (
        lambda folder: [
            edit_rows(
                lambda rows, owner=owner: rows + pq.read_table(folder / TEST.format(owner)).to_pylist()[:1],
                owner,
                split="train",
            )(folder)
            for owner in BOTH
        ],
        "1 test questions stand among the training rows",
    ),
    "different rows": (edit_rows(lambda rows: rows[:-1], "willxxy"), "the two projects have different test rows"),
    "a special token in a text": (
        with_text(("human", "Why?<|begin_of_text|>"), ("gpt", "So.")),
        "does not have one start token",
    ),
    "another system prompt": (write("system_prompt.txt", "You are a pirate."), "is not what the run was trained with"),
    "a line's end after it": (write("system_prompt.txt", f"{SYSTEM}\n"), "has spaces at an end"),
    "a README of something else": (write("README.md", "Read me."), "README.md does not say 'llama-3-a-run-grpo'"),
    "a README without a warning": (
        replace("README.md", "not a medical device", "a device"),
        "does not say 'not a medical device'",
    ),
}


def empty_rows() -> pa.Schema:
    from ecg_grpo.ecg_bench_export import ROWS

    return ROWS


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_broken_is_found(broken: Path, fault: str) -> None:
    break_it, expected = FAULTS[fault]
    break_it(broken)
    with pytest.raises(InputError) as refused:
        validate(broken)
    assert expected in str(refused.value)


def test_a_copy_without_its_manifest_is_still_in_order(broken: Path) -> None:
    assert problems(broken) == []


def test_every_fault_is_named_at_once_and_on_one_line(broken: Path) -> None:
    for fault in ("sampling", "a clock", "an entry for another end", "another system prompt", "a name twice"):
        FAULTS[fault][0](broken)
    run = run_program("check_ecg_bench_export", broken)
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1, run.stderr
    for fault in ("sampling", "a clock", "an entry for another end", "another system prompt", "a name twice"):
        assert FAULTS[fault][1] in run.stderr


def test_a_changed_file_is_told_by_the_manifest(export: Path, tmp_path: Path) -> None:
    shutil.copytree(export, tmp_path / "export")
    file = tmp_path / "export/README.md"
    file.write_text(file.read_text() + " ")
    assert problems(tmp_path / "export") == ["README.md: the file is not the one that the manifest lists"]


def refused(run: subprocess.CompletedProcess[str], folder: Path) -> str:
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1, run.stderr
    assert not folder.exists()
    return run.stderr


def test_a_model_that_is_no_llama_3_is_refused_before_anything_is_read(tiny_model: Path, run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    make_base_model(other, tiny_model, pad_token=None)
    train(other / "base_model", other / "grpo_model", 0.5)
    message = refused(export_of(other, other / "export"), other / "export")
    assert "would be told that this model is a Llama 3, and it is none" in message
    assert "with a vocabulary of 600" in message


def test_a_run_that_was_trained_with_a_date_is_refused(source: Path, tmp_path: Path) -> None:
    dated = make_run(tmp_path / "dated", source, chat_date="26 Jul 2024")
    message = refused(export_of(dated, dated / "export"), dated / "export")
    assert "its chat template writes other prompts than FastChat's llama-3" in message
    assert "Set base_model.chat_template to resources/chat_templates/llama-3.jinja" in message


def test_an_export_that_fails_its_check_takes_no_place(run: Path, tmp_path: Path) -> None:
    """A test question among the training records: found by the check, after everything was written."""
    leaky = tmp_path / "leaky"
    shutil.copytree(run, leaky, ignore=shutil.ignore_patterns("export"))
    write_split(leaky / "data/train.parquet", "train", [*TRAIN, HELD_OUT[0] | {"id": "EBK-00009"}])
    message = refused(export_of(leaky, leaky / "export"), leaky / "export")
    assert "ecg_bench: 1 test questions stand among the training rows" in message
    assert not list(leaky.glob(".export*"))


def test_prompts_with_two_system_prompts_are_refused(run: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(run, mixed, ignore=shutil.ignore_patterns("export"))
    rows = pq.read_table(mixed / "data/train.parquet").to_pylist()
    rows[0]["prompt"][0]["content"] = "You are a pirate."
    write_table(mixed / "data/train.parquet", rows, RECORDS, {})
    assert "its prompts have 2 system prompts" in refused(export_of(mixed, mixed / "export"), mixed / "export")


def test_a_run_that_reasons_is_told_of_the_tags(run: Path, tmp_path: Path) -> None:
    reasoning = tmp_path / "reasoning"
    shutil.copytree(run, reasoning, ignore=shutil.ignore_patterns("export"))
    for split in ("train", "test"):
        rows = pq.read_table(reasoning / f"data/{split}.parquet").to_pylist()
        for row in rows:
            row["prompt"][0]["content"] = "Reason in <think></think>, answer in <answer></answer>."
        write_table(reasoning / f"data/{split}.parquet", rows, RECORDS, {})
    found = export_of(reasoning, reasoning / "export")
    assert found.returncode == 0, found.stderr
    assert "**This run reasons before it answers**" in (reasoning / "export/README.md").read_text()


@pytest.mark.pipeline
def test_the_target_makes_it(project: Project, run: Path) -> None:
    """`snakemake export_ecg_bench` on the made-up run's files."""
    shutil.copytree(run, project.results(), ignore=shutil.ignore_patterns("export", "scratch"))
    project.snakemake("export_ecg_bench", "--allowed-rules", "export_ecg_bench")
    folder = project.results() / "export/ecg_bench"
    validate(folder)
    assert "llama-3-demo-grpo" in (folder / "hf_llms_entry.py").read_text()
    provenance = read_json(project.results() / "provenance/export_ecg_bench.json")
    assert provenance["facts"]["records"] == {"train": len(TRAIN), "test": len(HELD_OUT)}
    assert provenance["parameters"]["of"] == "grpo"
    assert "export_ecg_bench" not in project.jobs(), "nobody asked for it"
