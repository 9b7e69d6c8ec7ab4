"""Metrics against values worked out by hand or by another program."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_grpo.metrics import METRICS, bleu_1, length_ratio, meteor, rouge_l, token_f1, words
from ecg_grpo.rewards import REWARDS

WORDS = st.lists(st.sampled_from(["qrs", "wide", "lead", "pace", "block", "st"]), min_size=1, max_size=12).map(" ".join)


def longest_common_subsequence(one: list[str], other: list[str]) -> int:
    lengths = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, left in enumerate(one):
        for j, right in enumerate(other):
            lengths[i + 1][j + 1] = lengths[i][j] + 1 if left == right else max(lengths[i][j + 1], lengths[i + 1][j])
    return lengths[-1][-1]


@given(prediction=WORDS, reference=WORDS)
def test_rouge_l_is_the_f1_of_the_longest_common_subsequence(prediction: str, reference: str) -> None:
    given_words, expected = prediction.split(), reference.split()
    common = longest_common_subsequence(given_words, expected)
    assert rouge_l(prediction, reference) == pytest.approx(2 * common / (len(given_words) + len(expected)))


@given(prediction=WORDS, reference=WORDS)
def test_bleu_1_is_clipped_precision_with_brevity_penalty(prediction: str, reference: str) -> None:
    given_words, expected = prediction.split(), reference.split()
    clipped = sum(min(given_words.count(word), expected.count(word)) for word in set(given_words))
    penalty = min(1.0, math.exp(1 - len(expected) / len(given_words)))
    if clipped:  # without a match sacrebleu smooths to a value that is not 0
        assert bleu_1(prediction, reference) == pytest.approx(penalty * clipped / len(given_words))


def test_meteor_by_hand() -> None:
    # 3 of 3 and 3 of 4 words match in one chunk: F = 10PR/(R+9P), penalty 0.5 (1/3)^3
    f_mean = 10 * 1.0 * 0.75 / (0.75 + 9 * 1.0)
    assert meteor("the wide qrs", "the wide qrs complex") == pytest.approx(f_mean * (1 - 0.5 * (1 / 3) ** 3))
    assert meteor("pacing leads", "paced lead") > 0.4, "stems match"


def test_token_f1_by_hand() -> None:
    assert token_f1("The QRS is wide.", "qrs wide") == pytest.approx(2 * 2 / (3 + 2))
    assert token_f1("a the an", "qrs") == 0


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.is_quality])
@given(prediction=st.text(), reference=st.text(min_size=1))
@settings(max_examples=100, deadline=None)
def test_any_text_gets_a_score_from_0_to_1(name: str, prediction: str, reference: str) -> None:
    assert 0 <= METRICS[name].score(prediction, reference) <= 1 + 1e-9


def test_an_empty_answer_scores_0() -> None:
    assert all(metric.score("", "Leads II, III and aVF.") == 0 for metric in METRICS.values())


def test_lengths() -> None:
    assert words("one two three", "x") == 3
    assert length_ratio("one two three", "one two") == 1.5


def test_no_headline_metric_is_a_training_reward() -> None:
    assert not METRICS.keys() & REWARDS.keys()
