"""Rewards: in range and total for any text, and not to be had for echoing, fragments, length or the opposite."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import CHRF

from ecg_grpo.chrf import sentence_chrf
from ecg_grpo.model_rewards import load_mix
from ecg_grpo.prompts import take_apart
from ecg_grpo.rewards import REWARDS, Case, RewardMix, trl_rewards
from ecg_grpo.rouge import rouge_l_f1
from ecg_grpo.settings.reward import RewardSettings

QUESTION = "Which leads show ST elevation in an inferior infarction?"
REFERENCE = "Leads II, III and aVF, because the right coronary artery supplies the inferior wall."
DEFAULT = load_mix(RewardSettings())

# Words that rewards look at, so that random texts are not only noise.
SPOKEN = st.lists(
    st.sampled_from(
        "Yes No no not without normal abnormal left right ST elevation QRS ≥ ≤ above below at least 120 ms 0.12 s 2 mm MI RBBB "
        "myocardial infarction atrial fibrillation <think> </think> <answer> </answer> , . ? the is of in".split()
    ),
    max_size=25,
).map(" ".join)
TEXTS = st.text(max_size=80) | SPOKEN


def value(name: str, text: str, reference: str = REFERENCE, question: str = QUESTION) -> float:
    return REWARDS[name](take_apart(text), reference, question)


@pytest.mark.parametrize("name", REWARDS)
@given(text=TEXTS, reference=TEXTS, question=TEXTS)
@settings(max_examples=150, deadline=None)
def test_any_texts_give_a_number_from_0_to_1_and_always_the_same(name: str, text: str, reference: str, question: str) -> None:
    found = value(name, text, reference, question)
    assert 0 <= found <= 1
    assert found == value(name, text, reference, question)


@given(text=TEXTS, reference=TEXTS, question=TEXTS)
@settings(max_examples=150, deadline=None)
def test_the_mix_too(text: str, reference: str, question: str) -> None:
    assert 0 <= DEFAULT.rewards([Case(text, reference, question)])[0] <= 1


@pytest.mark.parametrize("name", REWARDS)
def test_the_reference_scores_1_and_nothing_scores_0(name: str) -> None:
    assert value(name, REFERENCE) == pytest.approx(1)
    assert value(name, "") == 0
    assert value(name, "   ") == 0


@pytest.mark.parametrize("name", REWARDS)
@given(reference=SPOKEN.filter(lambda text: "<" not in text), spaces=st.sampled_from([" ", "  ", "\n", "\t "]))
@settings(max_examples=100, deadline=None)
def test_spacing_at_the_ends_and_between_words_does_not_count(name: str, reference: str, spaces: str) -> None:
    text = "Left bundle branch block is not normal, and the QRS lasts at least 120 ms."
    spaced = "  " + spaces.join(text.split(" ")) + "\n"
    assert value(name, spaced, reference) == pytest.approx(value(name, text, reference))


@pytest.mark.parametrize("name", [name for name in REWARDS if name != "chrf"])  # characters are what chrF is about
def test_case_and_quotes_do_not_count(name: str) -> None:
    reference = "Yes, the “delta wave” isn’t normal; it's 120 ms or more."
    for text in (
        "YES, THE “DELTA WAVE” ISN’T NORMAL; IT'S 120 MS OR MORE.",
        'yes, the "delta wave" isn\'t normal; it’s 120 ms or more.',
    ):
        assert value(name, text, reference, "Why?") == pytest.approx(1)


def test_echoing_the_question_earns_no_concepts() -> None:
    assert value("concept_f1", QUESTION) == 0


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("the MI hurts", "The myocardial infarction hurts."),
        ("RBBB", "Right bundle branch block"),
        ("the left anterior descending artery is occluded", "The LAD is occluded."),
        ("a QRS of 0.12 s", "A QRS of 120 ms"),
        ("QRS IS ≥ 120 ms", "The QRS is at least 120 ms."),
        ("No. Verapamil can cause collapse.", "No, verapamil can cause collapse."),
        ("No", "No."),
        ("Yes it is", "Yes, it is."),
        ("It has.", "It is."),  # neither says anything
        ("左束支传导阻滞", "左束支传导阻滞"),
        ("It is not safe.", "It wouldn't be safe."),
    ],
)
def test_one_concept_has_many_names(text: str, reference: str) -> None:
    assert value("concept_f1", text, reference, "") == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("The QRS is ≤ 120 ms.", "The QRS is ≥ 120 ms."),
        ("The QRS is ≥ 100 ms.", "The QRS is ≥ 120 ms."),
        ("It is not indicated.", "It is indicated."),
        ("left ventricular hypertrophy", "right ventricular hypertrophy"),
        ("the left axis", "the right axis"),
        ("LBBB", "RBBB"),
        ("ST elevation below 2 mm", "ST elevation above 2 mm"),
        ("more than three leads", "more than two leads"),
        ("the QRS comes after P", "the QRS comes before P"),
        ("with symptoms", "without symptoms"),
        ("Yes, verapamil can cause collapse.", "No, verapamil can cause collapse."),
        ("Yes", "No"),
        ("QTc<500ms", "QTc>500ms"),
        ("below 180/110 mmHg", "below 130/80 mmHg"),
        ("左束支传导阻滞", "右束支传导阻滞"),
    ],
)
def test_direction_amount_side_and_negation_are_concepts(text: str, reference: str) -> None:
    assert value("concept_f1", text, reference, "") < 1


def test_rare_concepts_weigh_more_than_usual_ones() -> None:
    reference = "The ECG in Brugada syndrome"
    assert value("concept_f1", "Brugada syndrome", reference, "") > value("concept_f1", "the ECG", reference, "")


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("Yes, it is.", "Yes, you may.", 1),
        ("No, it is not.", "Yes, you may.", 0),
        ("You may.", "Yes, you may.", 0.5),
        ("Yes, and the axis is normal.", "No, but the axis is normal.", 0),
        ("The axis is abnormal.", "The axis is normal.", 0),
        ("The axis is not normal.", "The axis is normal.", 0),
        ("It is contraindicated.", "It is indicated.", 0),
        ("The T wave is inverted.", "The axis of P is large.", 1),
    ],
)
def test_polarity(text: str, reference: str, expected: float) -> None:
    assert value("polarity", text, reference) == expected


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("120 ms or more", "≥ 0.12 s", 1),
        ("≤ 120 ms", "≥ 120 ms", 0),
        ("It is long.", "≥ 120 ms", 0),
        ("It is long.", "It is wide.", 1),
        ("100 ms and 2 mm", "2 mm", 2 / 3),
    ],
)
def test_numbers(text: str, reference: str, expected: float) -> None:
    assert value("numbers", text, reference) == pytest.approx(expected)


def test_length_is_free_within_30_percent_and_falls_beyond() -> None:
    reference = " ".join(["word"] * 100)
    lengths = {count: value("length", " ".join(["other"] * count), reference) for count in (10, 50, 77, 100, 130, 260, 1000)}
    assert lengths == pytest.approx({10: 0.13, 50: 0.65, 77: 1, 100: 1, 130: 1, 260: 0.5, 1000: 0.13}, abs=2e-3)


def test_repetition() -> None:
    assert value("repetition", f"{REFERENCE} {REFERENCE} {REFERENCE}") < 0.5
    assert value("repetition", "ST " * 40) < 0.05
    assert value("repetition", "no no no") == pytest.approx(1 / 3 / 0.9)
    assert value("repetition", "A long answer that says everything once and no more than that.") == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("An answer.", 1),
        ("<think>Why?</think><answer>Because.</answer>", 1),
        ("<think>Why?</think>Because.", 0),
        ("<think>Why? Because.", 0),
        ("<think>Why?</think><answer></answer>", 0),
        ("<answer>Because.</answer>", 0),
    ],
)
def test_format(text: str, expected: float) -> None:
    assert value("format", text) == expected


@given(text=st.text(alphabet="ab c😀é\ud800", max_size=12), reference=st.text(alphabet="ab c😀é", max_size=12))
@settings(max_examples=300, deadline=None)
def test_chrf_is_that_of_sacrebleu(text: str, reference: str) -> None:
    assert sentence_chrf(text, reference) == pytest.approx(CHRF().sentence_score(text, [reference]).score / 100, abs=1e-12)


@given(text=TEXTS, reference=TEXTS)
@settings(max_examples=300, deadline=None)
def test_rouge_l_is_that_of_rouge_score(text: str, reference: str) -> None:
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    assert rouge_l_f1(text, reference) == pytest.approx(scorer.score(reference, text)["rougeL"].fmeasure, abs=1e-12)


def test_gates_multiply_and_weights_average() -> None:
    mix = RewardMix({"concept_f1": 3, "chrf": 1}, {"format": 0, "polarity": 0.2})
    values = {"concept_f1": 0.5, "chrf": 0.1, "format": 1, "polarity": 0.5}
    assert mix.total(values) == pytest.approx((0.75 * 0.5 + 0.25 * 0.1) * (0.2 + 0.8 * 0.5))
    assert mix.total(values | {"format": 0}) == 0


def test_a_part_without_a_value_costs_nothing() -> None:
    def silent(cases: Sequence[Case]) -> list[float | None]:
        return [None for _ in cases]

    case = Case("Leads II and aVF.", REFERENCE, QUESTION)
    with_judge = RewardMix({"judge": 3, "chrf": 1}, {"other_judge": 0, "length": 0}, {"judge": silent, "other_judge": silent})
    without = RewardMix({"chrf": 1}, {"length": 0})
    assert with_judge.rewards([case]) == pytest.approx(without.rewards([case]))
    only = RewardMix({"judge": 1}, {}, {"judge": silent})
    assert only.rewards([case]) == [0]


def test_a_judge_that_answers_for_some_of_a_group_only_decides_nothing_in_it() -> None:
    """Else the same text would earn less where the judge was silent, or more."""
    judge = {REFERENCE: [0.75, None, 0.25], "Other.": [0.75, 0.5, 0.25]}
    mix = RewardMix({"judge": 1, "chrf": 1}, {}, {"judge": lambda _: [*judge[REFERENCE], *judge["Other."]]})
    answers = [REFERENCE] * 3 + ["Other."] * 3
    inputs = {"prompts": [[]] * 6, "question": [QUESTION] * 6, "answer": answers, "id": list("abcdef")}
    completions = [[{"role": "assistant", "content": "Leads II and aVF."}]] * 6
    functions = [(function(completions=completions, **inputs), weight) for function, weight in trl_rewards(mix)]
    earned = [sum(values[index] * weight for values, weight in functions) for index in range(6)]
    assert earned[0] == earned[1] == earned[2]
    assert earned[3] > earned[4] > earned[5]


def test_turning_an_answer_round_lowers_its_reward() -> None:
    reference = "Yes, the QT interval is prolonged to at least 500 ms and the risk is high."
    honest = "Yes, QT is prolonged to 500 ms or more, so that the risk is high."
    for wrong in (
        honest.replace("Yes", "No"),
        honest.replace("prolonged", "shortened"),
        honest.replace("or more", "or less"),
        honest.replace("500", "400"),
    ):
        turned, right = DEFAULT.rewards([Case(wrong, reference, ""), Case(honest, reference, "")])
        assert turned < right


def test_trl_gets_functions_whose_weighted_sum_is_the_reward_and_the_records_beside_it() -> None:
    logged: dict[str, list] = {}
    measured: list[tuple[str, float]] = []
    texts = [REFERENCE, "", "Leads II and aVF show it, supplied by the right coronary artery.", "No."]
    columns = {
        "prompts": [[]] * 4,
        "completions": [[{"role": "assistant", "content": text}] for text in texts],
        "completion_ids": [[1]] * 4,
        "id": ["a"] * 4,
        "question": [QUESTION] * 4,
        "answer": [REFERENCE] * 4,
        "trainer_state": None,
        "log_extra": lambda column, values: logged.update({column: values}),
        "log_metric": lambda name, found: measured.append((name, found)),
    }
    functions = trl_rewards(DEFAULT, ("rouge_l", lambda prediction, reference, _: rouge_l_f1(prediction, reference)))
    assert [function.__name__ for function, _ in functions] == DEFAULT.parts
    found = [function(**columns) for function, _ in functions]
    rewards = DEFAULT.rewards([Case(text, REFERENCE, QUESTION) for text in texts])
    for index in range(len(texts)):
        total = sum(weight * column[index] for (_, weight), column in zip(functions, found, strict=True))
        assert total == pytest.approx(rewards[index])
    assert [weight for function, weight in functions if function.__name__ in DEFAULT.gates] == [0.0] * len(DEFAULT.gates)
    assert logged == {"id": ["a"] * 4, "question": [QUESTION] * 4, "answer": [REFERENCE] * 4}
    assert measured == [("rouge_l", rouge_l_f1(text, REFERENCE)) for text in texts]
