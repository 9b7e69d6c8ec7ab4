"""`raw_data:` where ECG-Expert-QA is fetched from when there is no local copy."""

from __future__ import annotations

from typing import Literal, Self, get_args
from urllib.parse import quote, urlsplit

from pydantic import Field, field_validator, model_validator

from ecg_grpo.settings.section import Section

RawFileCode = Literal["EBK", "CK", "CD", "PP", "PRTK", "CMD", "MROD", "LTD", "MC", "GRA", "MEE"]
"""The codes of `ecg_grpo.raw_files.RAW_FILES`, in its order."""


class RawDataSettings(Section):
    """Section `raw_data`."""

    url: str = Field(
        "https://raw.githubusercontent.com/Zaozzz/ECG-Expert-QA/{commit}/{file}",
        description="Address of a file. {file} stands for its name, percent-encoded, and {commit} for the commit; "
        "a mirror may do without the latter.",
    )
    commit: str = Field(
        "8eff3b4",
        pattern="^[0-9a-f]{7,40}$",
        description="The commit of the data set's repository. Each file is checked by its git blob hash, so a shortened "
        "commit is harmless.",
    )
    files: list[RawFileCode] = Field(
        list(get_args(RawFileCode)), min_length=1, description="Codes of the files to fetch; the default is all eleven."
    )
    retries: int = Field(
        5, ge=0, description="Further attempts for one file after its transfer broke off or the server was overloaded."
    )
    timeout: float = Field(30.0, gt=0, description="Seconds without a byte after which a transfer counts as broken off.")
    first_delay: float = Field(
        1.0, ge=0, description="Seconds before the second attempt; doubled before each further one, up to 30."
    )

    @field_validator("url")
    @classmethod
    def _can_be_fetched(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must begin with http:// or https:// and name a server")
        if parts.query or parts.fragment:
            raise ValueError("must not have a query: what stands there (a token, say) would be written into logs")
        if "{file}" not in url:
            raise ValueError("must contain {file}, otherwise all files would have one address")
        if set("{}") & set(url.replace("{file}", "").replace("{commit}", "")):
            raise ValueError("knows no placeholders but {commit} and {file}")
        return url

    @field_validator("files")
    @classmethod
    def _each_file_once(cls, files: list[str]) -> list[str]:
        repeated = sorted({code for code in files if files.count(code) > 1})
        if repeated:
            raise ValueError(f"named more than once: {', '.join(repeated)}")
        return files

    @model_validator(mode="after")  # of the whole section, since a field's error would quote the address
    def _nothing_secret(self) -> Self:
        if "@" in urlsplit(self.url).netloc:
            raise ValueError("url must not hold a user name or password: it is written to logs and provenance")
        return self

    def url_of(self, file: str) -> str:
        """The address of a file by its original name."""
        return self.url.replace("{commit}", self.commit).replace("{file}", quote(file, safe=""))
