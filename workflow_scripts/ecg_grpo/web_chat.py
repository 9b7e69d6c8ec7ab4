"""A chat as a local page: one or several models answer a question, readers vote, the nearest training record stands beside."""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import gradio as gr

from ecg_grpo.chat_models import ChatSampling, LoadedModels
from ecg_grpo.conversation import DISCLAIMER, Conversation, Turn
from ecg_grpo.errors import InputError
from ecg_grpo.question_index import QuestionIndex
from ecg_grpo.votes import Votes

_SECONDS_BETWEEN_UPDATES = 0.1
_NOTES = {"length": "cut off at the longest answer", "stopped": "stopped"}
_STYLE = """
.gradio-container { max-width: 1400px; margin: 0 auto; }
#notice { border-left: 4px solid #b45309; padding: 0.5em 1em; background: color-mix(in srgb, #f59e0b 12%, transparent); }
.quoted { white-space: pre-wrap; overflow-wrap: anywhere; }
footer { display: none !important; }
"""


class Session:
    """What one browser tab has.

    Attributes:
        conversations: one with each model that it asked.
        is_stopping: its reader wants the answer that is being written to end.
        answering: held while answers are being written.
    """

    def __init__(self) -> None:
        self.conversations: dict[str, Conversation] = {}
        self.is_stopping = False
        self.answering = threading.Lock()

    def __deepcopy__(self, _: object) -> Session:
        """What Gradio gives a new tab."""
        return Session()


class WebChat:
    """The page and what happens on it."""

    def __init__(
        self,
        title: str,
        names: Sequence[str],
        models: LoadedModels,
        train: Sequence[Mapping[str, Any]],
        votes: Votes,
        max_new_tokens: int,
    ) -> None:
        """
        Args:
            title: of the page.
            names: models that can be asked, the one that is chosen at first at the end.
            models: has them under these names.
            train: training records with `id`, `context`, `question`, `answer`; may be empty.
            votes: where votes go.
            max_new_tokens: longest answer at first.
        """
        self._title, self._names = title, list(names)
        self._models = models
        self._train, self._index = train, QuestionIndex(train) if train else None
        self._votes, self._max_new_tokens = votes, max_new_tokens

    def page(self) -> gr.Blocks:
        """The page, to be launched with `LAUNCH`."""
        with gr.Blocks(title=self._title, analytics_enabled=False) as page:
            gr.Markdown(f"# {self._title}")
            gr.Markdown(f"**{DISCLAIMER}**", elem_id="notice")
            session = gr.State(Session())
            with gr.Row():
                chosen = gr.CheckboxGroup(
                    self._names, value=self._names[-1:], label="Who answers", info="Several answer side by side.", scale=2
                )
                temperature = gr.Slider(0, 2, 0, step=0.1, label="Temperature", info="0: the likeliest words, as evaluated")
                bounds = min(8, self._max_new_tokens), max(1024, self._max_new_tokens)
                length = gr.Slider(*bounds, self._max_new_tokens, step=1, label="Longest answer (tokens)")
                seed = gr.Number(0, precision=0, minimum=0, maximum=2**31 - 1, label="Seed", info="Only above temperature 0")
            with gr.Row():
                columns = [
                    gr.Chatbot(
                        label=name,
                        elem_id=f"answers-{place}",
                        visible=name in self._names[-1:],
                        height=460,
                        min_width=260,  # or they stand below one another
                        render_markdown=False,
                        sanitize_html=True,
                        allow_tags=False,
                        buttons=["copy"],
                        placeholder="Ask a question about ECGs or cardiology.",
                    )
                    for place, name in enumerate(self._names)
                ]
            question = gr.Textbox(label="Question", lines=2, max_lines=12, placeholder="Shift-Enter or the button asks")
            with gr.Row():
                ask = gr.Button("Ask", variant="primary")
                stop = gr.Button("Stop")
                reset = gr.Button("New conversation")
            status = gr.HTML("", elem_id="status", js_on_load=None)
            with gr.Accordion("Nearest training record: what the models may have learned by heart", open=True):
                nearest = gr.HTML("<p>Nothing asked yet.</p>", elem_id="nearest", js_on_load=None)
            gr.Markdown(
                "A thumb on an answer keeps a vote. A liked and a disliked answer to the same question make a pair that the "
                "reward model can train on; ask several models, or draw again with another seed."
            )
            inputs = [question, chosen, temperature, length, seed, session]
            outputs = [*columns, session, status, nearest, question]
            gr.on(
                [ask.click, question.submit],
                self._ask,
                inputs,
                outputs,
                show_progress="hidden",
                concurrency_limit=1,  # a question that is asked while another is answered waits
                trigger_mode="multiple",
                api_visibility="private",
            )
            stop.click(self._stop, [session], None, show_progress="hidden", api_visibility="private")
            reset.click(self._reset, [session], [*columns, session, status], api_visibility="private")
            chosen.change(self._show, [chosen], columns, api_visibility="private")
            for name, column in zip(self._names, columns, strict=True):
                column.like(self._voter(name), [session], [status], api_visibility="private")
                column.clear(self._forgetter(name), [session], [session], api_visibility="private")
        return page

    def _show(self, chosen: list[str]) -> list[Any]:
        return [gr.update(visible=name in chosen) for name in self._names]

    def _stop(self, session: Session) -> None:
        session.is_stopping = True

    def _reset(self, session: Session) -> list[Any]:
        session.is_stopping = True  # an answer that is being written belongs to the conversation that ends
        with session.answering:
            session.conversations.clear()
        return [*([] for _ in self._names), session, _paragraph("A new conversation.")]

    def _ask(
        self, question: str, chosen: list[str], temperature: float, length: float, seed: float, session: Session
    ) -> Iterator[list[Any]]:
        """Updates of the page while the chosen models answer, one after the other."""
        question = (question or "").strip()

        def update(status: str, **changed: Any) -> list[Any]:
            columns = [changed.get(name, gr.skip()) for name in self._names]
            others = [changed.get(name, gr.skip()) for name in ("nearest", "question")]
            return [*columns, session, _paragraph(status), *others]

        if not question or not chosen:
            yield update("Write a question." if chosen else "Choose who answers.")
            return
        sampling = ChatSampling(float(temperature), int(length), int(seed or 0))
        yield update("Looking up…", nearest=self._nearest(question), question="")
        with session.answering:
            session.is_stopping = False
            yield from self._answer(question, chosen, sampling, session, update)

    def _answer(
        self, question: str, chosen: list[str], sampling: ChatSampling, session: Session, update: Callable[..., list[Any]]
    ) -> Iterator[list[Any]]:
        for name in (name for name in self._names if name in chosen):
            earlier = session.conversations.get(name)
            shown = [*(_messages(earlier) if earlier else []), _asked(question)]
            yield update(f"{name} is loading…" if name not in self._models else f"{name} answers…", **{name: shown})
            try:
                model, writer = self._models[name]
                conversation = session.conversations.setdefault(name, Conversation(model.system_prompt))
                parts, last = {"reasoning": "", "answer": ""}, 0.0
                with closing(conversation.ask(question, model, writer, sampling)) as pieces:
                    for piece in pieces:
                        if session.is_stopping:
                            break
                        parts[piece.part] += piece.text
                        if time.monotonic() - last > _SECONDS_BETWEEN_UPDATES:
                            last = time.monotonic()
                            yield update(f"{name} answers…", **{name: shown + _answer(parts["answer"], parts["reasoning"])})
            except InputError as error:
                yield update(f"{name}: {error}", **{name: shown[:-1]})
                return
            turn = conversation.turns[-1]
            note = ", ".join(filter(None, [f"{turn.seconds:.1f} s", _NOTES.get(turn.finish_reason)]))
            yield update(f"{name}: {note}", **{name: _messages(conversation)})
            if session.is_stopping:
                return

    def _nearest(self, question: str) -> Any:
        """The markup that shows the nearest record, its texts escaped."""
        if self._index is None:
            return gr.skip()
        (place,), (cosine,) = self._index.nearest([{"context": "", "question": question}])
        record = self._train[place]
        asked = "\n\n".join(filter(None, [record["context"], record["question"]]))
        return "".join(
            [
                _paragraph(f"{record['id']}, likeness {cosine:.2f} of 1"),
                f"<p><strong>Question</strong></p>{_paragraph(asked, 'quoted')}",
                f"<p><strong>Reference answer</strong></p>{_paragraph(record['answer'], 'quoted')}",
            ]
        )

    def _voter(self, name: str) -> Callable[[Session, gr.LikeData], str]:
        def vote(session: Session, data: gr.LikeData) -> str:
            conversation = session.conversations.get(name)
            turn = conversation and _turn_at(conversation, data.index)
            if turn is None:
                return _paragraph("There is no answer to vote on.")
            try:
                pairs = self._votes.add(turn, data.liked if isinstance(data.liked, bool) else None)
            except InputError as error:
                return _paragraph(str(error))
            return _paragraph(f"Vote on an answer of {name} kept; {pairs} pairs so far.")

        return vote

    def _forgetter(self, name: str) -> Callable[[Session], Session]:
        def forget(session: Session) -> Session:
            session.conversations.pop(name, None)
            return session

        return forget


def _paragraph(text: str, style: str = "") -> str:
    return f'<p class="{style}">{html.escape(text)}</p>'


def _asked(question: str) -> dict[str, Any]:
    return {"role": "user", "content": html.escape(question)}


def _answer(answer: str, reasoning: str | None, note: str = "") -> list[dict[str, Any]]:
    """The messages that show an answer: its reasoning, to be unfolded, and itself.

    Texts are escaped: the page takes them for HTML and, though it lets no script through, would load an image.
    """
    shown: list[dict[str, Any]] = []
    if reasoning:
        shown.append(
            {"role": "assistant", "content": html.escape(reasoning), "metadata": {"title": "Reasoning", "status": "done"}}
        )
    if answer or not reasoning:
        shown.append({"role": "assistant", "content": html.escape(answer + note)})
    return shown


def _messages(conversation: Conversation) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for turn in conversation.turns:
        note = f" […{_NOTES[turn.finish_reason]}]" if turn.finish_reason in _NOTES else ""
        messages.append(_asked(turn.question))
        messages += _answer(turn.prediction or "(no answer)", turn.reasoning, note)
    return messages


def _turn_at(conversation: Conversation, index: int | tuple[int, ...]) -> Turn | None:
    """The turn that a message of the page belongs to."""
    wanted = index if isinstance(index, int) else index[0]
    place = -1
    for turn in conversation.turns:
        place += 1 + len(_answer(turn.prediction or "(no answer)", turn.reasoning))
        if wanted <= place:
            return turn
    return None


LAUNCH: dict[str, Any] = {
    "share": False,
    "quiet": True,
    "ssr_mode": False,
    "pwa": False,
    "mcp_server": False,
    "run_history": False,
    "enable_monitoring": False,
    "footer_links": [],
    "css": _STYLE,
}
"""How `page` is launched besides host, port and login: nothing is sent anywhere, nothing is loaded from elsewhere."""
