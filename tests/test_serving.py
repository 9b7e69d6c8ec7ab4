"""A finished model behind the servers that the documentation names, asked with the `openai` client."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, Project

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(400)]

DOCUMENTED = [line.strip() for line in (ROOT / "docs/serve.md").read_text().splitlines()]
MAX_NEW_TOKENS = 16
VLLM_LOCK = ROOT / "envs/requirements_vllm_cpu.lock"
MODEL = "results/demo/grpo_model"
"""What both servers call the model: the path by which it was given."""
ON_A_PROCESSOR = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "OMP_NUM_THREADS": "1",
}


def documented(program: str) -> list[str]:
    """The command by which docs/serve.md starts a server."""
    (line,) = {line.partition("#")[0].strip() for line in DOCUMENTED if line.startswith(f"{program} serve ")}
    return shlex.split(line)


def named_vllm(folder: Path) -> Path:
    """A folder that makes the processor's build answer to the name `vllm`: its command line asks for the package's version, and
    the package is called vllm-cpu.
    """
    metadata = folder / "vllm.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    (lock,) = [line for line in VLLM_LOCK.read_text().splitlines() if line.startswith("vllm-cpu==")]
    metadata.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {lock.partition('==')[2]}+cpu\n")
    return folder


@pytest.fixture(params=["transformers", "vllm"])
def client(request: pytest.FixtureRequest, finished: Project, tmp_path: Path) -> Iterator[openai.OpenAI]:
    """A client of the server, started by its documented command on a free port."""
    environment = dict(os.environ)
    options = ["--device", "cpu", "--dtype", "float32"]
    if request.param == "vllm":
        environment = request.getfixturevalue("vllm_environment") | ON_A_PROCESSOR
        environment["PYTHONPATH"] = str(named_vllm(tmp_path / "named"))
        options = ["--dtype", "float32", "--enforce-eager", "--max-model-len", "1024"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [word if word != "8000" else str(port) for word in documented(request.param)]
    assert str(port) in command
    assert "127.0.0.1" in command, "a server listens on this machine alone unless told otherwise"
    log = tmp_path / "server.log"
    with log.open("w") as stream:
        server = subprocess.Popen(
            [*command, *options], cwd=finished.folder, env=environment, stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 300
        while True:
            assert server.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.3)
        yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=120)
    finally:
        server.terminate()
        server.wait()


def test_a_served_model_answers_as_in_the_evaluation(client: openai.OpenAI, finished: Project) -> None:
    own = pq.read_table(finished.results() / "evaluation/grpo/answers.parquet").to_pylist()[:3]
    for row in own:
        asked = {"model": MODEL, "messages": row["prompt"], "temperature": 0, "max_tokens": MAX_NEW_TOKENS}
        reply = client.chat.completions.create(**asked)
        assert reply.choices[0].message.content == row["completion"]
        assert reply.usage.prompt_tokens == row["prompt_tokens"], "the server renders the prompt in another way"
        pieces = [
            event.choices[0].delta.content or ""
            for event in client.chat.completions.create(stream=True, **asked)
            if event.choices
        ]
        assert "".join(pieces) == row["completion"]
