"""What every section of the configuration has in common."""

from __future__ import annotations

import json
import re
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from ecg_grpo.errors import InputError

Precision = Literal["auto", "float32", "bfloat16"]
"""`auto`: bfloat16 where the device computes it natively, else float32 (decided when the stage runs)."""


_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


class Section(BaseModel):
    """A section of the configuration: unknown keys are refused, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    def unread(self) -> set[str]:
        """Names of the keys that nothing reads while the others are as they are."""
        return set()

    def in_use(self) -> dict[str, Any]:
        """What is read of this section, as JSON has it; the rest must not make a stage run again."""
        dumped = self.model_dump(mode="json", exclude=self.unread())
        sections = {name: getattr(self, name) for name in dumped}
        return dumped | {name: value.in_use() for name, value in sections.items() if isinstance(value, Section)}

    def as_json(self) -> str:
        """What is read of this section as JSON, fit for a rule's parameter."""
        return rule_parameter(self.in_use())

    @classmethod
    def from_json(cls, text: str, flag: str = "--settings") -> Self:
        """The section that `as_json` wrote; what it left out has its default.

        Args:
            text: the section.
            flag: where it was given, for the message.

        Raises:
            InputError: the text is not JSON or does not fit the model; names each key.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise InputError(f"{flag} ({cls.__name__})", explain(error), "Give the section as JSON.") from None


def rule_parameter(value: Any) -> str:
    """A value as JSON that Snakemake takes as it is.

    Keys are sorted, because Snakemake compares parameters as text: their order in a YAML file must not make a stage run again.
    Braces in strings are escapes, because it takes `{word}` for a wildcard.
    """
    text = json.dumps(value, sort_keys=True)
    return _STRING.sub(lambda string: string[0].replace("{", r"\u007b").replace("}", r"\u007d"), text)


def explain(error: ValidationError) -> str:
    """Every problem of a validation error as `key: problem`, one after the other on a line."""
    problems = []
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"]) or "configuration"
        if problem["type"] == "extra_forbidden":
            text = "no such key"
        else:
            text = problem["msg"].removeprefix("Value error, ")
            if problem["type"] != "missing" and not isinstance(problem["input"], dict):
                text += f" (it is {problem['input']!r})"
        problems.append(f"{key}: {text}")
    return "; ".join(problems)
