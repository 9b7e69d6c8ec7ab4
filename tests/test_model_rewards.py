"""Rewards that a model computes: in range, the same in any batch, and loaded only where they are asked for."""

from __future__ import annotations

import sys

import pytest

from ecg_grpo.errors import InputError
from ecg_grpo.model_rewards import EmbeddingReward, load_mix
from ecg_grpo.rewards import Case
from ecg_grpo.settings.reward import EmbeddingSettings, RewardSettings

QUESTION = "Which leads show ST elevation in an inferior infarction?"
REFERENCE = "Leads II, III and aVF, because the right coronary artery supplies the inferior wall."
HONEST = "It is seen in II, III and aVF, whose wall the right coronary artery feeds."


@pytest.fixture(scope="module")
def embedding() -> EmbeddingReward:
    return EmbeddingReward(EmbeddingSettings(batch_size=2))


def cases(*texts: str) -> list[Case]:
    return [Case(text, REFERENCE, QUESTION) for text in texts]


def test_the_reference_earns_1_the_question_and_nothing_0(embedding: EmbeddingReward) -> None:
    reference, honest, echo, empty, other = embedding(cases(REFERENCE, HONEST, QUESTION, "", "Take the pills with food."))
    assert reference == pytest.approx(1)
    assert 0.3 < honest < 1
    assert (echo, empty, other) == (0, 0, 0)


def test_only_the_answer_counts_and_neighbours_change_nothing(embedding: EmbeddingReward) -> None:
    (alone,) = embedding(cases(HONEST))
    wrapped = embedding(cases("A text.", f"<think>{QUESTION}</think><answer>{HONEST}</answer>", REFERENCE * 3, HONEST))
    assert wrapped[1] == pytest.approx(alone, abs=1e-5)
    assert wrapped[3] == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("text", ["\x00", "\u202e", "🫀" * 50, "a " * 5000, "\ud800"])
def test_any_text_has_a_reward(embedding: EmbeddingReward, text: str) -> None:
    (found,) = embedding(cases(text))
    assert 0 <= found <= 1


def test_it_joins_the_mix() -> None:
    mix = load_mix(RewardSettings(weights={"embedding": 1.0}, gates={"length": 0.0}))
    reference, honest, echo = mix.rewards(cases(REFERENCE, HONEST, QUESTION))
    assert reference == pytest.approx(1)
    assert echo == 0 < honest


def test_a_model_that_is_not_there_is_named_with_its_key(tmp_path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_mix(RewardSettings(weights={"embedding": 1.0}, embedding={"model": str(tmp_path / "none")}))


def test_no_model_is_loaded_that_nobody_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    monkeypatch.delitem(sys.modules, "ecg_grpo.sentence_embedding", raising=False)
    assert load_mix(RewardSettings()).models == {}
