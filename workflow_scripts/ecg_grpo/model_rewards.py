"""Rewards that a model computes; loaded only where the configuration asks for them."""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ecg_grpo.endpoint import Endpoint
from ecg_grpo.errors import InputError
from ecg_grpo.files import model_directory
from ecg_grpo.judging import RUBRIC_TEXTS, JudgePrompt, read_grades, scaled
from ecg_grpo.prompts import Message, take_apart
from ecg_grpo.replies import kept_replies, name_of
from ecg_grpo.resources import resource
from ecg_grpo.reward_model import RewardModel
from ecg_grpo.rewards import Case, ModelReward, RewardMix
from ecg_grpo.sentence_model import sentence_model_directory
from ecg_grpo.settings.reward import EmbeddingSettings, RewardJudgeSettings, RewardSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ecg_grpo.reference_probability import ReferenceProbability, Thought


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a model's reward needs of the stage that it works in.

    Attributes:
        scratch: folder in which paid replies are kept; None keeps none.
        reward_model: manifest.json of the trained reward model; None: there is none.
        policy: manifest.json of the model that is judged by its own probabilities; None: there is none.
        say: writes a line to the stage's log.
    """

    scratch: Path | None = None
    reward_model: Path | None = None
    policy: Path | None = None
    say: Callable[[str], None] = print


def load_mix(settings: RewardSettings, surroundings: Surroundings | None = None) -> RewardMix:
    """The mix that the section `reward` of the configuration describes, its models loaded.

    Raises:
        InputError: a model that it needs is not there.
    """
    around = surroundings or Surroundings()
    models = {name: load(settings, around) for name, load in MODEL_REWARDS.items() if name in settings.parts()}
    return RewardMix(settings.weighted(), settings.gating(), models, settings.demanded_reasoning_words)


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
            tuple(map(_encodable, (take_apart(case.completion).prediction, case.reference, case.question))) for case in cases
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


class JudgeReward:
    """Mean grade of a language model by accuracy, completeness and clarity, 1 to 5 brought to 0 to 1.

    The prompt, and how it keeps an answer from addressing the judge, is that of the evaluation (`judging`). Replies are kept by
    their prompt, so that the same text is paid for once. Whatever goes wrong gives None and a line in the log: out of reach,
    unreadable, the budget used up; of a batch that the budget does not cover nothing is asked. After a batch without any reply
    the next one begins with a single question, so that a judge that is down does not hold the training up.

    Gamed by: whatever impresses the judge; length, confidence, its own style (Zheng et al. 2023, arXiv 2306.05685).
    """

    def __init__(self, settings: RewardJudgeSettings, surroundings: Surroundings) -> None:
        """
        Args:
            settings: whom to ask, and how often.
            surroundings: where replies are kept.

        Raises:
            InputError: the key is missing.
        """
        self._settings, self._say = settings, surroundings.say
        self._prompt = JudgePrompt(resource("prompts/judge_rubric.txt"), RUBRIC_TEXTS, settings.rubric.model_dump())
        # Each process of a training keeps what it was told itself.
        stage = f"reward_judge.{os.environ.get('RANK', '0')}"
        self._replies = kept_replies(surroundings.scratch, stage, settings.endpoint, settings.max_new_tokens)
        self._endpoint = Endpoint(settings.endpoint, settings.max_new_tokens, self._say)
        self._is_down = self._is_used_up = False
        self.requests = 0
        """Questions asked so far, those without a reply included."""

    def __call__(self, cases: Sequence[Case]) -> list[float | None]:
        """The reward of each text; an empty answer is 0 without asking."""
        answers = [take_apart(case.completion).prediction for case in cases]
        prompts = [
            self._prompt.messages(question=case.question, reference=case.reference, answer=answer) if answer else None
            for answer, case in zip(answers, cases, strict=True)
        ]
        names = [prompt and name_of(prompt) for prompt in prompts]
        missing = {
            name: prompt
            for name, prompt in zip(names, prompts, strict=True)
            if name and prompt and name not in self._replies.found
        }
        self._ask(missing)
        return [0.0 if name is None else self._grade(name) for name in names]

    def _ask(self, missing: dict[str, list[Message]]) -> None:
        if self._settings.max_requests is not None and len(missing) > self._settings.max_requests - self.requests:
            if not self._is_used_up:
                self._say(f"judge: reward.judge.max_requests ({self._settings.max_requests}) is used up")
            self._is_used_up = True
            return
        if self._is_down and missing:
            first = next(iter(missing))
            self._is_down = not self._answered({first: missing.pop(first)})
        if missing and not self._is_down:
            self._is_down = not self._answered(missing)

    def _answered(self, prompts: dict[str, list[Message]]) -> int:
        """Asks in parallel; how many were answered."""
        before = len(self._replies.found)
        with ThreadPoolExecutor(self._settings.endpoint.max_parallel) as pool:
            asked = {pool.submit(self._endpoint.ask, prompt): name for name, prompt in prompts.items()}
            try:
                for future in as_completed(asked):
                    self.requests += 1
                    try:
                        self._replies.add(asked[future], future.result())
                    except InputError as error:
                        self._say(f"judge: no reply ({error})")
            except BaseException:  # Ctrl-C, or a full disk: nobody waits for the others
                pool.shutdown(wait=False, cancel_futures=True)
                self._endpoint.stop()
                raise
        return len(self._replies.found) - before

    def _grade(self, name: str) -> float | None:
        reply = self._replies.found.get(name)
        grades = None if reply is None else read_grades(reply.text)
        if reply is not None and grades is None:
            self._say("judge: a reply that is no grades")
        return None if grades is None else sum(map(scaled, grades.values())) / len(grades)


class TrainedReward:
    """The score of the run's own reward model, 0 to 1; it reads prompt and answer, never the reference.

    An empty answer is 0, since no pair that the model was trained on has any.

    Gamed by: errors that no rule makes (docs/reward_model.md); a policy searches for what the model wrongly takes for right.
    """

    def __init__(self, manifest: Path) -> None:
        """
        Args:
            manifest: manifest.json in the model's directory.

        Raises:
            InputError: there is no such model, or it cannot be used.
        """
        self._model = RewardModel(model_directory(manifest))
        # Now and not with the first text: a trainer under ZeRO-3 would shard what is read once it is there.
        self._model.load()

    def __call__(self, cases: Sequence[Case]) -> list[float | None]:
        """The reward of each text."""
        answers = [_encodable(take_apart(case.completion).prediction) for case in cases]
        scores = iter(
            self._model.score(
                [list(case.prompt) for case, answer in zip(cases, answers, strict=True) if answer],
                [answer for answer in answers if answer],
            )
        )
        return [next(scores) if answer else 0.0 for answer in answers]


class ReferenceProbabilityReward:
    """How much more probable a reasoning makes the reference, from 0 to 1 (RLPR, Yu et al. 2025, arXiv 2506.18254).

    Mean probability of the reference's tokens after the text's reasoning, less that after an empty one, both of the policy
    itself; 0 where that is negative, and for a text without reasoning. It needs no verifier and never reads the answer.

    Gamed by: any answer after a good reasoning, so that it is worth nothing without a part that reads the answer; the audit
    stops a reward that is made of it alone.
    """

    BATCH_SIZE = 16

    def __init__(self, policy: Path) -> None:
        """
        Args:
            policy: manifest.json of a model; read with the first text, unless another one is followed by then.

        Raises:
            InputError: there is no such model.
        """
        self._directory = model_directory(policy)
        self._score: Callable[[Sequence[Thought]], list[ReferenceProbability]] = self._score_with_files
        self._loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None

    def follow(self, score: Callable[[Sequence[Thought]], list[ReferenceProbability]]) -> None:
        """Asks a policy that changes, such as that of `PolicyTrainer.reference_probabilities`, in place of the files' model."""
        self._score = score

    def __call__(self, cases: Sequence[Case]) -> list[float | None]:
        """The reward of each text."""
        from ecg_grpo.reference_probability import Thought

        reasonings = [_encodable(take_apart(case.completion).reasoning or "") for case in cases]
        # Every text, with reasoning or not: processes that share a model must all compute as much.
        thoughts = [
            Thought(case.prompt, text, case.reference)
            for case, reasoning in zip(cases, reasonings, strict=True)
            for text in (reasoning, "")
        ]
        found = self._score(thoughts)
        return [
            max(0.0, after.mean_probability - without.mean_probability) if reasoning else 0.0
            for reasoning, after, without in zip(reasonings, found[::2], found[1::2], strict=True)
        ]

    def _score_with_files(self, thoughts: Sequence[Thought]) -> list[ReferenceProbability]:
        import torch

        from ecg_grpo.reference_probability import load_scorer, reference_probabilities

        if self._loaded is None:
            self._loaded = load_scorer(self._directory, torch.float32)
        found = dict(ChainMap(*reference_probabilities(*self._loaded, thoughts, self.BATCH_SIZE)))
        return [found[index] for index in range(len(thoughts))]


def _encodable(text: str) -> str:
    """The text as a tokenizer takes it: half a character of UTF-16 is none."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _embedding(settings: RewardSettings, _: Surroundings) -> ModelReward:
    return EmbeddingReward(settings.embedding)


def _judge(settings: RewardSettings, surroundings: Surroundings) -> ModelReward:
    assert settings.judge is not None  # the settings' own validation
    return JudgeReward(settings.judge, surroundings)


def _reward_model(_: RewardSettings, surroundings: Surroundings) -> ModelReward:
    if surroundings.reward_model is None:
        raise InputError("reward", "reward_model is part of the reward, but none is given", "Name it with --reward-model.")
    return TrainedReward(surroundings.reward_model)


def _reference_probability(_: RewardSettings, surroundings: Surroundings) -> ModelReward:
    if surroundings.policy is None:
        raise InputError(
            "reward", "reference_probability is part of the reward, but no model is given", "Name it with --policy."
        )
    return ReferenceProbabilityReward(surroundings.policy)


MODEL_REWARDS: dict[str, Callable[[RewardSettings, Surroundings], ModelReward]] = {
    "embedding": _embedding,
    "judge": _judge,
    "reward_model": _reward_model,
    "reference_probability": _reference_probability,
}
"""Every reward that needs a model, by the name that the configuration uses."""
