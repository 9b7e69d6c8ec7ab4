"""A chat in a terminal: commands, streamed answers, models side by side."""

from __future__ import annotations

import signal
import threading
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from types import FrameType

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory, InMemoryHistory
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ecg_grpo.chat_models import ChatModel, ChatSampling, LoadedModels
from ecg_grpo.conversation import DISCLAIMER, Answering, Conversation, Piece, Turn
from ecg_grpo.errors import InputError, check_range
from ecg_grpo.prompts import Message
from ecg_grpo.trained_models import TrainedModel


class TerminalChat:
    """The chat's state, and a method for each command."""

    def __init__(
        self,
        choice: str,
        models: LoadedModels,
        side_by_side: Sequence[str],
        system_prompt: str | None,
        sampling: ChatSampling,
        folder: Path,
        console: Console,
    ) -> None:
        """
        Args:
            choice: the model that answers first.
            models: has them by the words that `--model` takes.
            side_by_side: the models that /compare asks.
            system_prompt: of every conversation; None: the one that the model was trained with.
            sampling: how answers are drawn.
            folder: where /save writes without a name.
            console: the terminal.

        Raises:
            InputError: the model cannot be had.
        """
        self._models = models
        self._side_by_side, self._folder, self._console = side_by_side, folder, console
        self._sampling, self._system_prompt = sampling, system_prompt
        self._unfolded = False
        self._commands: dict[str, tuple[Callable[[str], None], str, str]] = {
            "/model": (self._choose_model, "[base|sft|grpo|DIR|URL]", "says or changes which model answers; the turns stay"),
            "/compare": (self._compare, "[QUESTION]", f"{', '.join(side_by_side)} answer one question side by side"),
            "/reasoning": (self._show_reasoning, "[show|fold]", "shows the last reasoning; always, or folded to a line"),
            "/reset": (self._reset, "", "forgets the turns; a changed system prompt too"),
            "/system": (self._change_system_prompt, "[TEXT]", "says or changes the system prompt"),
            "/seed": (self._change_seed, "[N]", "says or changes the seed of drawn answers"),
            "/temperature": (self._change_temperature, "[T]", "0 takes the likeliest token each time"),
            "/tokens": (self._change_length, "[N]", "longest answer"),
            "/save": (self._save, "[FILE]", "writes FILE.md and FILE.jsonl"),
            "/help": (self._help, "", "this list"),
            "/quit": (self._quit, "", "ends, as Ctrl-D does"),
        }
        self._model, self._writer = self._model_named(choice)
        self._conversation = Conversation(system_prompt or self._model.system_prompt)

    def run(self, history: Path | None) -> None:
        """Asks for questions until the reader ends.

        Args:
            history: file for the questions that were typed, to be fetched back with the arrow keys; None keeps none.
        """
        session: PromptSession[str] = PromptSession(
            history=InMemoryHistory() if history is None else _Questions(history),
            completer=WordCompleter([*self._commands], sentence=True),
            complete_while_typing=False,
        )
        self._print(f"{self._model.name} answers. {DISCLAIMER}", "yellow")
        self._print("Ctrl-C stops an answer, Ctrl-D ends, /help lists the commands.", "dim")
        while True:
            try:
                self.handle(session.prompt("\n> ").strip())
            except KeyboardInterrupt:
                self._print("Ctrl-D ends.", "dim")
            except (EOFError, _Quit):
                return

    def handle(self, line: str) -> None:
        """Answers a question or carries out a command; what goes wrong is said in one line.

        Raises:
            _Quit: the reader ends.
        """
        try:
            if not line.startswith("/"):
                if line:
                    self._ask(line)
                return
            name, _, rest = line.partition(" ")
            if name not in self._commands:
                raise InputError(name, "is no command", "/help lists them.")
            self._commands[name][0](rest.strip())
        except InputError as error:
            self._print(str(error), "red")
        except OSError as error:
            self._print(f"{error.filename or 'file system'}: {error.strerror or error}", "red")

    def _ask(self, question: str) -> None:
        with _stopped_by_ctrl_c(self._conversation.ask(question, self._model, self._writer, self._sampling)) as pieces:
            _Reader(self._console, self._unfolded).show(pieces)
        self._say_how_it_went(self._conversation.turns[-1])

    def _say_how_it_went(self, turn: Turn) -> None:
        notes = {"length": f"cut off at {turn.sampling.max_new_tokens} tokens (/tokens)", "stopped": "stopped", "stop": ""}
        first = "" if turn.seconds_to_first_piece is None else f"first word after {turn.seconds_to_first_piece:.1f} s"
        self._print("  ".join(filter(None, [first, f"{turn.seconds:.1f} s in all", notes[turn.finish_reason]])), "dim")

    def _model_named(self, choice: str) -> tuple[TrainedModel, ChatModel]:
        if choice in self._models:
            return self._models[choice]
        with self._console.status(f"Loading {choice}"):
            return self._models[choice]

    def _choose_model(self, choice: str) -> None:
        if choice:
            prompt = self._model.system_prompt
            self._model, self._writer = self._model_named(choice)
            if self._conversation.system_prompt == prompt != self._model.system_prompt:
                self._conversation.system_prompt = self._model.system_prompt
                self._print("It was trained with another system prompt, which is used from here on (/system).", "dim")
        self._print(f"{self._model.name} answers ({self._model.identity[:12]})", "dim")

    def _compare(self, question: str) -> None:
        if not question and not self._conversation.turns:
            raise InputError("/compare", "there is no question yet", "Write one behind it.")
        messages = self._conversation.messages(question) if question else self._conversation.turns[-1].prompt
        found = [self._model_named(choice) for choice in self._side_by_side]
        answers = [Answering(self._as_trained(messages, model), model, writer, self._sampling) for model, writer in found]
        shown = ["" for _ in answers]

        def table() -> Table:
            drawn = Table(expand=True, show_lines=False, border_style="dim")
            for model, _ in found:
                drawn.add_column(model.name, ratio=1, overflow="fold")
            drawn.add_row(*(Text(text) for text in shown))
            return drawn

        self._print(messages[-1]["content"], "bold")
        with Live(table(), console=self._console, auto_refresh=False, vertical_overflow="visible") as live:
            for place, answer in enumerate(answers):
                with _stopped_by_ctrl_c(iter(answer)) as pieces:
                    for piece in pieces:
                        if piece.part == "answer":
                            shown[place] += printable(piece.text)
                            live.update(table(), refresh=True)
                turn = answer.turn()
                shown[place] = printable(turn.prediction) or "(no answer)"
                live.update(table(), refresh=True)
                if turn.finish_reason == "stopped":
                    break
        self._print("The conversation stays as it was.", "dim")

    def _as_trained(self, messages: list[Message], model: TrainedModel) -> list[Message]:
        """The messages under the system prompt that a model was trained with, unless the reader has given another one."""
        if self._conversation.system_prompt != self._model.system_prompt:
            return messages
        return [Message(role="system", content=model.system_prompt), *messages[1:]]

    def _show_reasoning(self, how: str) -> None:
        if how in ("show", "fold"):
            self._unfolded = how == "show"
        elif how:
            raise InputError("/reasoning", f"{how!r} is neither show nor fold", "Say one of them, or nothing.")
        last = self._conversation.turns[-1].reasoning if self._conversation.turns else None
        self._print(printable(last) if last else "No reasoning yet.", "dim italic" if last else "dim")

    def _reset(self, _: str) -> None:
        self._conversation = Conversation(self._system_prompt or self._model.system_prompt)
        self._print("A new conversation.", "dim")

    def _change_system_prompt(self, text: str) -> None:
        if text:
            self._conversation.system_prompt = text
            self._print("Models were trained with another system prompt; /reset brings it back.", "dim")
        self._print(self._conversation.system_prompt)

    def _change_seed(self, value: str) -> None:
        if value:
            self._sampling = replace(self._sampling, seed=_number("/seed", value, int, 0, 2**31 - 1))
        note = "" if self._sampling.temperature else " (without effect at temperature 0; see /temperature)"
        self._print(f"seed {self._sampling.seed}{note}", "dim")

    def _change_temperature(self, value: str) -> None:
        if value:
            self._sampling = replace(self._sampling, temperature=_number("/temperature", value, float, 0, 5))
        self._print(f"temperature {self._sampling.temperature:g}", "dim")

    def _change_length(self, value: str) -> None:
        if value:
            self._sampling = replace(self._sampling, max_new_tokens=_number("/tokens", value, int, 1, 100_000))
        self._print(f"at most {self._sampling.max_new_tokens} tokens", "dim")

    def _save(self, name: str) -> None:
        if not self._conversation.turns:
            raise InputError("/save", "there is nothing to save yet", "Ask something first.")
        try:
            file = Path(name.strip("'\"")).expanduser() if name else self._folder / f"{datetime.now():%Y-%m-%d-%H%M%S}"
        except RuntimeError:
            raise InputError("/save", f"{name}: there is no such home folder", "Name another file.") from None
        if file.name in ("", ".."):
            raise InputError("/save", f"{name} names no file", "Name one.")
        if file.suffix in (".md", ".jsonl"):
            file = file.with_suffix("")
        for written in self._conversation.save(file):
            self._console.out(f"wrote {written}", style="dim", highlight=False)  # a path is not broken into lines

    def _help(self, _: str) -> None:
        table = Table.grid(padding=(0, 2))
        for name, (_method, arguments, meaning) in self._commands.items():
            table.add_row(Text(f"{name} {arguments}"), Text(meaning, style="dim"))
        self._console.print(table)

    def _quit(self, _: str) -> None:
        raise _Quit

    def _print(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style=style))


class _Questions(FileHistory):
    """What was typed, also by earlier chats; where the file cannot be written, this chat's own at least."""

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            super().store_string(string)


class _Quit(Exception):
    """The reader ends."""


class _Reader:
    """Shows an answer as it arrives, word by word, the reasoning dimmed or folded."""

    def __init__(self, console: Console, unfolded: bool) -> None:
        self._console, self._unfolded = console, unfolded
        self._column, self._word, self._style = 0, "", ""

    def show(self, pieces: Iterator[Piece]) -> None:
        """Prints the pieces as they come; a folded reasoning is a line that counts its words until the answer begins."""
        part, reasoning = None, ""
        try:
            for piece in pieces:
                if part not in (None, piece.part):
                    self._end_line()
                part = piece.part
                self._style = "dim italic" if part == "reasoning" else ""
                if part == "reasoning" and not self._unfolded:
                    reasoning += piece.text
                    folded = Text(f"▸ reasoning, {len(reasoning.split())} words (/reasoning)", style="dim")
                    self._console.print(folded, end="\r")
                    self._column = 1
                else:
                    self._write(printable(piece.text))
        finally:
            self._end_line()

    def _write(self, text: str) -> None:
        for character in text:
            if character.isspace():
                self._end_word()
                if character == "\n":
                    self._new_line()
                else:
                    self._word = " " if self._column else ""
            else:
                self._word += character

    def _end_word(self) -> None:
        """Prints the word that is now whole, on a new line if it does not fit on this one."""
        word = self._word
        if self._column + len(word) > self._console.width:
            self._new_line()
            word = word.lstrip()
        self._console.out(word, style=self._style, end="", highlight=False)
        self._console.file.flush()
        self._column += len(word)
        self._word = ""

    def _new_line(self) -> None:
        self._console.out("", highlight=False)
        self._column = 0

    def _end_line(self) -> None:
        self._end_word()
        if self._column:
            self._new_line()


@contextmanager
def _stopped_by_ctrl_c(pieces: Iterator[Piece]) -> Iterator[Iterator[Piece]]:
    """Within the block, Ctrl-C ends the answer and nothing else, also where a library lets the exception go unheard."""
    pressed = threading.Event()

    def press(number: int, frame: FrameType | None) -> None:
        pressed.set()
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, press)
    try:
        yield takewhile(lambda _: not pressed.is_set(), pieces)
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGINT, before)
        pieces.close()


def printable(text: str) -> str:
    """A model's text without what moves a terminal's cursor, changes its colours or its title; every space is a plain one."""
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if character.isprintable() or character == "\n":
        return character
    return " " if character == "\t" or unicodedata.category(character) == "Zs" else "�"


def _number(command: str, value: str, kind: type, least: float, most: float) -> float:
    try:
        number = kind(value)
    except ValueError:
        raise InputError(command, f"{value!r} is no number", "Say one.") from None
    check_range(command, number, least, most)
    return number
