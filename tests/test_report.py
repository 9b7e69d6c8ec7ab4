"""The page shows what a model wrote, and never runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import Project

pytestmark = pytest.mark.pipeline

ATTACK = "</div><script>alert(1)</script><img src=x onerror=alert(2)> {{ 7 * 7 }} \u202e evil"


def test_model_text_is_escaped_everywhere(finished_copy: Project) -> None:
    results = finished_copy.results()
    for name in ("evaluation/grpo/answers.parquet", "evaluation/base/answers.parquet", "grpo/completions.parquet"):
        table = pq.read_table(results / name)
        for column in ("completion", "prediction", "question", "answer"):
            table = table.set_column(table.column_names.index(column), column, [[ATTACK] * table.num_rows])
        pq.write_table(table, results / name)
    systems = ("base", "sft", "grpo")
    stages = sorted(results.glob("provenance/*.json"))
    subprocess.run(
        [
            *(sys.executable, "workflow_scripts/make_report.py", "--run", "<script>alert(3)</script>"),
            *("--template", "resources/report/template.html.j2", "--style", "resources/report/style.css"),
            *("--comparison", results / "evaluation/comparison.json", "--data-report", results / "data/data_report.json"),
            *("--contamination", results / "evaluation/contamination.json"),
            *("--answers", *(results / f"evaluation/{system}/answers.parquet" for system in systems)),
            *("--scores", *(results / f"evaluation/{system}/scores.parquet" for system in systems)),
            *("--sft-log", results / "sft/training_log.jsonl", "--grpo-log", results / "grpo/training_log.jsonl"),
            *("--completions", results / "grpo/completions.parquet", "--stages", *stages),
            *("--page", Path("page.html"), "--split", "validation"),
        ],
        cwd=finished_copy.folder,
        check=True,
    )
    page = (finished_copy.folder / "page.html").read_text()
    assert "<script>alert" not in page
    assert "<img" not in page[page.index("<body>") :]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "{{ 7 * 7 }}" in page
    assert "Scores on the validation split" in page
    assert "test questions" not in page
