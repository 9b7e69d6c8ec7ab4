"""Attacks apply where they can, and are what they say."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_grpo.attacks import ATTACKS, REASONING_ATTACKS, Target, as_demanded, texts_of, usual_beginning
from ecg_grpo.prompts import has_tag, take_apart
from ecg_grpo.settings.reward import RewardInUse

TARGET = Target(
    question="Is a QRS of 140 ms with a broad R in V6 normal?",
    reference="No, a QRS of at least 120 ms is abnormal; with a broad R in V6 it is left bundle branch block.",
    nearest="A QRS below 110 ms is normal.",
    constant="It is.",
    phrase="It is the",
)


def test_there_are_enough_of_them_and_most_apply() -> None:
    assert len(ATTACKS) >= 20
    assert texts_of(TARGET).keys() >= {
        *("empty", "echo", "echo_with_phrase", "constant", "nearest", "lexicon", "hedge", "both_sides", "other_language"),
        *(
            "instruction",
            "hidden_in_reasoning",
            "unclosed_reasoning",
            "keywords",
            "fragment",
            "padded_fragment",
            "denied",
            "repeated",
            "polarity",
            "numbers",
        ),
        *("direction", "side", "lead"),
    }


def test_what_needs_no_knowledge_of_the_reference_does_not_change_with_it() -> None:
    other = Target(
        TARGET.question, "A wholly different reference, of 50 words.", TARGET.nearest, TARGET.constant, TARGET.phrase
    )
    for name, attack in ATTACKS.items():
        if attack.is_blind:
            assert attack.make(TARGET) == attack.make(other), name


def test_an_attack_that_says_the_reference_is_none() -> None:
    same = Target(TARGET.question, TARGET.reference, TARGET.reference.upper(), TARGET.constant, TARGET.phrase)
    assert "nearest" in texts_of(TARGET)
    assert "nearest" not in texts_of(same)


def test_a_fragment_is_a_third_and_keywords_carry_content() -> None:
    texts = texts_of(TARGET)
    assert texts["fragment"] == "No, a QRS of at least 120"
    assert texts["padded_fragment"] == f"{texts['fragment']} {TARGET.question} Is a"
    assert len(texts["padded_fragment"].split()) == len(TARGET.reference.split())
    assert "the" not in texts["keywords"].split(", ")
    assert "QRS" in texts["keywords"].split(", ")


def test_the_usual_beginning() -> None:
    assert usual_beginning(["It is the left one.", "It is the left two.", "A b c d e"]) == "It is the left"
    assert usual_beginning([]) == ""


def test_where_reasoning_is_demanded_attacks_differ_from_an_honest_answer_in_the_answer_alone() -> None:
    demanded = RewardInUse(reasoning=True, min_reasoning_words=20).demanded_reasoning_words
    honest = take_apart(as_demanded(TARGET.reference, True), demanded)
    assert honest.is_well_formed
    plain, reasoned = texts_of(TARGET), texts_of(TARGET, reasoning=True)
    assert reasoned.keys() == plain.keys() | REASONING_ATTACKS.keys()
    for name, text in plain.items():
        if has_tag(text):
            assert reasoned[name] == text
        else:
            answer = take_apart(reasoned[name], demanded)
            assert (answer.prediction, answer.reasoning) == (text.strip(), honest.reasoning)
            assert answer.is_well_formed is bool(text.strip())
    assert not any(take_apart(reasoned[name], demanded).is_well_formed for name in REASONING_ATTACKS if "echo" not in name)


@given(st.builds(Target, *[st.text(max_size=60)] * 5))
@settings(max_examples=150, deadline=None)
def test_any_record_can_be_attacked(target: Target) -> None:
    assert all(isinstance(text, str) for text in texts_of(target, reasoning=True).values())
