"""The page shows what a model wrote, never runs it, and loads nothing: seen in a real browser."""

from __future__ import annotations

import base64
import csv
import gzip
import html
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, Project

from ecg_grpo.answer_browser import answer_digest
from ecg_grpo.reward_accuracy import accuracy_report, wilson_interval
from ecg_grpo.settings.reward_model import NegativeKind

pytestmark = pytest.mark.pipeline

RUN = "<script>document.title='run'</script>"
ATTACK = f"</script></div>{RUN}<img src=x onerror=\"document.title='run'\"> {{{{ 7 * 7 }}}} \u202e evil \ufffd\x07"
LONG = "sinus rhythm <b>and</b> a very long answer " * 2500
MODELS = ("base", "sft", "grpo")


def make_page(
    project: Project,
    page: Path,
    *scripts: Path,
    run: str = "demo",
    settings: dict | None = None,
    options: Sequence[object] = (),
) -> str:
    results = project.results()
    subprocess.run(
        [
            *(sys.executable, "workflow_scripts/make_report.py", "--run", run, "--page", page, "--split", "validation"),
            *("--summary", page.with_suffix(".md"), "--summary-template", "resources/report/summary.md.j2"),
            *("--summary-macros", "resources/report/figures.md.j2"),
            *("--template", "resources/report/template.html.j2", "--style", "resources/report/style.css"),
            *("--scripts", "resources/report/charts.js", "resources/report/browser.js", *scripts),
            *("--comparison", results / "evaluation/comparison.json", "--data-report", results / "data/data_report.json"),
            *("--contamination", results / "evaluation/contamination.json"),
            *("--ecg-bench", results / "evaluation/ecg_bench.json", "--audit", results / "reward_audit/audit.json"),
            *("--answers", *(results / f"evaluation/{system}/answers.parquet" for system in MODELS)),
            *("--scores", *(results / f"evaluation/{system}/scores.parquet" for system in MODELS)),
            *("--sft-log", results / "sft/training_log.jsonl", "--grpo-log", results / "grpo/training_log.jsonl"),
            *("--completions", results / "grpo/completions.parquet"),
            *("--stages", *sorted(results.glob("provenance/*.json")), "--settings", json.dumps(settings or {})),
            *options,
        ],
        cwd=project.folder,
        check=True,
    )
    return page.read_text()


def replace(file: Path, texts: Sequence[str], *columns: str) -> None:
    """Puts texts in the places of a table's columns, the first one first."""
    table = pq.read_table(file)
    values = [texts[row % len(texts)] for row in range(table.num_rows)]
    for column in columns:
        table = table.set_column(table.column_names.index(column), column, pa.array(values))
    pq.write_table(table, file)


@pytest.fixture
def browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("no Chromium on this machine")


def visit(browser: str, page: Path, folder: Path) -> tuple[str, list[str], list[str]]:
    """Opens a page without a window.

    Returns:
        The document when all is drawn, lines of the console, and every address that the page asked for.
    """
    net_log = folder / "net.json"
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
    done = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={folder / 'profile'}"),
            *("--enable-logging=stderr", f"--log-net-log={net_log}", "--virtual-time-budget=20000", "--dump-dom"),
            page.as_uri(),
        ],
        capture_output=True,
        check=True,
        timeout=120,
    )
    console = [line for line in done.stderr.decode(errors="replace").splitlines() if "CONSOLE" in line]
    parameters = [event.get("params", {}) for event in json.loads(net_log.read_text())["events"]]
    # What the browser asks for by itself has no initiator.
    asked = [one["url"] for one in parameters if "url" in one and one.get("initiator", "not an origin") != "not an origin"]
    return done.stdout.decode(), console, asked


def probe(browser: str, project: Project, folder: Path, word: str, run: str = "demo") -> tuple[dict[str, Any], str]:
    """What the probe saw on the page of a project; nothing may have been said, run or asked for."""
    script = folder / "probe.js"
    script.write_text((ROOT / "tests/report_probe.js").read_text().replace("WORD", json.dumps(word)))
    make_page(project, folder / "page.html", script, run=run)
    document, console, asked = visit(browser, folder / "page.html", folder)
    assert console == []
    assert asked == []
    return json.loads(html.unescape(re.search(r'<pre id="found-by-probe">(.*?)</pre>', document, re.S).group(1))), document


@pytest.mark.timeout(300)
def test_a_reader_finds_sorts_filters_and_rates(finished: Project, browser: str, tmp_path: Path) -> None:
    answers = {model: pq.read_table(finished.results() / f"evaluation/{model}/answers.parquet").to_pylist() for model in MODELS}
    scores = {model: pq.read_table(finished.results() / f"evaluation/{model}/scores.parquet").to_pylist() for model in MODELS}
    records = answers["grpo"]
    words = records[0]["question"].split()[:4]
    found, _ = probe(browser, finished, tmp_path, " ".join(words))
    number = f"{len(records)} of {len(records)} records"
    assert found["status"] == number
    assert found["charts"]
    assert found["first"] == [row["id"] for row in records[:10]]
    assert found["second"] == [row["id"] for row in records[10:20]]
    gains = [
        round(one["rouge_l"], 3) - round(other["rouge_l"], 3) for one, other in zip(scores["grpo"], scores["sft"], strict=True)
    ]
    assert found["gains"] == pytest.approx(sorted(gains, reverse=True)[:10], abs=6e-4)
    assert found["losses"] == pytest.approx(sorted(gains)[:10], abs=6e-4)
    assert found["wins"][0].startswith(f"{sum(gain > 0 for gain in gains)} of ")
    assert all(gain > 0 for gain in found["wins"][1])
    task, status = found["task"]
    assert status.startswith(f"{sum(row['task'] == task for row in records)} of ")

    def texts(place: int) -> str:
        row = records[place]
        shown = [
            row["id"],
            row["context"],
            row["question"],
            row["answer"],
            *(answers[model][place]["prediction"] for model in MODELS),
        ]
        return "\n".join(shown).lower()

    hits = sum(all(word.lower() in texts(place) for word in words) for place in range(len(records)))
    assert 0 < hits < len(records), "or the search shows nothing"
    assert found["search"].startswith(f"{hits} of ")
    assert found["focused"] == records[0]["id"]
    assert found["searching"] == "find"
    assert found["named"] == ["Reference", "base model", "SFT", "GRPO"]
    assert found["blind"] == ["Reference", "Answer A", "Answer B", "Answer C"]
    assert found["blindScores"] == 0
    assert found["pressed"] == "true"
    (rating,) = csv.DictReader(found["csv"].splitlines())
    assert rating == {"id": records[0]["id"], "system": "grpo", "answer": rating["answer"], "rating": "0.5"}
    assert rating["answer"] == answer_digest(answers["grpo"][0]["completion"])
    firsts = Counter(found["firsts"])
    assert sum(firsts.values()) == len(records)
    assert all(firsts[model] >= len(records) // 6 for model in MODELS), "blind, each model stands first about as often"
    assert found["linked"] == [records[3]["id"]] * 2
    assert found["marks"] > 0
    assert found["completions"] > 0


def test_the_reward_model_stands_beside_the_rule_of_length(finished: Project, tmp_path: Path) -> None:
    assert 'id="reward-model"' not in make_page(finished, tmp_path / "page.html")
    lengths = {"fragment": ("a b", "a"), "repetition": ("a", "a b")}  # (right, wrong)
    pairs = [
        {"kind": kind, "cluster": f"{group}", "task": "EBK", "paraphrased": "none"}
        | dict(zip(("chosen", "rejected"), lengths.get(kind, ("a", "b")), strict=True))
        for kind in get_args(NegativeKind)
        for group in range(20)
    ]
    right = {"fragment": 20, "repetition": 20, "polarity": 4, "sft_sample": 10}
    scores = [1.0 if int(pair["cluster"]) < right.get(pair["kind"], 15) else -1.0 for pair in pairs]
    accuracy = tmp_path / "accuracy.json"
    accuracy.write_text(json.dumps(accuracy_report(pairs, scores, [0.0] * len(pairs))))
    page = make_page(finished, tmp_path / "page.html", options=("--reward-accuracy", accuracy))
    section = re.search(r'<h3 id="reward-model">(.*?)</section>', page, re.S).group(1)
    assert "the reward does without it" in section
    low, high = (round(100 * end) for end in wilson_interval(0.2, 20))
    assert f"| polarity | 20 % ({low} to {high}) | 50 % | 20 | 20 |" in (tmp_path / "page.md").read_text()
    rows = [
        [" ".join(re.sub(r"<[^>]*>", " ", cell).split()) for cell in re.findall(r"<td.*?</td>", row, re.S)]
        for row in re.findall(r"<tr>(?!<th)(.*?)</tr>", section, re.S)
    ]
    assert rows[0][0] == "All"
    assert rows[0][2:] == ["50 %", "260", "20"]
    found = {row[0]: row[1:] for row in rows[1:]}
    assert len(found) == len(get_args(NegativeKind))
    assert found["Polarity the other side taken"] == [f"20 % {low} to {high} %", "50 %", "20", "20"]
    assert [found[name][1] for name in ("Fragment the first few words", "Repetition the first third, again and again")] == [
        *("100 %", "0 %")
    ]
    marked = dict(re.findall(r"<tr><td class=\"text\">(\w+).*?<td(?: class=\"(\w+)\")?>", section))
    assert marked["Polarity"] == "down"
    assert marked["Numbers"] == "up"
    assert not any(marked[name] for name in ("Fragment", "Repetition", "SFT")), "no better than a rule of length, or a coin"


@pytest.mark.timeout(300)
def test_hostile_text_is_shown_and_never_run(finished_copy: Project, browser: str, tmp_path: Path) -> None:
    results = finished_copy.results()
    for model in MODELS:
        replace(
            results / f"evaluation/{model}/answers.parquet",
            [ATTACK, LONG, "", "\u202eabc\u2066 \u200b \U000e0041\u3164", "<think>" * 50],
            *("completion", "prediction", "reasoning", "question", "answer", "context"),
        )
    replace(results / "grpo/completions.parquet", [ATTACK, LONG], "completion", "prediction", "question", "answer")
    found, document = probe(browser, finished_copy, tmp_path, "evil", run=RUN)
    assert "run" not in found["title"].split("·")[0]
    assert found["hidden"] > 4, "characters that turn or hide text are named"
    assert found["folded"], "100 kB are folded"
    assert int(found["search"].split()[0]) > 0
    assert "onerror" not in re.sub(r"&lt;.*?&gt;", "", re.sub(r"<script.*?</script>", "", document, flags=re.S))
    for name in ("U+202E", "U+200B", "U+E0041", "U+3164"):
        assert name in document
    assert "{{ 7 * 7 }}" in document
    assert "Scores on the validation split" in document
    assert "test questions" not in document


@pytest.mark.timeout(200)
def test_the_policy_runs_no_script_but_the_pages_own(finished: Project, browser: str, tmp_path: Path) -> None:
    """Were a text not escaped, the policy would still stop it; without the policy it shows that the test would see it."""
    page = make_page(finished, tmp_path / "page.html")
    attacked = page.replace("</header>", f"</header>{RUN}<img src='http://127.0.0.1:9/x.png'>")
    (tmp_path / "page.html").write_text(attacked)
    document, console, asked = visit(browser, tmp_path / "page.html", tmp_path)
    assert "<title>run</title>" not in document
    assert any("Content Security Policy" in line for line in console)
    assert asked == []
    (tmp_path / "page.html").write_text(re.sub(r'content="default-src[^"]*"', 'content=""', attacked))
    document, _, asked = visit(browser, tmp_path / "page.html", tmp_path)
    assert "<title>run</title>" in document
    assert "http://127.0.0.1:9/x.png" in asked


def test_nothing_of_a_text_reaches_the_document_as_it_is(finished_copy: Project, tmp_path: Path) -> None:
    for model in MODELS:
        replace(
            finished_copy.results() / f"evaluation/{model}/answers.parquet", [ATTACK], "completion", "prediction", "question"
        )
    page = make_page(finished_copy, tmp_path / "page.html")
    assert "document.title" not in page
    assert "document.title" not in (tmp_path / "page.md").read_text()
    data = re.search(r'id="answers-data">([A-Za-z0-9+/=]+)</script>', page).group(1)
    columns = json.loads(gzip.decompress(base64.b64decode(data)))
    assert set(columns["answers"]["grpo"]["prediction"]) == {ATTACK}


def test_a_page_that_would_be_too_large_shows_fewer_records(finished_copy: Project, tmp_path: Path) -> None:
    import random

    chance = random.Random(0)
    texts = ["".join(chance.choices("abcdefghijklmnop ", k=30_000)) for _ in range(60)]
    for model in MODELS:
        replace(finished_copy.results() / f"evaluation/{model}/answers.parquet", texts, "completion", "prediction")
    page = make_page(finished_copy, tmp_path / "page.html", settings={"max_megabytes": 6})
    assert (tmp_path / "page.html").stat().st_size <= 6 * 2**20
    shown, total = map(int, re.search(r"(\d+) of (\d+) validation questions, taken evenly", page).groups())
    assert 0 < shown < total


def test_ten_thousand_records_fit_into_15_megabytes() -> None:
    """Words of the sample in random order and random scores, which compress worse than real ones."""
    import random

    from plotly.offline import get_plotlyjs

    from ecg_grpo.answer_browser import answer_columns
    from ecg_grpo.metrics import METRICS
    from ecg_grpo.pages import packed

    words = [word for file in sorted((ROOT / "resources/sample").glob("*.json")) for word in file.read_text().split()]
    chance = random.Random(0)

    def text(mean: int) -> str:
        return " ".join(chance.choices(words, k=max(3, int(chance.gauss(mean, mean / 3)))))

    common = {
        "task": "EBK",
        "kind": "explanation",
        "context": "",
        "reasoning": "",
        "is_well_formed": True,
        "finish_reason": "stop",
    }
    shared = [{"id": f"EBK-{number:05d}", "question": text(15), "answer": text(50), **common} for number in range(10_000)]
    answers = {model: [row | {"prediction": (said := text(50)), "completion": said} for row in shared] for model in MODELS}
    scores = {model: [common | {name: chance.random() for name in METRICS} for _ in shared] for model in MODELS}
    size = len(packed(answer_columns(answers, scores, list(METRICS)))) + len(get_plotlyjs())
    assert size < 14.5 * 2**20, f"{size / 2**20:.1f} MiB"


def test_a_digest_tells_answers_apart_and_survives_a_lone_surrogate() -> None:
    from ecg_grpo.pages import packed

    assert answer_digest("a") != answer_digest("b")
    assert not answer_digest("a")[0].isdigit(), "or a spreadsheet makes a number of some"
    assert answer_digest("\ud800") == answer_digest("\ud800")
    assert json.loads(gzip.decompress(base64.b64decode(packed(["\ud800"])))) == ["\ud800"]
