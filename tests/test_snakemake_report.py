"""`snakemake --report` makes a page of a finished run that says what everything is, opens offline and needs no network."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZipFile

import pytest
from conftest import ROOT, Project
from docutils.core import publish_parts
from jinja2 import Environment, StrictUndefined

CAPTIONS = ROOT / "resources/captions"
OFFLINE = ("unshare", "--map-root-user", "--net")

SHOWN = {
    "report/index.html": ("1 Evaluation", "All on one page: the report of the run", "Begin with the verdict"),
    "report/summary.md": ("1 Evaluation", "Figures of the report (Markdown)", "no text of the data"),
    "evaluation/comparison.json": ("1 Evaluation", "Comparison of the systems (JSON)", "corrected p-values"),
    "evaluation/contamination.json": ("1 Evaluation", "Contamination (JSON)", "word for word"),
    "lm_eval/README.md": ("1 Evaluation", "Task for lm-evaluation-harness (README)", "results/demo/lm_eval, stands"),
    "data/data_report.html": ("2 Data", "All on one page: the report on the data", "The data of run demo"),
    "data/data_report.json": ("2 Data", "Numbers of the report on the data (JSON)", "for programs"),
    "data/account.json": ("2 Data", "What became of every row (JSON)", "add up"),
    "sft/training_log.jsonl": ("3 Training", "Fine-tuning (SFT): log (JSON lines)", "validation loss"),
    "reward_audit/audit.json": ("3 Training", "Audit of the reward (JSON)", "more than twenty attacks"),
    "grpo/training_log.jsonl": ("3 Training", "Reinforcement learning (GRPO): log (JSON lines)", "no evidence of quality"),
}
"""Category, label and words of the caption of what a reader finds beside the provenance."""


def test_every_caption_is_used_and_every_one_that_is_used_is_there() -> None:
    rules = "\n".join(file.read_text() for file in [*(ROOT / "rules").glob("*.smk"), ROOT / "Snakefile"])
    assert {f"{name}.rst" for name in re.findall(r"resources/captions/(\w+)\.rst", rules)} == {
        file.name for file in CAPTIONS.iterdir()
    }


@pytest.mark.parametrize("file", sorted(set(CAPTIONS.glob("*.rst")) - {CAPTIONS / "workflow.rst"}), ids=lambda file: file.stem)
def test_captions_are_sound_markup(file: Path) -> None:
    job = SimpleNamespace(
        params=SimpleNamespace(run="a-run", split="test", rewards="chrf concept_f1"),
        output=SimpleNamespace(task="results/a-run/lm_eval/ecg_expert_qa.yaml"),
        rule="a_rule",
    )
    text = Environment(undefined=StrictUndefined, trim_blocks=True).from_string(file.read_text()).render(snakemake=job)
    body = publish_parts(text, writer="html", settings_overrides={"halt_level": 2})["body"]
    assert not re.search(r"[*`{}]", body)


def run_offline(*command: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command in a network of its own, in which there is nothing."""
    if subprocess.run([*OFFLINE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("unshare is not permitted here")
    found = subprocess.run([*OFFLINE, *map(str, command)], cwd=folder, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-3000:]
    return found


@pytest.fixture(scope="module")
def page(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("report") / "report.html"
    run_offline("snakemake", "--report", file, folder=finished.folder)
    return file


def variable(page: Path, name: str) -> Any:
    """What the page's script assigns to a variable."""
    text = page.read_text(encoding="utf-8")
    element = re.search(rf'<script id="{name.replace("_", "-")}">\s*var {name} = ', text)
    return json.JSONDecoder().raw_decode(text, element.end())[0]


def plain(markup: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", "", markup).split())


@pytest.mark.pipeline
def test_everything_is_there_with_category_label_and_caption(page: Path) -> None:
    results, categories = variable(page, "results"), variable(page, "categories")
    by_path = {path: name for name, groups in categories.items() for paths in groups.values() for path in paths}
    shown = {path.removeprefix("results/demo/"): entry for path, entry in results.items()}
    for path, (category, label, words) in SHOWN.items():
        assert by_path[f"results/demo/{path}"] == category
        assert shown[path]["labels"] == {"result": label}
        assert words in plain(shown[path]["caption"])
        assert not re.search(r"[*`{}]|system-message", shown[path]["caption"])
    stages = {path: entry for path, entry in shown.items() if path not in SHOWN}
    assert {by_path[f"results/demo/{path}"] for path in stages} == {"4 Provenance"}
    assert stages["provenance/generate_answers.sft.json"]["labels"] == {"stage": "generate_answers", "system": "sft"}
    assert "the stage train_grpo and came out" in plain(stages["provenance/train_grpo.json"]["caption"])


@pytest.mark.pipeline
def test_every_stage_has_its_provenance_there(page: Path, finished: Project) -> None:
    files = {f"results/demo/provenance/{file.name}" for file in (finished.results() / "provenance").iterdir()}
    assert files
    assert files <= variable(page, "results").keys()


@pytest.mark.pipeline
def test_the_description_leads_to_the_categories(page: Path) -> None:
    description = variable(page, "workflow_desc")
    assert "ECG-GRPO: run demo" in description
    assert "questions of the test split" in plain(description)
    assert "system-message" not in description
    for category in variable(page, "categories"):
        assert f">{category}</a>" in description


class Loaded(HTMLParser):
    """Addresses that a browser would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        names = {"src", "srcset", "poster", "data"} | ({"href"} if tag in ("link", "image", "use") else set())
        self.addresses += [value for name, value in attributes if name in names and value]


@pytest.mark.pipeline
def test_a_browser_would_load_nothing(page: Path) -> None:
    results = variable(page, "results")
    embedded = [entry["data_uri"] for entry in results.values() if entry["mime_type"] == "text/html"]
    assert len(embedded) == 2
    texts = [page.read_text(encoding="utf-8")]
    texts += [base64.b64decode(address.partition("base64,")[2]).decode() for address in embedded]
    for text in texts:
        assert [address for address in Loaded(text).addresses if not address.startswith("data:")] == []
        assert not re.search(r"@import|url\(['\"]?(https?:)?//", "".join(re.findall(r"<style.*?</style>", text, flags=re.S)))


@pytest.mark.pipeline
def test_chromium_shows_the_embedded_report(page: Path, tmp_path: Path) -> None:
    """It leaves a frame empty whose page is a data URI above 2 MB; the description makes blobs of them."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    click = """<script>
      const clicking = setInterval(() => {
        const link = document.querySelector("tbody a");
        if (!link) return app.showCategory("1 Evaluation");
        link.click();
        clearInterval(clicking);
      }, 500);
    </script>"""
    assert len(variable(page, "results")["results/demo/report/index.html"]["data_uri"]) > 2 * 2**20
    clicked = tmp_path / "clicked.html"
    clicked.write_text(page.read_text(encoding="utf-8").replace("</body>\n\n</html>", f"{click}</body></html>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0", "--virtual-time-budget=20000"]
    found = run_offline(
        browser, *options, f"--user-data-dir={tmp_path / 'browser'}", "--dump-dom", clicked.as_uri(), folder=tmp_path
    )
    shown = re.sub(r"<script.*?</script>", "", found.stdout, flags=re.S)
    for category in ("1 Evaluation", "All on one page: the report of the run", "Contamination (JSON)"):
        assert category in shown
    assert re.search(r'<iframe [^>]*src="blob:', shown)
    console = [line for line in found.stderr.splitlines() if "CONSOLE" in line]
    assert not [line for line in console if re.search(r"Uncaught|Failed to load|ERR_|Refused|Not allowed", line)]


@pytest.mark.pipeline
def test_as_an_archive_its_pages_are_files(finished: Project, tmp_path: Path) -> None:
    run_offline("snakemake", "--report", tmp_path / "report.zip", folder=finished.folder)
    with ZipFile(tmp_path / "report.zip") as archive:
        names = archive.namelist()
        assert "report/report.html" in names
        (name,) = (name for name in names if name.endswith("/index.html"))
        assert archive.read(name) == (finished.results() / "report/index.html").read_bytes()


@pytest.mark.pipeline
def test_marks_and_captions_rerun_nothing(finished_copy: Project) -> None:
    """A result that was made without marks is up to date with them, as the other way round."""
    no_marks = "def report(file, **_):\n    return file\n\n\ndef provenance_of("
    finished_copy.edit("rules/common.smk", "def provenance_of(", no_marks)
    for caption in (finished_copy.folder / "resources/captions").iterdir():
        caption.write_text(caption.read_text() + "\nMore.\n")
    assert finished_copy.jobs() == set()
