"""A run's model as folders that are fit for the Hugging Face Hub, and the way there."""

from __future__ import annotations

import json
import os
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from ecg_grpo.errors import InputError
from ecg_grpo.files import MANIFEST, new_model_directory, read_json
from ecg_grpo.finished_run import FinishedRun
from ecg_grpo.model_card import SYSTEM_PROMPT_FILE, Part, Statement, is_lora, write_card
from ecg_grpo.tables import system_prompt_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_TOKENIZER = ("tokenizer*", "*.jinja", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt")
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
_MODEL = (*_TOKENIZER, "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "LICENSE*")
_LOGIN = "Log in with `hf auth login`, or set HF_TOKEN to a token that may write."


def parts_of(run: FinishedRun, only: Part | None) -> list[Part]:
    """What can be published of a run.

    Args:
        run: the run.
        only: one part; None: all that there are.

    Raises:
        InputError: the run has no adapters.
    """
    if only == "adapter" and not is_lora(run):
        raise InputError("--only", "this run did not train adapters alone", "Publish the merged model.")
    return [only] if only else ["merged", *(["adapter"] if is_lora(run) else [])]


def prepare(
    run: FinishedRun, part: Part, statement: Statement, template: Path, macros: Path, repository: str | None, folder: Path
) -> Path:
    """Writes the folder of a part: the run's files as hard links, system prompt, card and a manifest of all of them.

    Args:
        run: the run; its files have been compared with their hashes.
        part: `merged` or `adapter`. The adapters stand in folders of their own: GRPO's alone on the base model would be
            another model, and nothing loads it so by mistake.
        statement: what the publisher states.
        template, macros: see `write_card`.
        repository: where it will be on the Hub.
        folder: folder of all parts.

    Returns:
        The part's folder.

    Raises:
        InputError: the model has a file that is none of those that are published.
    """
    target = folder / part
    with new_model_directory(target) as partial:
        if part == "merged":
            _take(run.model, partial, _MODEL, all_of_them=True)
        else:
            _take(run.model, partial, (*_TOKENIZER, "generation_config.json"))
            for training in run.trainings:
                _take(training.checkpoint, partial / training.name, _ADAPTER)
                _name_base(partial / training.name, statement.base_model if training is run.trainings[0] else None)
        prompt = system_prompt_of(run.records_folder / "data" / "train.parquet")
        (partial / SYSTEM_PROMPT_FILE).write_text(prompt, encoding="utf-8")
        write_card(partial / "README.md", template, macros, part, run, statement, repository)
    return target


def listed(folder: Path) -> dict[str, tuple[int, str]]:
    """Size in bytes and SHA-256 of every file of a prepared folder, by its path there."""
    return {name: (entry["bytes"], entry["sha256"]) for name, entry in sorted(read_json(folder / MANIFEST)["files"].items())}


def upload(folders: dict[str, Path], public: bool, message: str) -> dict[str, str]:
    """Uploads folders, each to a repository that is created if there is none.

    The token is that of HF_TOKEN or of `hf auth login`.

    Args:
        folders: prepared folder of each repository (`OWNER/NAME`).
        public: whether anyone may read them.
        message: of the commits.

    Returns:
        Address of each repository's commit.

    Raises:
        InputError: there is no token, the Hub refuses it or is out of reach, a repository is public and must not be, or it
            holds files of something else. Nothing is uploaded before every repository was looked at.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    token = require_token()
    api, repository = HfApi(token=token), next(iter(folders))
    try:
        for repository, folder in folders.items():
            _open_repository(api, repository, folder, public)
        commits = {}
        for repository, folder in folders.items():
            commit = api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
            commits[repository] = str(commit.commit_url)
        return commits
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise InputError(repository, f"the Hub refuses the token in use ({status})", _LOGIN) from None
        raise InputError(repository, f"the Hub answered with status {status}", "Try again later.") from None
    except (httpx.HTTPError, OSError, RuntimeError, json.JSONDecodeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].replace(token, "…")
        raise InputError(repository, f"the Hub cannot be reached ({reason})", "Check the network and try again.") from None
    except ValueError as error:  # the Hub has looked at the card
        reason = " ".join(str(error).split()).replace(token, "…")
        raise InputError(repository, f"the Hub refuses the card ({reason})", "Mend what it names.") from None


def require_token() -> str:
    """The token with which the Hub is asked.

    Raises:
        InputError: there is none.
    """
    from huggingface_hub import get_token

    if not (token := get_token()):
        raise InputError("--upload", "there is no token for the Hub", _LOGIN)
    return token


def _open_repository(api: HfApi, repository: str, folder: Path, public: bool) -> None:
    api.create_repo(repository, private=not public, exist_ok=True)
    info = api.repo_info(repository)
    if public and info.private:
        raise InputError(repository, "this repository is private", "Make it public on the Hub first, or leave --public out.")
    if not public and not info.private:
        raise InputError(repository, "this repository is public", "Say --public if all may read the model, or name another.")
    known = {".gitattributes", MANIFEST, *listed(folder)}
    if others := sorted(file.rfilename for file in info.siblings or [] if file.rfilename not in known):
        raise InputError(
            repository,
            f"the repository has files that this model does not have ({', '.join(others[:3])})",
            "Name another repository, or delete them there.",
        )


def _take(manifest: Path, target: Path, patterns: tuple[str, ...], all_of_them: bool = False) -> None:
    """Links the listed files of a model whose names match, or copies them where a file system has no links."""
    target.mkdir(exist_ok=True)
    for name in read_json(manifest)["files"]:
        source = manifest.parent / name
        if any(fnmatch(name, pattern) for pattern in patterns):
            try:
                os.link(source, target / name)
            except OSError:
                shutil.copyfile(source, target / name)
        elif all_of_them:
            raise InputError(source, "is no file that is published with a model", "Only safetensors, JSON and tokenizers are.")


def _name_base(adapter: Path, base_model: str | None) -> None:
    """Puts the base model's name on the Hub in the place of a path of this machine; the run's own file stays."""
    file = adapter / "adapter_config.json"
    configuration = read_json(file) | {"base_model_name_or_path": base_model}
    file.unlink()
    file.write_text(json.dumps(configuration, indent=2, sort_keys=True) + "\n", encoding="utf-8")
