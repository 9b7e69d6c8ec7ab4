"""A served model: where it answers and how it is asked."""

from __future__ import annotations

import json
import re
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from ecg_grpo.settings.section import Section


class EndpointSettings(Section):
    """A model behind an OpenAI-compatible server (`POST {base_url}/chat/completions`)."""

    base_url: str = Field(description="Address up to `/v1`, e.g. `http://127.0.0.1:8000/v1`; redirects are not followed.")
    model: str = Field(min_length=1, description="The model's name, as the server knows it.")
    api_key_env: str | None = Field(
        None,
        description="Name of the environment variable that holds the key, which itself is never here; null: none is sent.",
    )
    max_parallel: int = Field(8, ge=1, le=256, description="Requests under way at once.")
    timeout: float = Field(120.0, gt=0, description="Seconds without a byte after which a request counts as failed.")
    retries: int = Field(
        5, ge=0, description="Further attempts for one request after 408, 429, 5xx, a time-out or a broken connection."
    )

    @field_validator("base_url")
    @classmethod
    def _without_a_slash_at_the_end(cls, base_url: str) -> str:
        return base_url.rstrip("/")

    @model_validator(mode="after")  # of the whole section, since a field's error would quote what may be a secret
    def _can_be_asked_and_holds_no_secret(self) -> Self:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("base_url must begin with http:// or https:// and name a server")
        try:
            _ = parts.port
        except ValueError:
            raise ValueError("base_url has a port that is no number from 0 to 65535") from None
        if "@" in parts.netloc or "?" in self.base_url or "#" in self.base_url:
            raise ValueError("base_url must hold no password and no query: it is written to logs and provenance")
        if self.api_key_env is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.api_key_env):
            raise ValueError("api_key_env must be the name of an environment variable, not the key itself")
        return self

    def identity(self) -> str:
        """What decides which model answers, as JSON: how it is asked (key, time-out, attempts, how many at once) does not."""
        return json.dumps({"base_url": self.base_url, "model": self.model}, sort_keys=True)
