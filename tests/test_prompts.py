"""Reasoning and answer of a model's text are told apart; reasoning that never ended is no answer."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ecg_grpo.prompts import TAGS, Answer, has_tag, take_apart, write_reasoned


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (" Leads II, III and aVF. ", Answer("Leads II, III and aVF.", None, True)),
        ("", Answer("", None, False)),
        ("<think>wide</think><answer>LBBB</answer>", Answer("LBBB", "wide", True)),
        ("\n<think>\nwide\n</think>\n<answer>\nLBBB\n</answer>\n", Answer("LBBB", "wide", True)),
        ("<think></think><answer>LBBB</answer>", Answer("LBBB", "", True)),
        ("<think>wide</think><answer> </answer>", Answer("", "wide", False)),
        ("<think>wide</think> LBBB", Answer("LBBB", "wide", False)),
        ("wide</think><answer>LBBB</answer>", Answer("LBBB", "wide", False)),  # the template opened it
        ("<think>wide and then", Answer("", "wide and then", False)),  # cut off while thinking
        ("<think>wide <answer>LBBB</answer>", Answer("", "wide <answer>LBBB</answer>", False)),
        ("<think>wide</think><answer>LBBB", Answer("LBBB", "wide", False)),  # cut off while answering
        ("<think>a</think><think>b</think><answer>c</answer>", Answer("c", "ab", False)),
        ("<answer>LBBB</answer>", Answer("LBBB", None, False)),
        ("<think>a</think><answer>b</answer> and more", Answer("b", "a", False)),
        ("QRS < 120 ms and > 80 ms", Answer("QRS < 120 ms and > 80 ms", None, True)),
    ],
)
def test_take_apart(completion: str, expected: Answer) -> None:
    assert take_apart(completion) == expected


PIECES = st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "wide", " ", "\n", "LBBB", "<"])


@given(st.lists(PIECES, max_size=10).map("".join))
def test_any_text_is_taken_apart_without_inventing_words(completion: str) -> None:
    answer = take_apart(completion)
    assert answer.prediction in completion
    assert answer.prediction == answer.prediction.strip()
    if answer.is_well_formed:
        assert answer.prediction
        assert "think>" not in answer.prediction
    if "<think>" in completion and "</think>" not in completion:
        assert not answer.prediction


@given(st.text(), st.text().filter(str.strip))
def test_what_is_written_is_taken_apart_again(reasoning: str, answer: str) -> None:
    assume(not has_tag(reasoning) and not has_tag(answer))
    written = write_reasoned(reasoning, answer)
    assert take_apart(written) == Answer(answer.strip(), reasoning.strip(), True)
    assert len(written) == len(TAGS) + len(reasoning.strip()) + len(answer.strip())


@pytest.mark.parametrize(
    ("completion", "is_well_formed"),
    [
        ("LBBB", False),
        ("<think></think><answer>LBBB</answer>", False),
        ("<think>wide wide wide</think><answer>LBBB</answer>", False),  # one word, three times over
        ("<think>wide and notched</think><answer>LBBB</answer>", True),
        ("<think>wide and notched</think><answer></answer>", False),
    ],
)
def test_where_reasoning_is_demanded_it_must_be_there(completion: str, is_well_formed: bool) -> None:
    assert take_apart(completion, min_reasoning_words=3).is_well_formed is is_well_formed
    assert take_apart(completion, 3).prediction == take_apart(completion).prediction
