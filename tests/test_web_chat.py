"""The chat page, driven by a headless Chromium as a person would."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pyarrow.parquet as pq
import pytest
from chat_server import ChatServer, running
from conftest import Project
from playwright.sync_api import Page, expect, sync_playwright

from ecg_grpo.conversation import DISCLAIMER
from ecg_grpo.preference_pairs import PREFERENCE_PAIRS

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(300)]

HOSTILE = (
    "<img src='http://127.0.0.1:9/spy.png' onerror='document.title=\"owned\"'><script>document.title='owned'</script> **QRS** "
    "${document.title='owned'} \\u \\geq {{value}}"
)
SECONDS = 60_000


@pytest.fixture(scope="module")
def project(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a finished run, to write into; a training record holds what would run if a page let it."""
    folder = tmp_path_factory.mktemp("chat") / "project"
    shutil.copytree(finished.folder, folder, symlinks=True)
    file = folder / "results/demo/data/train.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[0] |= {"question": "Which hostile wave is this?", "context": "", "answer": HOSTILE}
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), file)
    return Project(folder)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def serving(project: Project, *arguments: str, **environment: str) -> Iterator[tuple[str, str]]:
    """The page's address, and the line that the program printed."""
    port = free_port()
    command = ["python", "workflow_scripts/chat_web.py", "--port", str(port), "--threads", "1", "--max-new-tokens", "8"]
    server = subprocess.Popen(
        [*command, *arguments],
        cwd=project.folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        line = server.stdout.readline()
        assert line.startswith("http://"), line + server.stdout.read()
        yield f"http://127.0.0.1:{port}", line.strip()
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def model_server() -> Iterator[ChatServer]:
    with running(ChatServer(answer=lambda _: f"<think>A thought.</think><answer>{HOSTILE}</answer>")) as server:
        yield server


@pytest.fixture(scope="module")
def address(project: Project, model_server: ChatServer) -> Iterator[str]:
    with serving(project, "--model", model_server.url) as (address, _):
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=quiet)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: object, address: str) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(address)
    expect(page.get_by_text("Who answers")).to_be_visible(timeout=SECONDS)
    yield page
    page.close()


def choose(page: Page, *names: str) -> None:
    for box in page.get_by_role("checkbox").all():
        name = box.locator("xpath=..").inner_text().strip()
        box.set_checked(name in names)


def ask(page: Page, question: str, last: str) -> None:
    page.get_by_label("Question").last.fill(question)
    page.get_by_role("button", name="Ask").click()
    # Until the question is shown, the line may still tell of the answer before.
    expect(page.locator(".user").filter(has_text=question).first).to_be_visible(timeout=SECONDS)
    expect(page.locator("#status")).to_contain_text(re.compile(rf"{re.escape(last)}: [0-9.]+ s"), timeout=SECONDS)


def begin_to_ask(page: Page, question: str, server: ChatServer, pause: float) -> None:
    """Asks, and goes on as soon as there is a piece of the answer, whose pieces come with a pause between them."""
    server.pause = pause
    page.get_by_label("Question").last.fill(question)
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#answers-0")).to_contain_text("<img", timeout=SECONDS)


def test_models_answer_side_by_side_and_votes_become_pairs(page: Page, project: Project, model_server: ChatServer) -> None:
    expect(page.locator("#notice")).to_contain_text(DISCLAIMER)
    choose(page, model_server.url, "base", "sft", "grpo")
    ask(page, "What is a P wave?", "grpo")
    for place in range(4):
        column = page.locator(f"#answers-{place}")
        expect(column).to_contain_text("What is a P wave?")
        assert column.locator(".bot").count() >= 1
    assert {url.split("/")[2] for url in page.asked if url.startswith("http")} == {page.url.split("/")[2]}, "asked elsewhere"
    folder = project.results() / "chat"
    page.locator("#answers-0").get_by_label("Like", exact=True).click()
    expect(page.locator("#status")).to_contain_text("0 pairs so far", timeout=SECONDS)
    page.locator("#answers-3").get_by_label("Dislike", exact=True).click()
    expect(page.locator("#status")).to_contain_text("1 pairs so far", timeout=SECONDS)
    table = pq.read_table(folder / "preference_pairs.parquet")
    assert table.schema.equals(PREFERENCE_PAIRS)
    votes = [json.loads(line) for line in (folder / "votes.jsonl").read_text().splitlines()]
    assert [(vote["model"], vote["liked"]) for vote in votes] == [(model_server.url, True), ("grpo", False)]
    (pair,) = table.to_pylist()
    assert (pair["chosen"], pair["rejected"]) == (votes[0]["prediction"], votes[1]["prediction"])
    assert pair["prompt"][-1]["content"] == "What is a P wave?"


def test_a_second_question_sees_the_first_one_until_a_new_conversation(page: Page, model_server: ChatServer) -> None:
    choose(page, model_server.url)
    model_server.requests.clear()
    ask(page, "First?", model_server.url)
    ask(page, "Second?", model_server.url)
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator("#status")).to_contain_text("A new conversation")
    ask(page, "Third?", model_server.url)
    questions = [
        [message["content"] for message in payload["messages"] if message["role"] == "user"]
        for _, payload in model_server.requests
    ]
    assert questions == [["First?"], ["First?", "Second?"], ["Third?"]]


def test_a_new_conversation_ends_the_answer_that_is_being_written(page: Page, model_server: ChatServer) -> None:
    choose(page, model_server.url)
    begin_to_ask(page, "Slowly?", model_server, pause=0.3)
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator("#status")).to_contain_text("A new conversation", timeout=SECONDS)
    model_server.pause = 0.0
    ask(page, "Quickly?", model_server.url)
    expect(page.locator("#answers-0")).not_to_contain_text("Slowly?")
    assert [message["content"] for message in model_server.requests[-1][1]["messages"][1:]] == ["Quickly?"]


def test_texts_are_shown_and_never_run(page: Page, model_server: ChatServer) -> None:
    choose(page, model_server.url)
    ask(page, f"Which hostile wave is this? {HOSTILE}", model_server.url)
    column = page.locator("#answers-0")
    expect(column).to_contain_text("onerror=")
    expect(column).to_contain_text("**QRS**")
    for place in (column, page.locator("#nearest")):
        expect(place).to_contain_text("${document.title='owned'} \\u \\geq {{value}}")
    expect(page.locator("#nearest")).to_contain_text("<script>document.title")
    assert page.locator("#answers-0 img[src*=spy], #nearest img, #nearest script").count() == 0
    assert page.title() != "owned"
    assert not [url for url in page.asked if "spy" in url]


def test_the_nearest_training_record_stands_beside_the_answer(page: Page, project: Project, model_server: ChatServer) -> None:
    record = pq.read_table(project.results() / "data/train.parquet").to_pylist()[5]
    choose(page, model_server.url)
    ask(page, record["question"], model_server.url)
    expect(page.locator("#nearest")).to_contain_text(record["id"])
    expect(page.locator("#nearest")).to_contain_text(" ".join(record["answer"].split())[:60])


def test_stop_ends_an_answer_and_the_next_question_is_answered(page: Page, model_server: ChatServer) -> None:
    choose(page, model_server.url)
    begin_to_ask(page, "Slowly?", model_server, pause=0.3)
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#answers-0")).to_contain_text("[…stopped]", timeout=SECONDS)
    expect(page.locator("#status")).to_contain_text("stopped")
    expect(page.locator("#answers-0")).not_to_contain_text("geq")
    model_server.pause = 0.0
    ask(page, "Quickly?", model_server.url)


def test_a_question_that_is_asked_meanwhile_waits_for_its_turn(page: Page, model_server: ChatServer) -> None:
    choose(page, model_server.url)
    model_server.most_at_once = 0
    begin_to_ask(page, "First?", model_server, pause=0.02)
    page.get_by_label("Question").last.fill("Second?")
    page.get_by_label("Question").last.press("Shift+Enter")
    expect(page.locator(".user").filter(has_text="Second?")).to_be_visible(timeout=SECONDS)
    model_server.pause = 0.0
    expect(page.locator("#status")).to_contain_text(re.compile(r": [0-9.]+ s"), timeout=SECONDS)
    assert model_server.most_at_once == 1
    last = [message["content"] for message in model_server.requests[-1][1]["messages"] if message["role"] == "user"]
    assert last == ["First?", "Second?"]


def test_what_a_server_says_is_shown_and_never_run(page: Page, model_server: ChatServer) -> None:
    choose(page, model_server.url)
    model_server.behaviours = ["status 400 - ${document.title='owned'}<img src=x onerror=document.title='owned'>"]
    page.get_by_label("Question").last.fill("Anything?")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#status")).to_contain_text("${document.title", timeout=SECONDS)
    assert page.title() != "owned"


def test_a_server_that_is_gone_is_said_in_a_line(browser: object, project: Project) -> None:
    with running(ChatServer()) as gone, serving(project, "--model", gone.url) as (address, _):
        page = browser.new_page()
        page.goto(address)
        expect(page.get_by_text("Who answers")).to_be_visible(timeout=SECONDS)
        choose(page, gone.url)
        gone.behaviours = ["drop"]
        page.get_by_label("Question").last.fill("Anybody?")
        page.get_by_role("button", name="Ask").click()
        expect(page.locator("#status")).to_contain_text("no reply", timeout=SECONDS)
        page.close()


def test_others_need_a_token(project: Project) -> None:
    with serving(project, "--host", "0.0.0.0") as (address, line):
        user, token = re.fullmatch(r"http://0\.0\.0\.0:\d+  user (\w+), token (\S+)", line).groups()
        assert httpx.get(f"{address}/config").status_code == 401
        assert httpx.post(f"{address}/login", data={"username": user, "password": "guess"}).status_code == 400
        with httpx.Client() as visitor:
            assert visitor.post(f"{address}/login", data={"username": user, "password": token}).status_code == 200
            assert visitor.get(f"{address}/config").status_code == 200


def run_for_a_line(project: Project, arguments: list[str], **environment: str) -> str:
    command = ["python", "workflow_scripts/chat_web.py", *arguments]
    run = subprocess.run(
        command, cwd=project.folder, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    return run.stderr.strip().splitlines()[-1]


def test_what_cannot_work_is_one_line(project: Project) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert "cannot be listened on" in run_for_a_line(project, ["--port", port])
    assert "there is no such run" in run_for_a_line(project, ["--run", "nobody"])
    assert "is no model" in run_for_a_line(project, ["--model", "/nowhere"])
    assert "no token of 8 characters" in run_for_a_line(project, ["--token-env", "TOKEN"], TOKEN="short")
