"""What goes to the Hub, and what does not: against a hub on this machine, which gets every byte by the real client."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from conftest import ROOT, Project
from hub_server import TOKEN, Hub, Repository, hub_server
from huggingface_hub import ModelCard, metadata_load
from markdown import Markdown

from ecg_grpo.errors import InputError
from ecg_grpo.files import MANIFEST, sha256_of
from ecg_grpo.finished_run import read_finished_run
from ecg_grpo.model_card import without_places
from ecg_grpo.publishing import parts_of

pytestmark = pytest.mark.pipeline

HOSTILE = "<b>*not* [a](link)</b> | `x` {{ 7 * 7 }}\n---\nlicense: mit"
STATED = ("--license", "apache-2.0", "--data-license", HOSTILE, "--base-model", "open/tiny")
CLOSED = "http://127.0.0.1:9"

WITHOUT_CONNECTIONS = """
import os, runpy, sys
sys.addaudithook(lambda event, _: os._exit(99) if event in ("socket.connect", "socket.getaddrinfo") else None)
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a program that ends with status 99 at the first attempt to reach anything."""

UPLOAD = """
import sys
from pathlib import Path
from ecg_grpo.errors import InputError
from ecg_grpo.publishing import upload
try:
    print(upload({sys.argv[1]: Path(sys.argv[2])}, sys.argv[3:] == ["--public"], "a message"))
except InputError as error:
    sys.exit(str(error))
"""


def environment(folder: Path, endpoint: str, token: str | None) -> dict[str, str]:
    """Without a login of this machine's; the client's other way of uploading needs more than a test can offer."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    own |= {"HF_HOME": str(folder / "hf"), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    return own | ({"HF_TOKEN": token} if token else {})


def publish(
    project: Project, *options: str, endpoint: str = CLOSED, token: str | None = None, hook: bool = True
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *(["-c", WITHOUT_CONNECTIONS] if hook else []), "workflow_scripts/publish.py", *options],
        cwd=project.folder,
        env=environment(project.folder, endpoint, token),
        capture_output=True,
        text=True,
        check=False,
    )


def refused(run: subprocess.CompletedProcess[str]) -> str:
    assert run.returncode == 1, run.stdout + run.stderr
    assert run.stderr.count("\n") == 1, run.stderr
    return run.stderr


@contextmanager
def edited(*files: Path) -> Iterator[None]:
    """Puts files back as they were."""
    kept = {file: file.read_bytes() for file in files}
    try:
        yield
    finally:
        for file, content in kept.items():
            file.write_bytes(content)


def edit_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.fixture(scope="module")
def project(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The finished run with a hostile title, and with its model prepared without a connection."""
    copy = Project(tmp_path_factory.mktemp("published") / "project")
    shutil.copytree(finished.folder, copy.folder, symlinks=True)
    report = copy.results() / "provenance/make_report.json"
    edit_json(report, settings=json.dumps(json.loads(json.loads(report.read_text())["settings"]) | {"title": HOSTILE}))
    done = publish(copy, *STATED, token=TOKEN)
    assert done.returncode == 0, done.stderr
    (copy.folder / "listed").write_text(done.stdout)
    return copy


@pytest.fixture(scope="module")
def hub_folder(project: Project) -> Path:
    return project.results() / "export/hub"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hub_server() as server:
        yield server


def card(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def tables(text: str, heading: str) -> list[dict[str, list[str]]]:
    """The tables below a heading: first cell → the others; the head is called by its first cell too."""
    part = re.split(r"^#+ ", text.split(f"# {heading}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", part, re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        found.append({row[0]: row[1:] for row in rows if not set("".join(row)) <= set(":- ")})
    return found


def test_the_hook_sees_connections(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import socket\ntry:\n    socket.create_connection(('127.0.0.1', 9))\nexcept Exception:\n    pass\n")
    assert subprocess.run([sys.executable, "-c", WITHOUT_CONNECTIONS, program], check=False).returncode == 99


def test_a_dry_run_writes_and_lists_the_runs_own_files(project: Project, hub_folder: Path) -> None:
    results, listed = project.results(), (project.folder / "listed").read_text()
    assert "Nothing was uploaded" in listed
    assert TOKEN not in listed
    for part in ("merged", "adapter"):
        files = [file for file in (hub_folder / part).rglob("*") if file.is_file() and file.name != MANIFEST]
        for file in files:
            name = str(file.relative_to(hub_folder / part))
            assert re.search(rf"{sha256_of(file)} +{file.stat().st_size:,}  {re.escape(name)}$", listed, re.MULTILINE)
            if file.suffix != ".safetensors":
                text = file.read_text(encoding="utf-8")
                assert str(project.folder) not in text
                assert "/tmp" not in text
        assert f"{part}: {len(files)} files" in listed
    for name in json.loads((results / "grpo_model/manifest.json").read_text())["files"]:
        assert (hub_folder / "merged" / name).read_bytes() == (results / "grpo_model" / name).read_bytes()
    for training, base in (("sft", "open/tiny"), ("grpo", None)):
        weights = f"{training}/adapter_model.safetensors"
        original = results / training / "checkpoint/adapter_model.safetensors"
        assert (hub_folder / "adapter" / weights).read_bytes() == original.read_bytes()
        configuration = json.loads((hub_folder / "adapter" / training / "adapter_config.json").read_text())
        assert configuration["base_model_name_or_path"] == base
    prompt = pq.read_table(results / "data/train.parquet", columns=["prompt"])["prompt"][0].as_py()[0]["content"]
    assert (hub_folder / "merged/system_prompt.txt").read_text() == prompt
    assert "results/" in (results / "sft/checkpoint/adapter_config.json").read_text()  # the run's own file is as it was


@pytest.mark.parametrize(("part", "loaded_by"), [("merged", "transformers"), ("adapter", "peft")])
def test_the_hubs_own_reader_takes_the_front_matter(hub_folder: Path, part: str, loaded_by: str) -> None:
    file = hub_folder / part / "README.md"
    data = ModelCard.load(file).data
    assert (data.license, data.base_model) == STATED[1::4]
    assert data.to_dict()["library_name"] == loaded_by
    assert (data.pipeline_tag, data.language) == ("text-generation", ["en"])
    assert {"ecg", "grpo"} <= set(data.tags)
    assert metadata_load(file) == yaml.safe_load(card(hub_folder / part).split("---")[1])
    assert metadata_load(file)["base_model_relation"] == ("adapter" if part == "adapter" else "finetune")


def test_a_title_and_a_statement_are_shown_as_text(hub_folder: Path) -> None:
    text = card(hub_folder / "merged").split("---\n", 2)[2]
    shown = Markdown(extensions=["tables", "pymdownx.superfences"]).convert(text)
    assert "<b>" not in shown
    assert "<em>not" not in shown
    assert html.unescape(shown).count("<b>*not* [a](link)</b> | `x` {{ 7 * 7 }} --- license: mit") == 2
    disclaimer = shown.index("not a medical device")
    assert disclaimer < shown.index("<h2")


def test_figures_are_those_of_the_comparison(project: Project, hub_folder: Path) -> None:
    text, comparison = card(hub_folder / "merged"), json.loads((project.results() / "evaluation/comparison.json").read_text())
    (scores,) = tables(text, "Evaluation")
    assert scores.pop("Score") == [comparison["names"][system] for system in comparison["order"]]
    assert len(scores) == len(comparison["metrics"])
    for metric in comparison["metrics"]:
        shown = scores[metric["label"] + (" †" if metric["is_reward"] else "")]
        for system, cell in zip(comparison["order"], shown, strict=True):
            entry = comparison["systems"][system][metric["name"]]
            if entry["mean"] is None:
                assert cell == "–"
                continue
            factor, places = {"share": (100, 0)}.get(metric["about"], (1, 1 if metric["name"] == "words" else 3))
            figures = [float(figure) for figure in re.findall(r"-?\d+(?:\.\d+)?", cell)]
            expected = [round(factor * entry[key], places) for key in ("mean", "low", "high")]
            assert figures == pytest.approx(expected, abs=0.51 * 10**-places), (metric["name"], system)
    labels = {entry["label"]: entry["name"] for entry in comparison["metrics"] if entry["claimed"]}
    pairs = 0
    for other in comparison["order"][:-1]:
        (rows,) = tables(text, f"GRPO − {comparison['names'][other]}")
        rows.pop("Metric")
        assert list(rows) == list(labels)
        for label, (interval, p, *counts) in rows.items():
            (entry,) = (
                entry
                for entry in comparison["differences"]
                if (entry["system"], entry["other"], entry["metric"]) == ("grpo", other, labels[label])
            )
            figures = [float(figure) for figure in re.findall(r"[+-]\d+\.\d+", interval)]
            assert figures == pytest.approx([entry["mean"], entry["low"], entry["high"]], abs=0.00051)
            assert float(p) == pytest.approx(entry["p_holm"], abs=0.000051)
            assert [int(count) for count in counts] == [entry["wins"], entry["ties"], entry["losses"]]
            pairs += 1
    assert pairs == 5 * len(labels)
    for entry in comparison["verdicts"]:
        if "grpo" in (entry["system"], entry["other"]):
            assert f"- {entry['text']}." in text


def test_the_audit_and_the_data_are_the_runs(project: Project, hub_folder: Path) -> None:
    results, text = project.results(), card(hub_folder / "merged")
    audit = json.loads((results / "reward_audit/audit.json").read_text())
    (attacks,) = tables(text, "Audit of the reward")
    for row in audit["attacks"]:
        if row["mean"] is not None:
            assert attacks[row["label"]][0].startswith(f"{row['mean']:.2f} (")
            assert attacks[row["label"]][1] == f"{100 * row['beats_reference']['mean']:.0f} %"
    assert f"more than {100 * audit['limits']['paraphrase']:.0f} %" in text
    account = json.loads((results / "data/account.json").read_text())
    files, splits = tables(text, "Training data")
    for file in account["raw_files"]:
        assert files[file["name"]] == [file["task"], str(account["read"][file["task"]]), "no", f"`{file['sha256']}`"]
    assert splits["all"] == [str(sum(account["splits"][name].values())) for name in ("train", "validation", "test")]
    sft, grpo = (json.loads((results / f"provenance/train_{name}.json").read_text()) for name in ("sft", "grpo"))
    for heading, record in (("SFT", sft), ("GRPO", grpo)):
        (facts,) = tables(text, heading)
        assert facts["Seconds"][0].startswith(f"{record['seconds']:.1f} ")
        assert f"torch {record['packages']['torch']}" in facts["Packages"][0]
        assert record["code"] in facts["Code"][0]
        assert facts["Seed"] == [str(json.loads(record["settings"])["seed"])]
    (traced, jobs) = tables(text, "How to trace it")
    assert traced["demo/grpo_model/manifest.json"] == [f"`{sha256_of(results / 'grpo_model/manifest.json')}`"]
    assert {"prepare_data", "train_sft", "train_grpo", "require_sound_reward", "compare_models"} <= jobs.keys()


def test_no_record_and_no_answer_stands_in_a_card(project: Project, hub_folder: Path) -> None:
    text, results = card(hub_folder / "merged") + card(hub_folder / "adapter"), project.results()
    records = [row for split in ("train", "validation", "test") for row in _rows(results / f"data/{split}.parquet")]
    answers = [row for file in results.glob("evaluation/*/answers.parquet") for row in _rows(file)]
    texts = {row.get(key) for row in [*records, *answers] for key in ("question", "answer", "prediction")}
    long_enough = {value for value in texts if value and len(value) > 20}
    assert len(long_enough) > 1000
    assert [value for value in long_enough if value in text] == []


def _rows(file: Path) -> list[dict[str, Any]]:
    return pq.read_table(file).to_pylist()


def test_what_the_cards_say_about_loading_works(project: Project, hub_folder: Path) -> None:
    """The adapters upon the base model give the merged model's logits; GRPO's alone would not."""
    base = project.results().resolve() / "base_model"
    codes = {part: re.findall(r"```python\n(.*?)```", card(hub_folder / part), re.DOTALL) for part in ("merged", "adapter")}
    program = ["import os, torch", "found = {}"]
    for part, (code,) in codes.items():
        own = code.replace('"open/tiny"', repr(str(base)))
        program += [f"os.chdir({str((hub_folder / part).resolve())!r})", own]
        program += [f"found[{part!r}] = model(**inputs).logits.detach()"]
    program += [
        "base = AutoModelForCausalLM.from_pretrained(" + repr(str(base)) + ")",
        'alone = PeftModel.from_pretrained(base, folder, subfolder="grpo")(**inputs).logits.detach()',
        "print(*((found['merged'] - other).abs().max().item() for other in (found['adapter'], alone)))",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(program)],
        env=environment(project.folder, CLOSED, None),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    difference, wrong = (float(figure) for figure in done.stdout.splitlines()[-1].split())
    assert difference < 1e-3 < wrong


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--license", None, "--license: is not given"),
        ("--license", "My own", "--license: 'My own' is no identifier"),
        ("--data-license", None, "--data-license: is not given"),
        ("--data-license", "  ", "--data-license: is not given"),
        ("--base-model", None, "--base-model: is not given"),
        ("--base-model", "tiny", "--base-model: is no name of a repository"),
        ("--upload", "a b/c", "--upload: is no name of a repository"),
        ("--upload", "me/model", "--upload: there is no token"),
        ("--run", "nothing", "results/nothing: there is no such run"),
    ],
)
def test_what_is_not_stated_is_refused(project: Project, option: str, value: str | None, expected: str) -> None:
    given = dict(zip(STATED[::2], STATED[1::2], strict=True)) | {option: value}
    options = [text for name, text in given.items() if text is not None for text in (name, text)]
    assert expected in refused(publish(project, *options))


def test_public_without_an_upload_is_refused(project: Project) -> None:
    assert "--public: says nothing without --upload" in refused(publish(project, *STATED, "--public"))


def test_a_reward_that_did_not_pass_is_refused(project: Project) -> None:
    audit, passed = (project.results() / f"reward_audit/{name}.json" for name in ("audit", "passed"))
    with edited(audit, passed):
        edit_json(audit, failures=["Echo earns too much"])
        assert "the audit of the reward did not pass (Echo earns too much)" in refused(publish(project, *STATED))
    with edited(passed):
        passed.unlink()
        assert "the audit of the reward did not pass (there is no" in refused(publish(project, *STATED))


@pytest.mark.parametrize(
    "name", ["evaluation/comparison.json", "grpo_model/model.safetensors", "sft/checkpoint/adapter_model.safetensors"]
)
def test_a_file_that_is_not_as_recorded_is_refused(project: Project, name: str) -> None:
    file = project.results() / name
    with edited(file):
        content = file.read_bytes()
        file.unlink()  # the prepared folder is linked to it
        file.write_bytes(content + b"\n" if file.suffix == ".json" else content[:-1] + bytes([content[-1] ^ 1]))
        assert f"is not as its provenance says: results/demo/{name}: was changed since" in refused(publish(project, *STATED))


def test_an_unfinished_run_is_refused(project: Project) -> None:
    comparison = project.results() / "evaluation/comparison.json"
    with edited(comparison):
        comparison.unlink()
        assert "comparison.json: is missing: the run is not finished" in refused(publish(project, *STATED))


def test_another_base_model_than_the_runs_is_refused(project: Project) -> None:
    record = project.results() / "provenance/fetch_base_model.json"
    with edited(record):
        settings = json.loads(json.loads(record.read_text())["settings"])
        hub = {"repository": "open/other", "revision": "0" * 40}
        edit_json(record, settings=json.dumps(settings | {"source": "hub", "hub": hub}))
        assert "--base-model: the run began with open/other" in refused(publish(project, *STATED))


def test_the_base_models_own_weights_are_refused(project: Project) -> None:
    results = project.results()
    base, model, manifest = (results / name for name in ("base_model", "grpo_model", "grpo_model/manifest.json"))
    records = [results / f"provenance/{name}.json" for name in ("merge_grpo_checkpoint", "generate_answers.grpo")]
    weights = model / "model.safetensors"
    with edited(manifest, weights, *records):
        before = sha256_of(manifest)
        weights.unlink()
        shutil.copyfile(base / "model.safetensors", weights)
        content = json.loads(manifest.read_text())
        content["files"]["model.safetensors"] = {"bytes": weights.stat().st_size, "sha256": sha256_of(weights)}
        manifest.write_text(json.dumps(content))
        for record in records:
            record.write_text(record.read_text().replace(before, sha256_of(manifest)))
        assert "grpo_model: has the weights of results/demo/base_model" in refused(publish(project, *STATED))


def test_an_upload_sends_what_was_prepared(project: Project, hub: Hub) -> None:
    done = publish(project, *STATED, "--upload", "me/model", endpoint=hub.address, token=TOKEN, hook=False)
    assert done.returncode == 0, done.stderr
    assert set(hub.repositories) == {"me/model", "me/model-adapter"}
    for name, repository in hub.repositories.items():
        folder = project.results() / "export/hub" / ("adapter" if name.endswith("-adapter") else "merged")
        expected = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        assert repository.private
        assert repository.files == expected
        assert repository.commits == ["GRPO model of run demo"]
        assert f'snapshot_download("{name}")' in repository.files["README.md"].decode()
        assert f"{hub.address}/{name}/commit/" in done.stdout
    assert hub.large
    assert TOKEN not in done.stdout + done.stderr
    for file in (*project.results().rglob("*.json"), *project.results().rglob("*.md"), *project.results().rglob("*.log")):
        assert TOKEN not in file.read_text(encoding="utf-8")


def upload(
    project: Project, folder: Path, endpoint: str, *options: str, token: str = TOKEN
) -> subprocess.CompletedProcess[str]:
    own = environment(project.folder, endpoint, token) | {"PYTHONPATH": str(ROOT / "workflow_scripts")}
    command = [sys.executable, "-c", UPLOAD, "me/model", str(folder), *options]
    return subprocess.run(command, env=own, capture_output=True, text=True, check=False)


def test_a_refused_token_and_a_hub_out_of_reach_are_one_line_each(project: Project, hub_folder: Path, hub: Hub) -> None:
    wrong = "hf_wrongwrongwrong"
    message = refused(upload(project, hub_folder / "merged", hub.address, token=wrong))
    assert message.startswith("me/model: the Hub refuses the token in use (401)")
    assert wrong not in message
    assert hub.repositories == {}
    message = refused(upload(project, hub_folder / "merged", CLOSED))
    assert message.startswith("me/model: the Hub cannot be reached")
    assert TOKEN not in message


def test_a_public_repository_wants_to_be_named_so(project: Project, hub_folder: Path, hub: Hub) -> None:
    hub.repositories["me/model"] = Repository(private=False)
    assert "me/model: this repository is public" in refused(upload(project, hub_folder / "adapter", hub.address))
    assert hub.repositories["me/model"].files == {}
    done = upload(project, hub_folder / "adapter", hub.address, "--public")
    assert done.returncode == 0, done.stderr
    assert "sft/adapter_model.safetensors" in hub.repositories["me/model"].files
    again = upload(project, hub_folder / "adapter", hub.address, "--public")
    assert again.returncode == 0, again.stderr


def test_a_private_repository_is_not_said_to_be_public(project: Project, hub_folder: Path, hub: Hub) -> None:
    hub.repositories["me/model"] = Repository(private=True)
    message = refused(upload(project, hub_folder / "adapter", hub.address, "--public"))
    assert "me/model: this repository is private" in message
    assert hub.repositories["me/model"].files == {}


def test_what_the_hub_has_against_a_card_is_said(project: Project, hub_folder: Path, hub: Hub) -> None:
    hub.objections = ['"license" must be one of [apache-2.0, mit]']
    message = refused(upload(project, hub_folder / "adapter", hub.address))
    assert message.startswith("me/model: the Hub refuses the card (")
    assert hub.objections[0] in message
    assert hub.repositories["me/model"].files == {}


def test_a_repository_with_another_model_is_left_alone(project: Project, hub_folder: Path, hub: Hub) -> None:
    hub.repositories["me/model"] = Repository(private=True, files={".gitattributes": b"", "model-00001.safetensors": b""})
    message = refused(upload(project, hub_folder / "merged", hub.address))
    assert "files that this model does not have (model-00001.safetensors)" in message
    assert len(hub.repositories["me/model"].files) == 2


def test_without_adapters_there_is_the_merged_model_alone(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = project.results() / "sft/checkpoint/adapter_config.json"
    monkeypatch.chdir(project.folder)
    with edited(configuration):
        configuration.unlink()
        run = read_finished_run(Path("results/demo"))
        assert parts_of(run, None) == ["merged"]
        with pytest.raises(InputError, match="did not train adapters alone"):
            parts_of(run, "adapter")
    assert parts_of(run, None) == ["merged", "adapter"]


def test_the_published_files_have_no_license_whatever_is_stated(project: Project, hub_folder: Path) -> None:
    account, record = project.results() / "data/account.json", project.results() / "provenance/prepare_data.json"
    assert "published it without a license" not in card(hub_folder / "merged")
    with edited(account, record):
        before, content = sha256_of(account), json.loads(account.read_text())
        content["raw_files"][0]["as_published"] = True
        account.write_text(json.dumps(content))
        record.write_text(record.read_text().replace(before, sha256_of(account)))
        done = publish(project, *STATED[:2], "--data-license", "cc0-1.0", *STATED[4:], "--only", "merged")
    assert done.returncode == 0, done.stderr
    text = card(hub_folder / "merged")
    assert "published it without a license" in text
    assert "states about the license of its training data: cc0" in text
    assert "hub/adapter" not in done.stdout


def test_settings_are_shown_without_places() -> None:
    settings = {"a": "/home/me", "b": {"c": ["http://10.0.0.1:8000/v1", "~/x"]}, "d": "all-linear", "e": 1, "f": None}
    hidden = "(not shown)"
    assert without_places(settings) == {"a": hidden, "b": {"c": [hidden, hidden]}, "d": "all-linear", "e": 1, "f": None}
