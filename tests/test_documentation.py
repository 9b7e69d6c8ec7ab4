"""The documentation as a site: it builds, says all there is, asks for nothing elsewhere, and its commands exist."""

from __future__ import annotations

import html
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from conftest import ROOT, copy_project
from test_report import visit

from ecg_grpo import tables

TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SCHEMA = json.loads((ROOT / "config" / "config.schema.json").read_text())


def build(project: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["mkdocs", "build", "--strict", "--site-dir", site],
        cwd=project,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("documentation") / "site"
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


LOADING = {("link", "href"), ("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("object", "data")}
"""Tags and attributes by which a page has a browser fetch something."""


class Page(HTMLParser):
    """What a page says below each anchor, up to the next one, and what it makes a browser ask for."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.below: dict[str, str] = {}
        self.loaded: list[str] = []
        self._anchor = ""
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.loaded += [value for name, value in attrs if (tag, name) in LOADING and value]
        if re.fullmatch("h[1-6]", tag) and given.get("id"):
            self._anchor = str(given["id"])

    def handle_data(self, data: str) -> None:
        self.below[self._anchor] = self.below.get(self._anchor, "") + data


def documented_keys(schema: dict[str, Any] = SCHEMA, prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key of the configuration's schema by its dotted name; what a user names is called NAME."""
    if reference := schema.get("$ref"):
        yield from documented_keys(SCHEMA["$defs"][reference.rpartition("/")[2]], prefix)
    for name, value in schema.get("properties", {}).items():
        yield f"{prefix}{name}", value
        yield from documented_keys(value, f"{prefix}{name}.")
    for part in (*schema.get("anyOf", []), *schema.get("oneOf", [])):
        yield from documented_keys(part, prefix)
    named = [schema.get("additionalProperties"), *schema.get("patternProperties", {}).values()]
    for value in filter(lambda value: isinstance(value, dict), named):
        yield from documented_keys(value, f"{prefix}NAME.")


def words(text: str) -> str:
    """A text without markup and spaces."""
    return re.sub(r"[\s`]+", "", text)


def test_what_is_broken_is_refused(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project").folder
    broken = "[page](nowhere.md), [heading](data.md#nowhere), [key](reference/configuration.md#no.key)"
    with (project / "docs" / "index.md").open("a") as page:
        page.write(f"\n{broken}\n")
    (project / "docs" / "forgotten.md").write_text("# Forgotten\n")
    done = build(project, tmp_path / "site")
    assert done.returncode != 0
    for missing in ("nowhere.md", "#nowhere", "#no.key", "forgotten.md"):
        assert re.search(rf"^WARNING .*{re.escape(missing)}|^  - {re.escape(missing)}", done.stderr, re.MULTILINE), missing


def test_every_page_has_its_place(site: Path) -> None:
    sections = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    placed = [page for section in sections for pages in section.values() for page in _pages(pages)]
    assert len(placed) == len(set(placed))
    assert {str(file.relative_to(ROOT / "docs")) for file in TEXTS[1:]} == {
        page for page in placed if not page.startswith("reference/")
    }
    assert all((site / page).with_suffix(".html").is_file() for page in placed)


def _pages(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for part in entry if isinstance(entry, list) else entry.values():
            yield from _pages(part)


def test_every_key_is_described(site: Path) -> None:
    page = Page(site / "reference" / "configuration.html")
    found = dict(documented_keys())
    assert {"run", "grpo.guards.max_kl", "resources.NAME.gpu", "evaluation.models.NAME.base_url"} <= found.keys()
    for key, schema in found.items():
        below = page.below[key]
        assert below.startswith(key)
        assert words(schema.get("description", "")) in words(below), key
        assert "Type: " in below, key
        default = schema.get("default")
        if "default" in schema and not isinstance(default, dict):
            assert f"default: {json.dumps(default, ensure_ascii=False)}" in " ".join(below.split()), key
    assert "demo: 2e-05" in page.below["grpo.learning_rate"]


def test_every_rule_is_described(site: Path) -> None:
    page = Page(site / "reference" / "rules.html")
    files = [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")]
    rules = {
        rule for file in files for rule in re.findall(r"^ *(?:use rule \w+ as|rule) (\w+)", file.read_text(), re.MULTILINE)
    }
    assert {"train_grpo", "merge_sft_adapter", "compare_runs", "report"} <= rules
    assert {f"rule-{rule}" for rule in rules} == {anchor for anchor in page.below if anchor.startswith("rule-")}
    merge = page.below["rule-merge_sft_adapter"]
    assert "Merging the SFT adapter into the base model" in merge
    assert "merge_adapter.py, in envs/train.yaml" in merge
    for path in ("base_model/manifest.json", "sft/checkpoint/manifest.json", "sft_model/manifest.json"):
        assert f"results/<run>/{path}" in merge
    assert "results/<run>/evaluation/{model}/answers.parquet" in page.below["rule-generate_answers"]
    grpo = page.below["rule-train_grpo"]
    assert "results/<run>/grpo/prompts.parquet" in grpo  # one way or the other, as the configuration says
    assert "results/<run>/data/train.parquet" in grpo


def test_every_table_is_described(site: Path) -> None:
    page = Page(site / "reference" / "formats.html")
    schemas = {name: value for name, value in vars(tables).items() if isinstance(value, pa.Schema)}
    assert len(schemas) >= 10
    for name, schema in schemas.items():
        below = page.below[name.lower()]
        assert [column for column in schema.names if column not in below.split()] == [], name
    assert "rouge_l" in page.below["scores_schema"]
    assert "copied_grpo" in page.below["contamination_schema"]
    assert "stop or length" in " ".join(page.below["answers"].split())
    assert "generate_answers" in page.below["answers"]


def test_every_program_is_described(site: Path) -> None:
    page = Page(site / "reference" / "programs.html")
    assert {file.stem for file in (ROOT / "workflow_scripts").glob("*.py")} <= page.below.keys()
    assert "Rules: merge_grpo_checkpoint, merge_sft_adapter." in page.below["merge_adapter"]


def test_pages_name_nothing_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for file in pages:
        loaded = Page(file).loaded
        assert any("stylesheets/main" in address for address in loaded)
        assert [address for address in loaded if re.match(r"(\w+:)?//", address)] == [], file
    for file in site.rglob("*.css"):
        assert not re.search(r"""@import|url\(["']?(https?:)?//""", file.read_text(encoding="utf-8")), file


@pytest.mark.parametrize(
    ("page", "shown"),
    [
        ("reference/configuration.html", "Completions sampled for each prompt"),
        ("index.html?q=num_generations", "<mark>num_generations</mark>"),  # the search, without a server
    ],
)
def test_chromium_shows_pages_and_asks_for_nothing(site: Path, tmp_path: Path, page: str, shown: str) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    start = tmp_path / "start.html"
    start.write_text(f"<script>location.replace({json.dumps(f'{site.as_uri()}/{page}')})</script>")
    document, console, asked = visit(browser, start, tmp_path)
    assert shown in document
    assert console == []
    assert asked == []


def commands() -> Iterator[tuple[str, str]]:
    """The commands of README and documentation, in blocks and in lines, with the file's name."""
    for file in TEXTS:
        text = file.read_text(encoding="utf-8").replace("\\\n", " ")
        for code in (*re.findall(r"`([^`\n]+)`", text), *text.splitlines()):
            yield file.name, code.strip()


def test_commands_name_programs_and_options_that_exist() -> None:
    shown: dict[Path, set[str]] = {}
    for name, command in commands():
        if re.match(r"python (workflow_scripts|benchmarks)/", command):
            program, *arguments = shlex.split(command, comments=True)[1:]
            assert (ROOT / program).is_file(), f"{name}: {command}"
            shown.setdefault(ROOT / program, set()).update(
                argument.partition("=")[0] for argument in arguments if argument.startswith("-")
            )
    assert ROOT / "workflow_scripts" / "explain.py" in shown
    for program, options in shown.items():
        if options - {"--help"}:
            done = subprocess.run([sys.executable, program, "--help"], capture_output=True, text=True, check=True)
            unknown = options - set(re.findall(r"(?<![\w-])--?[\w-]+", done.stdout))
            assert not unknown, program


def test_commands_name_targets_that_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {(name, command.split()[1]) for name, command in commands() if re.match(r"make [a-z-]+( |$)", command)}
    assert ("README.md", "demo") in named
    assert {(name, target) for name, target in named if target not in targets} == set()


def test_examples_name_keys_that_exist() -> None:
    keys = {key for key, _ in documented_keys()}
    shown = 0
    for file in TEXTS:
        for block in re.findall(r"```yaml\n(.*?)```", file.read_text(encoding="utf-8"), re.DOTALL):
            example = yaml.safe_load(block.replace("…", '"…"'))
            shown += 1
            for path in _paths(example):
                names = [".".join(path[:end]) for end in range(1, len(path) + 1)]
                known = [re.sub(r"^(evaluation\.models|resources)\.\w+", r"\1.NAME", name) for name in names]
                free = ("sweep.", "reward.weights.", "reward.gates.", "evaluation.models.NAME", "resources.NAME")
                wrong = [name for name in known if name not in keys and not name.startswith(free)]
                assert wrong == [], f"{file.name}: {block}"
    assert shown > 10


def _paths(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for name, below in value.items():
            yield from _paths(below, (*path, str({True: "on"}.get(name, name))))
    elif path:
        yield path


def test_markup_in_texts_is_shown_as_text() -> None:
    """What a docstring or a description may hold comes out of Markdown as it went in."""
    from markdown import Markdown

    from ecg_grpo.reference_pages.markup import code, prose, table

    hostile = "<b>*not* [a](link)</b> a_b_c {#id} | 1 < 2 & `a|b <i>` ~~x~~ \\ ![x](y) &amp; # _y_ 1^2"
    markdown = Markdown(extensions=["attr_list", "tables", "pymdownx.superfences"])
    for text in (prose(hostile), table(("a", "b"), [(prose(hostile), code("x|`y`|<z>"))])):
        shown = markdown.reset().convert(text)
        assert set(re.findall(r"<(\w+)", shown)) <= {"p", "code", "table", "thead", "tbody", "tr", "th", "td"}
        assert hostile.replace("`", "") in html.unescape(re.sub(r"<[^>]+>", "", shown))
    assert "x|`y`|<z>" in html.unescape(re.sub(r"<[^>]+>", "", shown))
