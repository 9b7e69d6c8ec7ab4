"""Rewards: in range and total for any text, and not to be had for echoing, fragments or length."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_grpo.rewards import REWARDS, chrf, concept_f1, length_agreement, trl_rewards

QUESTION = "Which leads show ST elevation in an inferior infarction?"
REFERENCE = "Leads II, III and aVF, because the right coronary artery supplies the inferior wall."


@pytest.mark.parametrize("name", REWARDS)
@given(prediction=st.text(), reference=st.text(), question=st.text())
@settings(max_examples=150, deadline=None)
def test_any_texts_give_a_number_from_0_to_1_and_always_the_same(
    name: str, prediction: str, reference: str, question: str
) -> None:
    value = REWARDS[name](prediction, reference, question)
    assert 0 <= value <= 1
    assert value == REWARDS[name](prediction, reference, question)


@pytest.mark.parametrize("name", REWARDS)
def test_the_reference_scores_1_and_nothing_scores_0(name: str) -> None:
    assert REWARDS[name](REFERENCE, REFERENCE, QUESTION) == pytest.approx(1)
    assert REWARDS[name]("", REFERENCE, QUESTION) == 0
    assert REWARDS[name]("   ", REFERENCE, QUESTION) == 0


def test_echoing_the_question_earns_no_concepts() -> None:
    assert concept_f1(QUESTION, REFERENCE, QUESTION) == 0


def test_concepts_ignore_case_and_inflection_but_not_numbers_signs_and_negation() -> None:
    reference = "The QRS is ≥ 120 ms."
    assert concept_f1("qrs IS ≥ 120 ms", reference, "") == 1
    assert concept_f1("The QRS is ≤ 120 ms.", reference, "") < 1
    assert concept_f1("The QRS is ≥ 100 ms.", reference, "") < 1
    assert concept_f1("It is not indicated.", "It is indicated.", "") < 1


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("ST elevation below 2 mm", "ST elevation above 2 mm"),
        ("less than two leads", "more than two leads"),
        ("more than three leads", "more than two leads"),
        ("the QRS comes after P", "the QRS comes before P"),
        ("a thin septum", "a thick septum"),
        ("with symptoms", "without symptoms"),
    ],
)
def test_direction_amount_and_size_are_concepts(prediction: str, reference: str) -> None:
    assert concept_f1(prediction, reference, "") < 1


def test_a_fragment_and_a_repetition_lose_length_agreement() -> None:
    assert length_agreement("Leads II", REFERENCE, QUESTION) < 0.2
    assert length_agreement(f"{REFERENCE} {REFERENCE} {REFERENCE}", REFERENCE, QUESTION) == pytest.approx(1 / 3)


def test_chrf_orders_right_near_and_wrong() -> None:
    near = "Leads II, III and aVF show it."
    assert chrf(REFERENCE, REFERENCE, "") > chrf(near, REFERENCE, "") > chrf("Take an aspirin.", REFERENCE, "")


def test_trl_gets_one_number_a_completion_and_the_records_beside_it() -> None:
    logged: dict[str, list] = {}
    functions = trl_rewards(["concept_f1", "length_agreement"])
    assert [function.__name__ for function in functions] == ["concept_f1", "length_agreement"]
    columns = {
        "prompts": [None, None],
        "completions": [[{"role": "assistant", "content": text}] for text in (REFERENCE, "")],
        "completion_ids": [[1], [2]],
        "id": ["a", "a"],
        "question": [QUESTION] * 2,
        "answer": [REFERENCE] * 2,
        "trainer_state": None,
        "log_extra": lambda column, values: logged.update({column: values}),
        "log_metric": None,
    }
    assert [function(**columns) for function in functions] == [[1.0, 0.0], [1.0, 0.0]]
    assert logged == {"id": ["a", "a"], "question": [QUESTION] * 2, "answer": [REFERENCE] * 2}
