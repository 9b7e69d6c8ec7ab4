"""A trained reward model: a prompt and an answer in, a number from 0 to 1 out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecg_grpo.errors import InputError
from ecg_grpo.prompts import Message

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_MEND = "Name the directory of results/<run>/reward_model/model, which train_reward_model writes."


class RewardModel:
    """A sequence-classification model with one output, e.g. that of `train_reward_model`.

    Weights are read by `load`, or when the first text is scored. A text is rendered with the tokenizer's chat template as in
    training, the answer as the assistant's last turn; nothing is cut. Equal texts have equal scores, whatever stands beside
    them.
    """

    def __init__(self, directory: Path, batch_size: int = 16, dtype: torch.dtype | None = None) -> None:
        """
        Args:
            directory: model directory with config.json, *.safetensors and a tokenizer.
            batch_size: texts computed at once, at least 1.
            dtype: number format of the weights; None takes float32.

        Raises:
            InputError: the directory holds no such model; says what is missing.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        _check(directory)
        self._directory, self._batch_size, self._dtype = directory, batch_size, dtype
        self._loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None

    def score(self, prompts: Sequence[list[Message]], completions: Sequence[str]) -> list[float]:
        """How good each answer is.

        Args:
            prompts: messages, the user's last.
            completions: one answer to each, without reasoning (`prompts.extract_prediction`).

        Returns:
            The sigmoid of the model's score, in [0, 1], in the order of the prompts. Only differences and order mean something:
            0.5 is no boundary between right and wrong.

        Raises:
            InputError: weights or tokenizer cannot be used.
        """
        import torch

        return torch.sigmoid(torch.tensor(self.raw_scores(prompts, completions), dtype=torch.float64)).tolist()

    def raw_scores(self, prompts: Sequence[list[Message]], completions: Sequence[str]) -> list[float]:
        """The scores before the sigmoid, of any size; see `score`."""
        import torch

        if len(prompts) != len(completions):
            raise ValueError(f"{len(prompts)} prompts and {len(completions)} completions")
        model, tokenizer = self.load()
        model.to("cuda" if torch.cuda.is_available() else "cpu")  # of this process, which knows its device by now
        texts = [
            tuple(conversation_tokens(tokenizer, prompt, completion))
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        scores: dict[tuple[int, ...], float] = {}
        # Sorted by the tokens themselves, so that the same texts share the same batches in whatever order they come.
        for batch in _batches(sorted(set(texts), key=lambda text: (len(text), text)), self._batch_size):
            scores |= zip(batch, _score_batch(model, tokenizer.pad_token_id, batch), strict=True)
        return [scores[text] for text in texts]

    def load(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Model and tokenizer, read once.

        Raises:
            InputError: weights or tokenizer cannot be used.
        """
        if self._loaded is None:
            import torch
            from safetensors import SafetensorError
            from transformers import AutoModelForSequenceClassification, AutoTokenizer

            try:
                tokenizer = AutoTokenizer.from_pretrained(self._directory)
                model, report = AutoModelForSequenceClassification.from_pretrained(
                    self._directory, dtype=self._dtype or torch.float32, use_safetensors=True, output_loading_info=True
                )
            except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
                reason = str(error).strip().splitlines()[0]
                raise InputError(self._directory, f"the reward model cannot be read ({reason})", _MEND) from None
            if report["missing_keys"]:
                raise InputError(self._directory, f"the model has no weights for {min(report['missing_keys'])}", _MEND)
            if tokenizer.chat_template is None or tokenizer.pad_token_id is None:
                raise InputError(self._directory, "the tokenizer has no chat template or no padding token", _MEND)
            # The head reads the last token that is none of padding.
            model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
            self._loaded = model.eval(), tokenizer
        return self._loaded


def conversation(prompt: list[Message], answer: str) -> list[Message]:
    """The prompt with an answer as the assistant's turn."""
    return [*prompt, {"role": "assistant", "content": answer}]


def conversation_tokens(tokenizer: PreTrainedTokenizerBase, prompt: list[Message], answer: str) -> list[int]:
    """The tokens that a reward model reads: as TRL's reward trainer renders a conversation."""
    return tokenizer.apply_chat_template(conversation(prompt, answer), tokenize=True, return_dict=True)["input_ids"]


def _check(directory: Path) -> None:
    try:
        config: Any = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(directory, "there is no model directory with a config.json", _MEND) from None
    architectures = config.get("architectures") or []
    if not any(name.endswith("ForSequenceClassification") for name in architectures):
        what = f"the model is no reward model but {', '.join(architectures) or 'of an unnamed kind'}"
        raise InputError(directory, what, _MEND)
    if len(config.get("id2label") or "of two") != 1:
        raise InputError(directory, "the model gives several numbers for a text, not one", _MEND)
    if not any(directory.glob("*.safetensors")):
        raise InputError(directory, "the model directory has no weights (*.safetensors)", _MEND)


def _batches(texts: list[tuple[int, ...]], size: int) -> Iterator[list[tuple[int, ...]]]:
    for start in range(0, len(texts), size):
        yield texts[start : start + size]


def _score_batch(model: PreTrainedModel, pad: int, batch: list[tuple[int, ...]]) -> list[float]:
    import torch

    longest = max(map(len, batch))
    ids = torch.tensor([[*text, *[pad] * (longest - len(text))] for text in batch], device=model.device)
    mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in batch], device=model.device)
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, 0].double().tolist()
