"""What Ollama is told of a model: a Modelfile (https://docs.ollama.com/modelfile), with the chat template as Ollama's own.

Ollama does not run the Jinja template inside a GGUF file. Without a TEMPLATE it takes one of its own that looks like it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ecg_grpo.errors import InputError
from ecg_grpo.prompts import Message

_CONTENTS = ["\ue000system\ue000", "\ue000one\ue000", "\ue000answer\ue000", "\ue000two\ue000"]
_ROLES = ["system", "user", "assistant", "user"]


class Turns(NamedTuple):
    """A chat template as texts around the messages' contents.

    Attributes:
        begin: before the system message, which is the first one.
        user: before each question.
        assistant: between a question and its answer.
    """

    begin: str
    user: str
    assistant: str

    def render(self, prompt: Sequence[Message]) -> str:
        """A prompt, system message first and user last, as `go_template` renders it."""
        around = {"system": (self.begin, ""), "user": (self.user, self.assistant), "assistant": ("", "")}
        return "".join(before + message["content"] + after for message in prompt for before, after in [around[message["role"]]])

    def go_template(self) -> str:
        """The same for Ollama, whose templates are those of Go's text/template."""
        return (
            f'{{{{ range .Messages }}}}{{{{ if eq .Role "system" }}}}{self.begin}{{{{ .Content }}}}'
            f'{{{{ else if eq .Role "user" }}}}{self.user}{{{{ .Content }}}}{self.assistant}'
            "{{ else }}{{ .Content }}{{ end }}{{ end }}"
        )


def turns_of(render: Callable[[Sequence[Message]], str], prompts: Sequence[Sequence[Message]]) -> Turns | None:
    """The turns of a chat template, if it puts fixed texts around contents and nothing else.

    Args:
        render: the chat template with the generation prompt, without a start token that the engine adds.
        prompts: messages on which both must give the same text.

    Returns:
        None where the two differ, or where Ollama's syntax could not hold the texts.
    """
    conversation = [Message(role=role, content=content) for role, content in zip(_ROLES, _CONTENTS, strict=True)]
    rest, texts = render(conversation), []
    for content in _CONTENTS:
        text, found, rest = rest.partition(content)
        if not found:
            return None
        texts.append(text)
    turns = Turns(*texts[:3])
    if any(mark in text for text in turns for mark in ("{{", "}}", '"""')):
        return None
    same = all(turns.render(prompt) == render(prompt) for prompt in [conversation, conversation[:2], *prompts])
    return turns if same else None


def check_quotable(system_prompt: str) -> str:
    """The system prompt, if a Modelfile can hold it.

    Raises:
        InputError: it has three quotation marks in a row.
    """
    if '"""' in system_prompt:
        raise InputError("system prompt", 'it has """, which ends a text of a Modelfile', "Train with another system prompt.")
    return system_prompt
