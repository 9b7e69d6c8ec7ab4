"""Rewards that a model computes; loaded only where the configuration asks for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ecg_grpo.prompts import take_apart
from ecg_grpo.rewards import Case, ModelReward, RewardMix
from ecg_grpo.sentence_model import sentence_model_directory
from ecg_grpo.settings.reward import EmbeddingSettings, RewardSettings


def load_mix(settings: RewardSettings) -> RewardMix:
    """The mix that the section `reward` of the configuration describes, its models loaded.

    Raises:
        InputError: a model that it needs is not there.
    """
    models = {name: load(settings) for name, load in MODEL_REWARDS.items() if name in settings.parts()}
    return RewardMix(settings.weighted(), settings.gating(), models)


class EmbeddingReward:
    """How much nearer to the reference an answer is in meaning than the question is, from 0 to 1.

    Cosines of sentence embeddings (Reimers & Gurevych 2019) lie close together: an echo has 0.6 of the reference on this
    subject. So the question's own cosine is taken for 0; echoing it earns nothing, and differences within a group count.

    Gamed by: exchanging left and right, or high and low, which hardly moves an embedding.
    """

    def __init__(self, settings: EmbeddingSettings) -> None:
        """
        Args:
            settings: the model and how it is used.

        Raises:
            InputError: there is no such model, or sentence-transformers is not installed.
        """
        directory = sentence_model_directory(settings.model, "reward.embedding.model")
        from ecg_grpo.sentence_embedding import SentenceModel

        self._model, self._batch_size = SentenceModel(directory, settings.max_tokens), settings.batch_size

    def __call__(self, cases: Sequence[Case]) -> list[float | None]:
        """The reward of each text."""
        import torch

        triples = [
            tuple(map(_encodable, (take_apart(completion).prediction, reference, question)))
            for completion, reference, question in cases
        ]
        texts = sorted({text for triple in triples for text in triple if text.strip()})
        found = zip(texts, self._model.embed(texts, self._batch_size), strict=True)
        sentences = {text: torch.nn.functional.normalize(one.sentence.float(), dim=0) for text, one in found}

        def cosine(one: str, other: str) -> float:
            return float(sentences[one] @ sentences[other]) if one in sentences and other in sentences else 0.0

        rewards: list[float | None] = []
        for prediction, reference, question in triples:
            start = min(0.99, max(0.0, cosine(question, reference)))
            rewards.append(min(1.0, max(0.0, (cosine(prediction, reference) - start) / (1 - start))))
        return rewards


def _encodable(text: str) -> str:
    """The text as a tokenizer takes it: half a character of UTF-16 is none."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _embedding(settings: RewardSettings) -> ModelReward:
    return EmbeddingReward(settings.embedding)


MODEL_REWARDS: dict[str, Callable[[RewardSettings], ModelReward]] = {"embedding": _embedding}
"""Every reward that needs a model, by the name that the configuration uses."""
