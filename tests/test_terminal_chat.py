"""The chat in a terminal, driven through a pseudo-terminal as a person would."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest
from chat_server import ChatServer, running
from conftest import Project

from ecg_grpo.conversation import DISCLAIMER
from ecg_grpo.terminal_chat import printable

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(300)]

CHAT = ["workflow_scripts/chat.py", "--threads", "1"]
REASONED = "<think>A prolonged QT interval means slow repolarisation.</think><answer>It may lead to torsades.</answer>"


@pytest.fixture(scope="module")
def run(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a project with a finished run, to write into."""
    folder = tmp_path_factory.mktemp("chat") / "project"
    shutil.copytree(finished.folder, folder, symlinks=True)
    return folder


@pytest.fixture
def talk(run: Path, tmp_path: Path) -> Iterator[Callable[..., pexpect.spawn]]:
    """Starts a chat and waits until it listens."""
    started = []

    def start(*arguments: str) -> pexpect.spawn:
        environment = os.environ | {"XDG_STATE_HOME": str(tmp_path / "state"), "TERM": "xterm-256color"}
        chat = pexpect.spawn(
            "python", [*CHAT, *arguments], cwd=run, dimensions=(40, 100), encoding="utf-8", timeout=60, env=environment
        )
        started.append(chat)
        chat.expect("lists the commands")
        return chat

    yield start
    for chat in started:
        chat.close(force=True)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with running(ChatServer(answer=lambda _: REASONED)) as chat:
        yield chat


def plain(text: str) -> str:
    """What a terminal shows, without colours and cursor movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_questions_commands_and_a_saved_conversation(run: Path, talk: Callable[..., pexpect.spawn], tmp_path: Path) -> None:
    chat = talk("--max-new-tokens", "12")
    assert "grpo answers." in plain(chat.before)
    assert DISCLAIMER[:40] in " ".join(plain(chat.before).split())
    chat.sendline("What is a P wave?")
    chat.expect("s in all")
    chat.sendline("/model sft")
    chat.expect("sft answers")
    chat.sendline("And a T wave?")
    chat.expect("s in all")
    chat.sendline("/compare")
    chat.expect("The conversation stays as it was")
    assert re.search(r"base\s.*sft\s.*grpo", plain(chat.before)), "side by side"
    for line, said in {
        "/temperature 0.8": "temperature 0.8",
        "/seed 7": "seed 7",
        "/seed seven": "'seven' is no number",
        "/tokens 0": "is not from 1 to",
        "/tokens 5000": "at most 5000 tokens",
        "Too long?": "more than the 2,?048",
        "/system": "cardiology expert",
        "/system Be brief.": "Be brief",
        "/model nothing": "is no model",
        "/bogus": "/bogus: is no command",
        "/reasoning": "No reasoning yet",
        "/help": "/quit",
        f"/save {tmp_path}/talk": r"wrote .*talk\.jsonl",
        f"/save {tmp_path}/it's my talk": r"wrote .*it's my talk\.jsonl",
        "/save .": "names no file",
        "/save ~nobody-of-this-name/talk": "no such home folder",
        "/save /proc/nowhere": "No such file or directory",
        "/reset": "A new conversation",
        "/save": "nothing to save",
    }.items():
        chat.sendline(line)
        chat.expect(said)
    chat.sendline("/quit")
    chat.expect(pexpect.EOF)
    rows = [json.loads(line) for line in (tmp_path / "talk.jsonl").read_text().splitlines()]
    assert [(row["model"], row["prompt"][-1]["content"]) for row in rows] == [
        ("grpo", "What is a P wave?"),
        ("sft", "And a T wave?"),
    ]
    answered = [message["content"] for message in rows[1]["prompt"] if message["role"] == "assistant"]
    assert answered == [row["prediction"] for row in rows[:1] if row["prediction"]]
    assert DISCLAIMER in (tmp_path / "talk.md").read_text()
    assert "What is a P wave?" in (tmp_path / "state/ecg-grpo/questions").read_text()


def test_ctrl_c_stops_the_answer_and_not_the_program(talk: Callable[..., pexpect.spawn], server: ChatServer) -> None:
    prompt = r"\?2004h"  # a key that is pressed before it is there may get lost
    server.pause, server.answer = 0.1, lambda _: "A prolonged answer" + " that goes on" * 200
    chat = talk("--model", server.url)
    chat.expect(prompt)
    chat.sendline("What does a long QT interval mean?")
    chat.expect("prolonged")
    chat.sendintr()
    chat.expect("stopped")
    server.pause, server.answer = 0.0, lambda _: REASONED
    chat.expect(prompt)
    chat.sendline("Once more?")
    chat.expect("torsades")
    chat.expect(prompt)
    chat.sendintr()  # there it only says how to end
    chat.expect("Ctrl-D ends")
    chat.expect(prompt)
    chat.sendeof()
    chat.expect(pexpect.EOF)
    chat.wait()
    assert chat.exitstatus == 0


def test_reasoning_is_folded_until_asked_for(talk: Callable[..., pexpect.spawn], server: ChatServer) -> None:
    chat = talk("--model", server.url)
    chat.sendline("What does a long QT interval mean?")
    chat.expect("s in all")
    shown = plain(chat.before)
    assert "reasoning, 7 words (/reasoning)" in shown
    assert "slow repolarisation" not in shown
    assert "It may lead to torsades." in shown
    assert "<" not in shown.replace("<think", ""), "tags are not shown"
    chat.sendline("/reasoning")
    chat.expect("slow repolarisation")
    chat.sendline("/reasoning show")
    chat.expect("slow repolarisation")
    chat.sendline("Again?")
    chat.expect(r"\x1b\[2;3m repolarisation\.")  # dimmed
    chat.expect("s in all")


def test_a_models_text_does_not_steer_the_terminal(talk: Callable[..., pexpect.spawn], server: ChatServer) -> None:
    server.answer = lambda _: "\x1b]0;owned\x07\x1b[2JQRS\x9b31m \u202eesrever"
    chat = talk("--model", server.url)
    chat.sendline("What?")
    chat.expect("s in all")
    assert "QRS" in chat.before
    for sequence in ("\x1b]0;", "\x1b[2J", "\x9b", "\u202e"):
        assert sequence not in chat.before
    assert printable("a\x1b[31m\nb") == "a�[31m\nb"


def test_a_full_disk_is_one_line_and_the_chat_goes_on(run: Path, server: ChatServer, tmp_path: Path) -> None:
    allowed = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    if allowed.returncode:
        pytest.skip("this user may not mount file systems")
    server.answer = lambda _: "QRS " * 5000
    command = f"mount -t tmpfs -o size=8k none /mnt && exec python {' '.join(CHAT)} --model {server.url}"
    environment = os.environ | {"XDG_STATE_HOME": "/mnt/state", "TERM": "xterm-256color"}
    arguments = ["-rm", "bash", "-c", command]
    chat = pexpect.spawn("unshare", arguments, cwd=run, dimensions=(40, 100), encoding="utf-8", timeout=60, env=environment)
    try:
        chat.expect("lists the commands")
        chat.sendline("What?")
        chat.expect("s in all")
        chat.sendline("/save /mnt/talk")
        chat.expect("No space left on device")
        assert "Traceback" not in chat.before
        chat.sendline("/quit")
        chat.expect(pexpect.EOF)
    finally:
        chat.close(force=True)


def test_a_piped_question_gives_the_answer_alone(run: Path, server: ChatServer) -> None:
    asked = subprocess.run(
        ["python", *CHAT, "--model", server.url], cwd=run, input="What?\n", capture_output=True, text=True, check=True
    )
    assert asked.stdout == "It may lead to torsades.\n"
    assert DISCLAIMER in asked.stderr
    ((_, payload),) = server.requests
    assert [message["role"] for message in payload["messages"]] == ["system", "user"]
    assert payload["messages"][0]["content"] == (run / "resources/prompts/system.txt").read_text().strip()


@pytest.mark.parametrize(
    ("arguments", "question", "message"),
    [
        (["--model", "/nowhere"], "What?", "chat: error: /nowhere: is no model."),
        (["--run", "nobody"], "What?", "there is no such run"),
        (["--model", "http://127.0.0.1:9/v1"], "What?", "no server answers"),
        (["--model", "ftp://x"], "What?", "is no model"),
        (["--system-prompt", "/nowhere"], "What?", "/nowhere: No such file"),
        ([], "  \n", "holds no question"),
        (["--max-new-tokens", "0"], "What?", "--max-new-tokens"),
        (["--temperature", "-1"], "What?", "--temperature"),
        (["--seed", "99999999999999999999"], "What?", "--seed: 1e+20 is not from 0 to 2,147,483,647."),
        (["--threads", "0"], "What?", "--threads"),
        (["--model", "http://127.0.0.1:80x/v1"], "What?", "a port that is no number"),
        (["--model", "x" * 300], "What?", "File name too long"),
        ([], "QT \udcff", "is no UTF-8 text"),
    ],
)
def test_what_cannot_work_is_one_line(run: Path, arguments: list[str], question: str, message: str) -> None:
    piped = question.encode("utf-8", "surrogateescape")
    asked = subprocess.run(["python", *CHAT, *arguments], cwd=run, input=piped, capture_output=True, check=False)
    assert asked.returncode == 1
    said = asked.stderr.decode()
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert asked.stdout == b""


def test_every_space_is_shown_as_one_and_nothing_moves_the_cursor() -> None:
    assert printable("a\tb 60\u202fbpm 5\u00a0mm\n≥ 120 ms") == "a b 60 bpm 5 mm\n≥ 120 ms"
    assert printable("\x1b[2J\r\x07\x9b\u2028") == "�[2J����"


def test_a_missing_run_says_how_to_make_one(run: Path, tmp_path: Path) -> None:
    asked = subprocess.run(["python", run / CHAT[0]], cwd=tmp_path, input="What?", capture_output=True, text=True, check=False)
    assert asked.returncode == 1
    assert asked.stderr.strip() == (
        "chat: error: results: holds no finished run. Make one with `make demo`, or name a model with --model."
    )
