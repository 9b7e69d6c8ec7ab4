"""A GGUF file answers as its model does, in llama.cpp itself; what it could not say is refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, SAMPLE, Project

from ecg_grpo import gguf_export
from ecg_grpo.errors import InputError
from ecg_grpo.files import new_model_directory, read_json, sha256_of
from ecg_grpo.gguf_export import write_gguf
from ecg_grpo.ollama import Turns, turns_of
from ecg_grpo.tables import MESSAGES

SYSTEM = "You are a cardiology expert.\nAnswer in one sentence."
QUESTIONS = [
    "What does ST elevation mean?",
    "List 3 causes of a QT interval over 500 ms.",
    "Is atrial fibrillation regular?\n\n1. yes\n2. no",
    'ΔT ≥ 3 µV, {{ braces }} and "quotes"?',
]
PROMPTS = [[{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}] for question in QUESTIONS]
PROMPTS.append([*PROMPTS[0], {"role": "assistant", "content": "Injury."}, {"role": "user", "content": "And depression?"}])
TEXTS = [
    *QUESTIONS,
    "I've a 12-lead ECG: 120 bpm, QTc 500ms.\n\n1. First\n\n\n  2. Second\t(tab)",
    "naïve café — 37.5°C ≥ 3 µV 心电图 🚀",
    "DON'T they'll we'RE  two  spaces   end ",
    "a\n \n\n \nb 1234567 3333 x1y22",
    "<|start|>user\nHi<|end|>\n<|start|>assistant\n<|pad|>x",
    "<|role|>user<|text|>\n\nHi<|stop|> <|begin|>",
    "\r\n\r\nA\u00a0B\u200bC\u3000D e\u0301",
    " ",
    "\n",
]
TOKENS = 16
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}

LLAMA_3_TEMPLATE = (
    "{{- bos_token }}{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] | trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system = '' %}{%- endif %}"
    "{{- '<|role|>system<|text|>\n\nToday: 26 Jul 2024\n\n' + system + '<|stop|>' }}"
    "{%- for message in messages %}{{- '<|role|>' + message['role'] + '<|text|>\n\n' }}"
    "{{- message['content'] | trim + '<|stop|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|role|>assistant<|text|>\n\n' }}{%- endif %}"
)


def save_llama_3(folder: Path) -> None:
    """A random model with what Llama 3.2 has and the tiny model lacks, in two shards.

    Its tokenizer's steps and start token, scaled rope, three queries a key, bfloat16; besides output weights of its own, and
    embeddings with rows to spare. The scaling begins at 64 positions, so that a prompt feels it.
    """
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(gguf_export._LLAMA_3_SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|begin|>", "<|role|>", "<|text|>", "<|stop|>", "<|pad|>"]  # llama.cpp takes a token <|end|> for an end
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    texts = [value for file in sorted(SAMPLE.glob("*.json")) for row in read_json(file) for value in row.values()]
    tokenizer.train_from_iterator([*texts, *TEXTS * 50], trainer)  # so that tokens reach as far as the split lets them
    tokenizer.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|begin|>",
        eos_token="<|stop|>",
        pad_token="<|pad|>",
        chat_template=LLAMA_3_TEMPLATE,
    )
    torch.manual_seed(3)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(fast) + 12,
            hidden_size=96,
            intermediate_size=160,
            num_hidden_layers=3,
            num_attention_heads=6,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=2048,
            initializer_range=0.2,
            rms_norm_eps=1e-5,
            tie_word_embeddings=False,
            bos_token_id=fast.bos_token_id,
            eos_token_id=fast.eos_token_id,
            pad_token_id=fast.pad_token_id,
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 32.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        )
    )
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="500KB")
    fast.save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) > 1


def save_talkative(tiny_model: Path, folder: Path) -> None:
    """The tiny model with larger weights: its own give one token whatever is asked."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shutil.copytree(tiny_model, folder, dirs_exist_ok=True)
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tiny_model, initializer_range=0.3))
    assert model.config.tie_word_embeddings
    model.save_pretrained(folder)


@pytest.fixture(scope="module", params=["tiny", "single digits", "llama 3", "linear rope"])
def model(request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory."""
    folder = tmp_path_factory.mktemp("model")
    if request.param in ("tiny", "single digits"):
        save_talkative(tiny_model, folder)
    else:
        save_llama_3(folder)
    if request.param == "single digits":  # as SmolLM2 on the hub
        steps = [{"type": "Digits", "individual_digits": True}, BYTES | {"use_regex": True}]
        edit(folder / "tokenizer.json", pre_tokenizer={"type": "Sequence", "pretokenizers": steps})
    if request.param == "linear rope":
        edit(folder / "config.json", rope_parameters={"rope_type": "linear", "rope_theta": 500000.0, "factor": 4.0})
    return folder


@pytest.fixture(scope="module")
def llama_3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one like Llama 3.2."""
    folder = tmp_path_factory.mktemp("llama_3")
    save_llama_3(folder)
    return folder


def edit(file: Path, **changes: Any) -> None:
    """Changes keys of a JSON file."""
    file.write_text(json.dumps(read_json(file) | changes))


Ask = Callable[..., dict[str, Any]]


@contextmanager
def llama_cpp(file: Path) -> Iterator[Ask]:
    """llama.cpp's own server on a GGUF file, computing in float32: a function that posts to it."""
    xlc = pytest.importorskip("xllamacpp", reason="llama.cpp is not installed: pip install xllamacpp")
    settings = xlc.CommonParams()
    settings.model.path = str(file)
    settings.n_ctx, settings.n_parallel = 1024, 1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    settings.warmup, settings.verbosity, settings.use_jinja = False, 0, True
    settings.cache_type_k = settings.cache_type_v = xlc.ggml_type.GGML_TYPE_F32
    settings.flash_attn_type = xlc.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xlc.Server(settings)
    address = server.listening_address

    def ask(path: str, **body: Any) -> dict[str, Any]:
        request = urllib.request.Request(f"{address}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    try:
        yield ask
    finally:
        del server


def prompts_of(directory: Path) -> list[list[int]]:
    """The prompts' tokens, as every stage renders them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    return [
        tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"] for prompt in PROMPTS
    ]


def expected_answers(directory: Path) -> list[list[int]]:
    """The greedy tokens of transformers, an end token included."""
    import torch
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    answers = []
    for ids in prompts_of(directory):
        given = torch.tensor([ids])
        found = network.generate(
            given, attention_mask=torch.ones_like(given), max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False
        )
        answers.append(found[0, len(ids) :].tolist())
    return answers


def answers_of(file: Path, directory: Path) -> list[list[int]]:
    """The greedy tokens of llama.cpp."""
    with llama_cpp(file) as ask:
        given = {"n_predict": TOKENS, "temperature": 0, "ignore_eos": True, "return_tokens": True, "cache_prompt": False}
        return [ask("completion", prompt=ids, **given)["tokens"] for ids in prompts_of(directory)]


def test_llama_cpp_answers_as_the_model(model: Path, tmp_path: Path) -> None:
    write_gguf(model, tmp_path / "model.gguf", "f32", "a-model")
    expected = expected_answers(model)
    assert answers_of(tmp_path / "model.gguf", model) == expected
    assert len({tuple(answer) for answer in expected}) == len(PROMPTS)


def test_llama_cpp_reads_texts_as_the_tokenizer(model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    write_gguf(model, tmp_path / "model.gguf", "f32", "a-model")
    tokenizer = AutoTokenizer.from_pretrained(model)
    with llama_cpp(tmp_path / "model.gguf") as ask:
        for text in TEXTS:
            for special in (False, True):
                found = ask("tokenize", content=text, add_special=special, parse_special=True)["tokens"]
                assert found == tokenizer(text, add_special_tokens=special)["input_ids"], (text, special)


def test_llama_cpp_renders_chats_as_the_training(model: Path, tmp_path: Path) -> None:
    write_gguf(model, tmp_path / "model.gguf", "f32", "a-model")
    stored = gguf.GGUFReader(tmp_path / "model.gguf").get_field("tokenizer.chat_template").contents()
    assert stored == (model / "chat_template.jinja").read_text(encoding="utf-8")
    with llama_cpp(tmp_path / "model.gguf") as ask:
        for prompt, ids in zip(PROMPTS, prompts_of(model), strict=True):
            rendered = ask("apply-template", messages=prompt)["prompt"]
            assert ask("tokenize", content=rendered, add_special=True, parse_special=True)["tokens"] == ids


RIGHT_FACTORS = gguf_export._rope_factors


@pytest.mark.parametrize("number_format", ["f16", "bf16", "q8_0"])
def test_smaller_number_formats_keep_what_they_can(llama_3: Path, tmp_path: Path, number_format: str) -> None:
    """Their weights are the model's rounded once; llama.cpp loads them."""
    exact, rounded = tmp_path / "f32.gguf", tmp_path / f"{number_format}.gguf"
    write_gguf(llama_3, exact, "f32", "a-model")
    write_gguf(llama_3, rounded, number_format, "a-model")
    assert rounded.stat().st_size < 0.6 * exact.stat().st_size
    tolerance = {"f16": 2**-11, "bf16": 0.0, "q8_0": 2**-7}[
        number_format
    ]  # of a tensor's largest number; bf16 is the model's own
    for one, other in zip(gguf.GGUFReader(exact).tensors, gguf.GGUFReader(rounded).tensors, strict=True):
        assert one.name == other.name
        weight = gguf.quants.dequantize(one.data, one.tensor_type)
        difference = abs(gguf.quants.dequantize(other.data, other.tensor_type) - weight).max()
        assert difference <= tolerance * abs(weight).max(), one.name
    assert all(len(answer) == TOKENS for answer in answers_of(rounded, llama_3))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("_interleave", lambda weight, _: weight),
        ("_rope_factors", lambda _: {}),
        ("_rope_factors", lambda config: {name: 1 / factors for name, factors in RIGHT_FACTORS(config).items()}),
    ],
    ids=["queries and keys as they were", "no scaling", "the inverse scaling"],
)
def test_a_wrong_conversion_is_seen(
    llama_3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, wrong: Callable
) -> None:
    monkeypatch.setattr(gguf_export, name, wrong)
    write_gguf(llama_3, tmp_path / "model.gguf", "f32", "a-model")
    assert answers_of(tmp_path / "model.gguf", llama_3) != expected_answers(llama_3)


def test_a_wrong_name_of_the_pre_tokenizer_is_seen(llama_3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    monkeypatch.setattr(gguf_export, "_PRE_TOKENIZERS", dict.fromkeys(gguf_export._PRE_TOKENIZERS, "gpt-2"))
    write_gguf(llama_3, tmp_path / "model.gguf", "f32", "a-model")
    tokenizer = AutoTokenizer.from_pretrained(llama_3)
    with llama_cpp(tmp_path / "model.gguf") as ask:
        found = [ask("tokenize", content=text, add_special=True, parse_special=True)["tokens"] for text in TEXTS]
    assert found != [tokenizer(text)["input_ids"] for text in TEXTS]


NOT_BYTES = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
OTHER_SPLIT = {"type": "Split", "pattern": {"Regex": "\\d"}, "behavior": "Isolated", "invert": False}
STARTS_WITH_PAD = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<|pad|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<|pad|>": {"id": "<|pad|>", "ids": [0], "tokens": ["<|pad|>"]}},
}


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"architectures": ["MistralForCausalLM"]}, "MistralForCausalLM.*, not LlamaForCausalLM"),
        ("config.json", {"quantization_config": {"quant_method": "fp8"}}, "weights are quantized"),
        ("config.json", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ("config.json", {"attention_bias": True}, "attention_bias is True"),
        ("config.json", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}}, "rope scaling.*yarn"),
        ("config.json", {"tie_word_embeddings": False}, "lack lm_head.weight"),
        ("config.json", {"vocab_size": 599}, "has no row in the embeddings"),
        ("config.json", {"eos_token_id": 1}, "ends answers with 2, the model with 1"),
        ("tokenizer.json", {"pre_tokenizer": NOT_BYTES}, "not a byte-level BPE"),
        ("tokenizer.json", {"pre_tokenizer": None}, "not a byte-level BPE"),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [OTHER_SPLIT, BYTES]}}, "no known name"),
        ("tokenizer.json", {"normalizer": {"type": "NFC"}}, r"changes texts \(NFC\)"),
        ("tokenizer.json", {"post_processor": STARTS_WITH_PAD}, "adds more than a start token"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_what_the_file_could_not_say_is_refused(
    tiny_model: Path, tmp_path: Path, file: str, changes: dict[str, Any], message: str
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(tiny_model, copy)
    edit(copy / file, **changes)
    with pytest.raises(InputError, match=message):
        write_gguf(copy, tmp_path / "model.gguf", "f32", "a-model")


def test_a_start_token_that_the_chats_of_the_training_lacked_is_refused(llama_3: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(llama_3, copy)
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text().replace("{{- bos_token }}", ""))
    with pytest.raises(InputError, match="does not begin with it"):
        write_gguf(copy, tmp_path / "model.gguf", "f32", "a-model")


def texts_by_go_template(template: str) -> Turns:
    """The texts of a template for Ollama, read out of it."""
    pattern = (
        r'\{\{ range \.Messages \}\}\{\{ if eq \.Role "system" \}\}(.*)\{\{ \.Content \}\}'
        r'\{\{ else if eq \.Role "user" \}\}(.*)\{\{ \.Content \}\}(.*)'
        r"\{\{ else \}\}\{\{ \.Content \}\}\{\{ end \}\}\{\{ end \}\}"
    )
    return Turns(*re.fullmatch(pattern, template, re.DOTALL).groups())


@pytest.mark.parametrize(
    "change",
    [
        ("{{ message['content'] }}", "{{ message['content'][:20] }}"),  # not all of a message
        ("{{ message['content'] }}", "{{ message['content'] | upper }}"),
        ("{{ message['role'] }}", "{{ message['role'] }} {{ loop.index }}"),  # texts that count
        ("<|end|>", "{{ '{{' }}"),  # what Go would run
        ("<|start|>assistant\n", "<|start|>assistant\n<think>\n"),  # an earlier answer begins otherwise
    ],
    ids=lambda change: change[1],
)
def test_a_chat_template_that_is_more_than_texts_between_messages_is_not_said_to_ollama(change: tuple[str, str]) -> None:
    from conftest import CHAT_TEMPLATE
    from jinja2 import Environment

    def turns(template: str) -> Turns | None:
        compiled = Environment().from_string(template)
        return turns_of(lambda prompt: compiled.render(messages=prompt, add_generation_prompt=True), PROMPTS)

    found = turns(CHAT_TEMPLATE)
    assert found == Turns("<|start|>system\n", "<|end|>\n<|start|>user\n", "<|end|>\n<|start|>assistant\n")
    assert change[0] in CHAT_TEMPLATE
    assert turns(CHAT_TEMPLATE.replace(*change)) is None


@pytest.fixture
def run(llama_3: Path, tmp_path: Path) -> Path:
    """A run's folder with a model and records."""
    folder = tmp_path / "a-run"
    with new_model_directory(folder / "grpo_model") as target:
        shutil.copytree(llama_3, target, dirs_exist_ok=True)
    (folder / "data").mkdir()
    records = pa.Table.from_pylist([{"prompt": prompt} for prompt in PROMPTS], schema=pa.schema([("prompt", MESSAGES)]))
    pq.write_table(records, folder / "data/validation.parquet")
    return folder


def export(run: Path) -> subprocess.CompletedProcess[str]:
    sources, target = ROOT / "resources/gguf", run / "export/gguf"
    command = [
        *(sys.executable, ROOT / "workflow_scripts/export_gguf.py", "--name", "a-run-grpo", "--threads", "1"),
        *("--model", run / "grpo_model/manifest.json", "--validation", run / "data/validation.parquet"),
        *("--modelfile-template", sources / "Modelfile.j2", "--readme-template", sources / "README.md.j2"),
        *("--gguf", target / "model.gguf", "--modelfile", target / "Modelfile", "--readme", target / "README.md"),
        *("--log", run / "logs/export_gguf.log", "--provenance", run / "provenance/export_gguf.json"),
    ]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def test_the_program_writes_model_modelfile_and_readme(run: Path) -> None:
    from transformers import AutoTokenizer

    done = export(run)
    assert done.returncode == 0, done.stderr
    folder = run / "export/gguf"
    assert {file.name for file in folder.iterdir()} == {"model.gguf", "Modelfile", "README.md"}
    provenance = read_json(run / "provenance/export_gguf.json")
    assert provenance["parameters"] == {"name": "a-run-grpo", "type": "f16"}
    assert provenance["outputs"][str(folder / "model.gguf")] == sha256_of(folder / "model.gguf")
    assert provenance["facts"] == {"tensors": 3 * 9 + 4, "pre_tokenizer": "llama-bpe", "has_ollama_template": True}

    modelfile = (folder / "Modelfile").read_text()
    template, system = re.findall(r'^(?:TEMPLATE|SYSTEM) """(.*?)"""$', modelfile, re.DOTALL | re.MULTILINE)
    assert system == SYSTEM
    assert {"FROM ./model.gguf", "PARAMETER temperature 0", "PARAMETER repeat_penalty 1"} <= set(modelfile.splitlines())
    tokenizer = AutoTokenizer.from_pretrained(run / "grpo_model")
    for prompt in PROMPTS:  # Ollama puts the start token before the rest, as llama.cpp does
        rendered = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        assert tokenizer.bos_token + texts_by_go_template(template).render(prompt) == rendered
    readme = (folder / "README.md").read_text()
    assert SYSTEM in readme
    assert "not a medical device" in readme
    assert "--host 127.0.0.1" in readme


def test_a_refused_model_leaves_one_line_and_no_file(run: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    with new_model_directory(run / "grpo_model") as target:
        shutil.copytree(run / "grpo_model", target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
        shard = max(target.glob("*.safetensors"))
        weights = load_file(shard)
        next(weight for weight in weights.values() if weight.dim() == 2)[0, 0] = torch.tensor(1e6)
        save_file(weights, shard, {"format": "pt"})
    done = export(run)
    assert done.returncode == 1
    assert re.fullmatch(r"export_gguf: error: .*beyond float16's\. Export with --type bf16\.\n", done.stderr)
    assert list((run / "export/gguf").iterdir()) == []
    assert not (run / "provenance").exists()
    write_gguf(run / "grpo_model", tmp_path / "model.gguf", "bf16", "a-model")


@pytest.mark.pipeline
def test_only_its_own_target_exports(project: Project) -> None:
    assert "export_gguf" not in project.jobs()
    assert {"export_gguf", "merge_grpo_checkpoint"} <= project.jobs("export_gguf")
    assert not {"generate_answers", "make_report"} & project.jobs("export_gguf")
