"""A served model: what is asked, what is tried again, what is refused, and that the key appears nowhere."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest
from chat_server import ChatServer, echo, running
from conftest import ROOT, Project

from ecg_grpo.endpoint import Endpoint, Reply
from ecg_grpo.errors import InputError
from ecg_grpo.journal import Journal
from ecg_grpo.replies import Replies
from ecg_grpo.settings.endpoint import EndpointSettings
from ecg_grpo.tables import RECORDS, write_table

KEY = "-".join(("sk", "very", "secret", "0123456789"))  # in parts: this file is in the copied project, too
MESSAGES = [{"role": "system", "content": "You are a cardiologist."}, {"role": "user", "content": "What is a P wave?"}]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with running(ChatServer()) as chat:
        yield chat


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARDIO_KEY", KEY)


def ask(server: ChatServer, notes: list[str] | None = None, **changes: object) -> Reply:
    """One reply; failed attempts are repeated at once."""
    settings = EndpointSettings(**server.settings(**changes))
    with Endpoint(settings, 40, (notes if notes is not None else []).append, first_delay=0.001) as endpoint:
        return endpoint.ask(MESSAGES)


def test_the_request_is_a_greedy_chat_completion(server: ChatServer) -> None:
    reply = ask(server)
    ((headers, payload),) = server.requests
    expected = {"model": "cardio-1", "messages": MESSAGES, "temperature": 0, "max_tokens": 40, "stream": False}
    assert payload == expected
    assert "authorization" not in headers
    assert (reply.text, reply.finish_reason) == (echo("What is a P wave?"), "stop")
    assert (reply.prompt_tokens, reply.completion_tokens) == (11, 7)
    assert reply.seconds > 0
    server.key = KEY
    assert ask(server, api_key_env="CARDIO_KEY").text == reply.text
    assert server.requests[1][0]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("behaviour", "text", "finish_reason"),
    [
        ('message {"finish_reason": "length"}', echo("What is a P wave?"), "length"),
        ('message {"finish_reason": "content_filter", "message": {"content": null}}', "", "stop"),
        ('message {"finish_reason": null, "message": {"content": ""}}', "", "stop"),
        ('message {"message": {"role": "assistant"}}', "", "stop"),
        ('body {"choices": [{"message": {"content": "a \\ud800 b"}}]}', "a ? b", "stop"),
        (f'message {{"message": {{"content": "I know {KEY}."}}}}', "I know [key].", "stop"),
    ],
)
def test_what_a_reply_becomes(server: ChatServer, behaviour: str, text: str, finish_reason: str) -> None:
    server.behaviours = [behaviour]
    reply = ask(server, api_key_env="CARDIO_KEY")
    assert (reply.text, reply.finish_reason) == (text, finish_reason)
    if behaviour.startswith("body"):
        assert (reply.prompt_tokens, reply.completion_tokens, reply.server_finish_reason) == (None, None, None)


@pytest.mark.parametrize("behaviour", ["status 429", "status 500", "status 503", "status 408", "drop", "cut", "slow 5"])
def test_what_another_attempt_may_mend_is_tried_again(server: ChatServer, behaviour: str) -> None:
    server.behaviours = [behaviour, behaviour]
    notes: list[str] = []
    assert ask(server, notes, retries=2, timeout=1.5).text == echo("What is a P wave?")
    assert len(server.requests) == 3
    assert [re.search(r"attempt . of .", note)[0] for note in notes] == ["attempt 2 of 3", "attempt 3 of 3"]
    server.behaviours = [behaviour, behaviour]
    with pytest.raises(InputError, match="no reply in 2 attempts") as caught:
        ask(server, retries=1, timeout=1.5)
    assert str(caught.value).startswith(f"{server.url}/chat/completions: ")
    assert len(server.requests) == 5


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: refused at once
        notes: list[str] = []
        server = ChatServer(url=f"http://127.0.0.1:{unused.getsockname()[1]}/v1")
        with pytest.raises(InputError, match=r"no reply in 2 attempts .*refused"):
            ask(server, notes, retries=1)
    assert len(notes) == 1


def test_waits_double_and_retry_after_counts(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    settings = EndpointSettings(**server.settings(retries=9))
    with Endpoint(settings, 40, print, first_delay=2) as endpoint:
        monkeypatch.setattr(endpoint._stopped, "wait", lambda seconds: waited.append(seconds))
        server.behaviours = ["status 500"] * 3 + ["status 429 33", "status 503 1"] + ["status 500"] * 3
        endpoint.ask(MESSAGES)
    for seconds, expected in zip(waited, [2, 4, 8, 33, 32, 60, 60, 60], strict=True):
        assert seconds == 33 if expected == 33 else 0.75 * expected <= seconds <= 1.25 * expected
    server.behaviours = ["status 429 601"]
    with pytest.raises(InputError, match="asks for a pause of 601 s"):
        ask(server)


def test_retry_after_is_waited_for(server: ChatServer) -> None:
    server.behaviours = ["status 429 1"]
    started = time.monotonic()
    ask(server)
    assert time.monotonic() - started >= 1


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        ("status 401 - {KEY}", "the server refuses the key in CARDIO_KEY (401 Unauthorized)"),
        (
            "status 403 - Your key sk-very-se*** is not allowed",
            "the server refuses the key in CARDIO_KEY (403 Forbidden). Mend",
        ),
        ("status 404 - x", "no such address, or no model 'cardio-1' (404 Not Found: x)"),
        ('status 400 - {"error": {"message": "too\\nlong \\u001b[31m {KEY}"}}', "(400 Bad Request: too long [31m [key])"),
        ('status 422 - {"detail": "no"}', "refuses the request (422 Unprocessable Entity: no)"),
        ("status 400 - [1]", "refuses the request (400 Bad Request: [1])"),
        ("status 400", "refuses the request (400 Bad Request)"),
        ("status 302", "the server redirects (302 Found)"),
        ("body <html>{KEY}", "no chat completion (it begins '<html>[key]')"),
        ("body", "no chat completion"),
        ('body {"choices": [{"message"', "no chat completion"),
        ('body {"error": {"message": "overloaded"}}', "no chat completion"),
        ('body {"choices": []}', "no chat completion"),
        ('body {"choices": [{"message": null}]}', "no chat completion"),
        ('body {"choices": [{"message": {"content": ["a"]}}]}', "no chat completion"),
        ('body {"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": -1}}', "no chat completion"),
        ('body {"choices": [{"message": {"content": "a"}}], "usage": [1]}', "no chat completion"),
        ("body " + "[" * 100_000, "no chat completion"),
    ],
)
def test_what_no_other_attempt_mends_is_said_at_once(server: ChatServer, behaviour: str, expected: str) -> None:
    server.behaviours = [behaviour.replace("{KEY}", KEY)]
    notes: list[str] = []
    with pytest.raises(InputError) as caught:
        ask(server, notes, api_key_env="CARDIO_KEY")
    assert expected in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert KEY not in str(caught.value)
    assert KEY[:10] not in str(caught.value)
    assert len(server.requests) == 1
    assert not notes


@pytest.mark.parametrize("line", ["HTTP/1.1 500 {KEY}", "HTTP/1.1 400 {KEY}", "HTTP/1.1 401 {KEY}", "{KEY}"])
def test_a_server_that_repeats_the_key_in_its_first_line(server: ChatServer, line: str) -> None:
    server.behaviours = [f"line {line}".replace("{KEY}", KEY)] * 2
    notes: list[str] = []
    with pytest.raises(InputError) as caught:
        ask(server, notes, api_key_env="CARDIO_KEY", retries=1)
    assert KEY not in str(caught.value) + "".join(notes)


def test_a_redirect_is_not_followed(server: ChatServer) -> None:
    server.behaviours = ["status 307"]
    with pytest.raises(InputError, match="redirects"):
        ask(server, api_key_env="CARDIO_KEY")
    assert len(server.requests) == 1


def test_a_body_without_end_is_refused(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecg_grpo.endpoint._LARGEST_BODY", 1000)
    server.behaviours = ["body " + " " * 1001]
    with pytest.raises(InputError, match="longer than 1,000 bytes"):
        ask(server)


@pytest.mark.parametrize("value", ["", f"{KEY}\nX-Other: 1", "schlüssel", "two words"])
def test_a_key_that_is_missing_or_broken_is_not_quoted(server: ChatServer, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CARDIO_KEY", value)
    with pytest.raises(InputError, match="environment variable CARDIO_KEY") as caught:
        ask(server, api_key_env="CARDIO_KEY")
    assert not value or value.split()[0] not in str(caught.value)
    assert not server.requests


@pytest.mark.parametrize(
    "changes",
    [
        {"base_url": "ftp://host/v1"},
        {"base_url": "file:///etc/passwd"},
        {"base_url": "host:8000/v1"},
        {"base_url": f"http://user:{KEY}@host/v1"},
        {"base_url": f"http://host/v1?api-key={KEY}"},
        {"api_key_env": KEY},
        {"api_key": KEY},
        {"retries": -1},
        {"model": ""},
        {"max_parallel": 0},
    ],
)
def test_settings_that_cannot_work_or_hold_a_secret(changes: dict) -> None:
    with pytest.raises(InputError) as caught:
        EndpointSettings.from_json(json.dumps({"base_url": "http://host/v1", "model": "m"} | changes))
    assert KEY not in str(caught.value)


def test_a_slash_at_the_end_changes_nothing() -> None:
    assert EndpointSettings(base_url="http://h/v1/", model="m") == EndpointSettings(base_url="http://h/v1", model="m")


def test_many_are_asked_at_once_but_no_more_than_allowed(server: ChatServer) -> None:
    server.delay = lambda number: 0.02 + 0.01 * (number % 3)
    prompts = {str(number): [{"role": "user", "content": f"Question {number}"}] for number in range(20)}
    with Endpoint(EndpointSettings(**server.settings(max_parallel=4)), 40, print) as endpoint:
        found = dict(endpoint.ask_all(prompts))
    assert {name: reply.text for name, reply in found.items()} == {name: echo(f"Question {name}") for name in prompts}
    assert server.most_at_once == 4
    assert len(server.requests) == 20


def test_a_failure_ends_it_but_what_is_under_way_is_kept(server: ChatServer) -> None:
    server.delay = lambda number: 0 if number == 1 else 0.3
    server.behaviours = ["well", "status 401", "well", "status 500"]
    prompts = {str(number): [{"role": "user", "content": f"Question {number}"}] for number in range(20)}
    found, started = {}, time.monotonic()
    settings = EndpointSettings(**server.settings(max_parallel=4))
    with Endpoint(settings, 40, print, first_delay=30) as endpoint, pytest.raises(InputError, match="401"):
        for name, reply in endpoint.ask_all(prompts):
            found[name] = reply
    assert len(found) == 2
    assert len(server.requests) == 4, "nothing new is asked"
    assert time.monotonic() - started < 10, "nobody waits for an attempt that comes to nothing"


def test_a_journal_drops_half_a_line(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    journal = Journal(file)
    for entry in ({"a": "≥"}, [1, 2]):
        journal.add(entry)
    assert Journal(file).entries == [{"a": "≥"}, [1, 2]]
    file.write_bytes(file.read_bytes()[:-3])
    again = Journal(file)
    assert again.entries == [{"a": "≥"}]
    again.add(3)
    assert Journal(file).entries == [{"a": "≥"}, 3]


QUESTIONS = [
    {
        **dict.fromkeys(RECORDS.names),
        "id": f"EBK-{number}",
        "task": "EBK",
        "cluster": f"EBK-{number}",
        "context": "",
        "answer": f"Reference {number}.",
        "question": f"Question {number}?",
        "prompt": [MESSAGES[0], {"role": "user", "content": f"Question {number}?"}],
        "history": [],
        "flags": [],
    }
    for number in range(60)
]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    write_table(tmp_path / "test.parquet", QUESTIONS, RECORDS, {})
    return tmp_path / "test.parquet"


def command(folder: Path, questions: Path, settings: dict, *more: str) -> list[str]:
    return [
        *(sys.executable, str(ROOT / "workflow_scripts/ask_endpoint.py"), "--questions", str(questions)),
        *("--answers", str(folder / "served/answers.parquet"), "--scratch", str(folder / "scratch")),
        *("--settings", json.dumps(settings), "--threads", "1", "--log", str(folder / "log.txt")),
        *("--provenance", str(folder / "provenance.json"), *more),
    ]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False)


def table(folder: Path) -> list[dict]:
    return pq.read_table(folder / "served/answers.parquet").drop_columns("seconds").to_pylist()


def test_a_killed_run_goes_on_and_the_key_is_written_nowhere(server: ChatServer, questions: Path, tmp_path: Path) -> None:
    server.key = KEY
    server.delay = lambda number: 0.02 * (number * 7 % 5)
    server.behaviours = ["status 429 0", "status 500"]
    settings = server.settings(api_key_env="CARDIO_KEY", max_parallel=3)
    whole = run(tmp_path / "a", questions, settings)
    assert (whole.returncode, whole.stdout, whole.stderr) == (0, "", "")
    rows = table(tmp_path / "a")
    assert [row["id"] for row in rows] == [row["id"] for row in QUESTIONS], "whatever the order in which they arrived"
    assert [row["prediction"] for row in rows] == [echo(row["question"]) for row in QUESTIONS]
    assert {(row["prompt_tokens"], row["completion_tokens"], row["finish_reason"]) for row in rows} == {(11, 7, "stop")}
    facts = json.loads((tmp_path / "a/provenance.json").read_text())["facts"]
    assert (facts["asked"], facts["answered_before"], facts["failed_attempts"]) == (60, 0, 2)
    assert (facts["generated_tokens"], facts["finish_reasons"]) == (420, {"stop": 60})

    server.requests.clear()
    server.delay = lambda _: 0.1
    running_one = subprocess.Popen(command(tmp_path / "b", questions, settings))
    deadline = time.monotonic() + 30
    while sum(file.read_bytes().count(b"\n") for file in (tmp_path / "b").glob("scratch/ask_endpoint.served-*.jsonl")) < 9:
        assert running_one.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    running_one.send_signal(signal.SIGKILL)
    running_one.wait()
    assert not (tmp_path / "b/served/answers.parquet").exists()
    (kept,) = (tmp_path / "b").glob("scratch/ask_endpoint.served-*.jsonl")
    with kept.open("ab") as stream:
        stream.write(b'{"prompt": "59", "re')  # a line that the kill cut
    before = len(Replies(kept).found)
    assert before >= 9
    server.requests.clear()
    server.delay = lambda _: 0.0
    # How it is asked is another matter than who is asked.
    assert run(tmp_path / "b", questions, settings | {"max_parallel": 5, "timeout": 60}).returncode == 0
    assert len(server.requests) == 60 - before
    assert table(tmp_path / "b") == rows
    assert json.loads((tmp_path / "b/provenance.json").read_text())["facts"]["answered_before"] == before

    for file in (file for file in tmp_path.rglob("*") if file.is_file()):
        assert KEY.encode() not in file.read_bytes(), file


def test_an_error_is_one_line_and_leaves_what_was_answered(server: ChatServer, questions: Path, tmp_path: Path) -> None:
    server.behaviours = ["well"] * 5 + [f"status 400 - no {KEY}"]
    settings = server.settings(api_key_env="CARDIO_KEY", max_parallel=1)
    failed = run(tmp_path, questions, settings)
    assert failed.returncode == 1
    assert re.fullmatch(r"ask_endpoint: error: http://127.0.0.1:\d+/v1/chat/completions: .*\n", failed.stderr)
    assert not (tmp_path / "served/answers.parquet").exists()
    assert run(tmp_path, questions, settings).returncode == 0
    assert len(server.requests) == 6 + 55
    for file in (file for file in tmp_path.rglob("*") if file.is_file()):
        assert KEY.encode() not in file.read_bytes(), file
    assert KEY not in failed.stderr


def test_nothing_is_asked_twice_even_after_the_run(server: ChatServer, questions: Path, tmp_path: Path) -> None:
    assert run(tmp_path, questions, server.settings()).returncode == 0
    first = table(tmp_path)
    server.requests.clear()
    write_table(questions, QUESTIONS[30:] + QUESTIONS[:15], RECORDS, {})
    assert run(tmp_path, questions, server.settings(timeout=60)).returncode == 0
    assert not server.requests
    assert table(tmp_path) == first[30:] + first[:15]


@pytest.mark.parametrize("changed", ["model", "length"])
def test_another_model_or_length_starts_anew(server: ChatServer, questions: Path, tmp_path: Path, changed: str) -> None:
    server.behaviours = ["well"] * 5 + ["status 400"]
    assert run(tmp_path, questions, server.settings(max_parallel=1)).returncode == 1
    server.requests.clear()
    more = ["--max-new-tokens", "9"] if changed == "length" else []
    if changed == "model":
        server.model = "cardio-2"
    assert run(tmp_path, questions, server.settings(), *more).returncode == 0
    assert len(server.requests) == len(table(tmp_path)) == 60


@pytest.mark.pipeline
def test_a_served_model_is_compared_with_the_runs_own(finished_copy: Project, server: ChatServer) -> None:
    server.key = KEY
    finished_copy.configure(evaluation={"models": {"served": server.settings(api_key_env="CARDIO_KEY")}})
    after = {"score_answers", "score_as_ecg_bench", "check_contamination", "compare_models", "make_report"}
    assert finished_copy.jobs() == {"ask_endpoint"} | after
    finished_copy.snakemake("results/demo/evaluation/served/answers.parquet")
    asked = pq.read_table(finished_copy.results() / "data/test.parquet").to_pylist()
    rows = pq.read_table(finished_copy.results() / "evaluation/served/answers.parquet").to_pylist()
    assert [row["id"] for row in rows] == [row["id"] for row in asked]
    assert [row["prediction"] for row in rows] == [echo(row["prompt"][-1]["content"]) for row in asked]
    assert sorted(server.prompts()) == sorted(row["prompt"][-1]["content"] for row in asked)
    assert {payload["max_tokens"] for _, payload in server.requests} == {16}
    finished_copy.snakemake()
    assert finished_copy.jobs() == set()
    comparison = json.loads((finished_copy.results() / "evaluation/comparison.json").read_text())
    assert comparison["order"][-2:] == ["grpo", "served"]
    page = (finished_copy.results() / "report/index.html").read_text()
    assert "ask_endpoint" in page
    for file in finished_copy.folder.rglob("*"):
        if file.is_file():
            assert KEY.encode() not in file.read_bytes(), file

    # Its section is its own, and so are the sections of the others.
    finished_copy.configure(evaluation={"models": {"served": {"retries": 6}}})
    assert finished_copy.jobs() == {"ask_endpoint"} | after
    finished_copy.configure(evaluation={"models": {"served": {"retries": 5}}, "generation": {"batch_size": 7}})
    assert finished_copy.jobs() == {"generate_answers", "write_lm_eval_task"} | after
    finished_copy.configure(evaluation={"models": {"served": {"base_url": "http://user:secret@127.0.0.1/v1"}}})
    refused = finished_copy.snakemake("-n", check=False)
    assert "evaluation.models.served.endpoint: base_url must hold no password" in refused.stdout + refused.stderr
    assert "secret" not in refused.stdout + refused.stderr


@pytest.mark.vllm
@pytest.mark.pipeline
def test_a_real_server_answers_as_the_model_itself(
    finished: Project, vllm_environment: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    """`transformers serve`, an OpenAI-compatible server that is not this project's; fastapi is only in that environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    model = finished.results() / "sft_model"
    serve = ["transformers", "serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    log = (tmp_path / "serve.log").open("w")
    served = subprocess.Popen([*serve, "--dtype", "float32"], env=vllm_environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while True:
            assert served.poll() is None, (tmp_path / "serve.log").read_text()
            assert time.monotonic() < deadline
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        settings = {"base_url": f"http://127.0.0.1:{port}/v1", "model": str(model), "max_parallel": 2}
        questions = finished.results() / "data/test.parquet"
        done = run(tmp_path, questions, settings, "--max-new-tokens", "16")
        assert done.returncode == 0, done.stderr
        refused = run(tmp_path / "other", questions, settings | {"model": "no-such-model"})
        assert "no-such-model" in refused.stderr
        assert refused.returncode == 1
    finally:
        served.terminate()
        served.wait()
        log.close()
    own = pq.read_table(finished.results() / "evaluation/sft/answers.parquet").to_pylist()
    theirs = pq.read_table(tmp_path / "served/answers.parquet").to_pylist()
    columns = ("id", "prompt", "completion", "prediction", "finish_reason", "prompt_tokens", "completion_tokens")
    assert [[row[column] for column in columns] for row in theirs] == [[row[column] for column in columns] for row in own]
