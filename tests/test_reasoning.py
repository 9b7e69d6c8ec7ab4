"""Which reasonings are kept: none that tells the answer, and of the others the one that helps most."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT, SAMPLE
from hypothesis import given
from hypothesis import strategies as st

from ecg_grpo.baselines import nearest_training_answers
from ecg_grpo.counterfactuals import paraphrase
from ecg_grpo.errors import InputError
from ecg_grpo.prompts import EMPTY_WORDS, build_prompt, has_tag
from ecg_grpo.raw_files import find_raw_files
from ecg_grpo.readers import read_records
from ecg_grpo.reasoning import (
    BootstrapPrompt,
    Sample,
    account,
    choose,
    named_share,
    names_a_number,
    quotes,
    refusal,
    texts_to_beat,
)
from ecg_grpo.settings.bootstrap_reasoning import BootstrapSettings, ReasoningFilterSettings
from ecg_grpo.supervised import reasoned_examples

FILTER = ReasoningFilterSettings(min_words=5, max_words=40)
QUESTION = "What does a QRS of 140 ms with a broad R in V6 show?"
REFERENCE = "Left bundle branch block, since the left ventricle is activated late and from cell to cell."
GOOD = (
    "A QRS of 140 ms is above the upper limit. So impulses do not spread by fast fibres, and V6 looks at the side that is last."
)


@pytest.mark.parametrize(
    ("reasoning", "expected"),
    [
        (GOOD, None),
        ("", "too_short"),
        ("It is wide.", "too_short"),
        (f"{GOOD} <answer>", "tags"),
        (" ".join(f"word{number}" for number in range(41)), "too_long"),
        ("It is wide and it is wide and it is wide and it is wide.", "repeats_itself"),
        (f"Look at it: {REFERENCE}", "quotes_the_answer"),
        ("Whatever else is seen, the answer is the side on which conduction fails.", "speaks_of_the_answer"),
        ("The reply is right because conduction fails on the side that is seen late.", "speaks_of_the_answer"),
        ("The cardiologist thought of the side on which conduction fails and is late.", "speaks_of_the_answer"),
        ("There is a broad R in V6 here, and a QRS of 140 ms.", "echoes_the_question"),
        ("What is seen there means that the left ventricle is activated after the right one.", "quotes_the_answer"),
        (
            "Late, and slowly by its cells, does activation reach that left ventricle whose bundle branch has a block.",
            "quotes_the_answer",
        ),
    ],
)
def test_why_a_reasoning_is_refused(reasoning: str, expected: str | None) -> None:
    assert refusal(reasoning, True, QUESTION, REFERENCE, FILTER) == expected


def test_a_reasoning_that_repeats_the_request_is_refused() -> None:
    prompt = BootstrapPrompt(ROOT / "resources/prompts/bootstrap_reasoning.txt")
    words = prompt.request.split()
    assert "$" not in prompt.request
    assert len(words) > FILTER.max_quoted_words
    for start in range(len(words) - FILTER.max_quoted_words):
        quoted = " ".join(words[start : start + FILTER.max_quoted_words + 1]).upper()
        assert refusal(f"{GOOD} {quoted}", True, QUESTION, REFERENCE, FILTER, prompt.request) == "quotes_the_prompt"
        assert refusal(f"{GOOD} {quoted}", True, quoted, REFERENCE, FILTER, prompt.request) is None, "the question says it too"
    assert refusal(GOOD, True, QUESTION, REFERENCE, FILTER, prompt.request) is None


def test_the_request_does_not_use_words_that_refuse_a_reasoning() -> None:
    """A small model takes up the words that it is asked with."""
    request = BootstrapPrompt(ROOT / "resources/prompts/bootstrap_reasoning.txt").request
    assert refusal(request, True, QUESTION, REFERENCE, ReasoningFilterSettings(min_words=1)) is None


def test_what_was_cut_off_is_refused_whatever_it_says() -> None:
    assert refusal(GOOD, False, QUESTION, REFERENCE, FILTER) == "cut_off"


def test_the_bounds_themselves_are_still_kept() -> None:
    words = len(GOOD.split())
    at_the_bounds = ReasoningFilterSettings(min_words=words, max_words=words)
    assert refusal(GOOD, True, QUESTION, REFERENCE, at_the_bounds) is None
    assert refusal(GOOD, True, QUESTION, REFERENCE, ReasoningFilterSettings(min_words=words + 1)) == "too_short"
    assert refusal(GOOD, True, QUESTION, REFERENCE, ReasoningFilterSettings(min_words=1, max_words=words - 1)) == "too_long"


def test_what_the_question_says_is_no_quotation() -> None:
    reference = "A QRS of 140 ms with a broad R in V6 is bundle branch block."
    assert not quotes("A QRS of 140 ms with a broad R in V6 was given.", QUESTION, reference, 4)
    assert quotes("A QRS of 140 ms with a broad R in V6 was given.", "", reference, 4)


@pytest.mark.parametrize("reference", ["No.", "II, III and aVF", "120 ms"])
def test_a_short_reference_must_not_stand_in_the_reasoning_at_all(reference: str) -> None:
    assert quotes(f"We look at it and say {reference.upper()} at once", QUESTION, reference, 4)
    assert not quotes("We look at it and say nothing at once", QUESTION, reference, 4)


def test_a_number_of_the_reference_tells_the_answer() -> None:
    question, reference = (
        "Which QRS duration at 80 beats is wide?",
        "At 80 beats as at any other, 120 ms; 110.5 ms is borderline.",
    )
    for text, told in [
        ("At least 120 ms", True),
        ("110.5 or so", True),
        ("At 80 beats", False),
        ("That is 0.120 s", True),
        ("1200 ms, 0.12 ms, V120", False),
    ]:
        assert names_a_number(text, question, reference) is told, text


def test_nothing_is_named_of_a_reference_that_the_question_has_told() -> None:
    assert named_share("Anything", "Is it left bundle branch block?", "It is left bundle branch block.") == 0


@given(st.text(max_size=80), st.booleans(), st.text(max_size=80), st.text(max_size=80))
def test_any_text_is_judged(reasoning: str, ended: bool, question: str, reference: str) -> None:
    found = refusal(reasoning, ended, question, reference, FILTER)
    if found is None:
        assert ended
        assert not has_tag(reasoning)
        assert FILTER.min_words <= len(reasoning.split()) <= FILTER.max_words


RECORDS = [
    {"context": "", "question": record.question, "answer": record.answer}
    for file in find_raw_files(SAMPLE)
    for record in read_records(file)
]


def test_the_bounds_tell_the_answer_in_other_words_from_other_answers() -> None:
    """What the defaults were set by; docs/reasoning.md has the figures."""
    settings = ReasoningFilterSettings()

    def told(text: str, record: dict) -> bool:
        texts = (text, record["question"], record["answer"])
        return (
            quotes(*texts, settings.max_quoted_words)
            or names_a_number(*texts)
            or named_share(*texts) > settings.max_named_share
        )

    paraphrases = [(paraphrase(record["answer"], record["question"]), record) for record in RECORDS]
    found = [told(text, record) for text, record in paraphrases if text is not None]
    assert len(found) >= 0.9 * len(RECORDS)
    assert sum(found) >= 0.99 * len(found)
    others, asked = RECORDS[::2], RECORDS[1::2]
    nearest = nearest_training_answers(others, asked)
    assert sum(told(text, record) for text, record in zip(nearest, asked, strict=True)) <= 0.06 * len(asked)


def test_of_a_record_s_good_ones_only_the_best_is_kept() -> None:
    samples = [Sample(0, "a"), Sample(0, "b"), Sample(0, "c", "too_short"), Sample(1, "d"), Sample(2, "e"), Sample(0, "f")]
    chosen = choose(samples, {0: 0.1, 1: 0.3, 3: 0.0, 4: -1.0, 5: 0.3}, min_gain=0.0)
    assert [sample.outcome for sample in chosen] == ["second_best", "kept", "too_short", "no_gain", "no_gain", "second_best"]
    assert [sample.gain for sample in chosen] == [0.1, 0.3, None, 0.0, -1.0, 0.3]
    assert [sample.text for sample in chosen] == [sample.text for sample in samples]
    records = [{"id": f"r{place}", "question": "?", "answer": "!"} for place in range(3)]
    counted = account(chosen, records, in_split=7)
    assert counted["records"] == {"in_split": 7, "asked": 3, "kept": 1}
    assert sum(counted["samples"].values()) == len(samples)
    assert counted["samples"]["no_gain"] == 2
    assert counted["gain"]["kept"]["mean"] == 0.3
    assert counted["gain"]["scored"]["least"] == -1.0
    assert [example["id"] for example in counted["examples"]["no_gain"]] == ["r1", "r2"]
    assert [example["reasoning"] for example in counted["examples"]["second_best"]] == ["a"], "one of a record is enough"


def test_a_reasoning_must_beat_none_and_a_stranger_s() -> None:
    samples = [
        Sample(0, "a", "tags"),
        Sample(0, "b"),
        Sample(0, "c"),
        *(Sample(record, f"of {record}") for record in (1, 3, 4)),
    ]
    strangers = {0: "of 3", 1: "of 4", 3: "b", 4: "of 1"}
    assert texts_to_beat(samples) == {record: ("", EMPTY_WORDS, text) for record, text in strangers.items()}
    assert texts_to_beat(samples[:3]) == {0: ("", EMPTY_WORDS, EMPTY_WORDS)}
    assert texts_to_beat(samples[:1]) == {}


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-3, 3)), max_size=20), st.floats(-1, 1))
def test_nothing_is_kept_that_does_not_help(drawn: list[tuple[int, float]], min_gain: float) -> None:
    samples = [Sample(record, "text") for record, _ in drawn]
    chosen = choose(samples, {place: gain for place, (_, gain) in enumerate(drawn)}, min_gain)
    kept = [sample for sample in chosen if sample.outcome == "kept"]
    assert max(Counter(sample.record for sample in kept).values(), default=1) == 1
    helped = {record for record, gain in drawn if gain > min_gain}
    assert {sample.record for sample in kept} == helped
    for sample in kept:
        assert sample.gain == max(gain for record, gain in drawn if record == sample.record)


def test_the_prompt_shows_question_and_answer_as_they_are(tmp_path: Path) -> None:
    prompt = BootstrapPrompt(ROOT / "resources/prompts/bootstrap_reasoning.txt")
    history = [("Which rhythm?", "Atrial fibrillation.")]
    asked = build_prompt("SYSTEM", "A patient of 60.", "What costs $answer?", history)
    (message,) = prompt.messages(asked, "It costs $5, $question.")
    assert message["role"] == "user"
    for text in ("A patient of 60.", "Atrial fibrillation.", "What costs $answer?", "It costs $5, $question."):
        assert message["content"].count(text) == 1
    assert "SYSTEM" not in message["content"]


@pytest.mark.parametrize("text", ["$question", "$question $answer $more", "$question $answer 5 $"])
def test_a_prompt_with_other_placeholders_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text(text)
    with pytest.raises(InputError, match=r"prompt\.txt: must have \$question and \$answer"):
        BootstrapPrompt(file)


def test_sft_learns_the_records_with_a_reasoning_and_refuses_too_few() -> None:
    records = [{"id": name, "prompt": [], "answer": f"answer {name}"} for name in "abc"]
    examples = reasoned_examples(Path("some.parquet"), records, {"c": "why c", "a": "why a"}, fewest=2)
    assert [example["completion"][0]["content"] for example in examples] == [
        "<think>\nwhy a\n</think>\n<answer>\nanswer a\n</answer>",
        "<think>\nwhy c\n</think>\n<answer>\nanswer c\n</answer>",
    ]
    with pytest.raises(InputError, match=r"some\.parquet: 2 of 3 records have a reasoning, at least 3 must"):
        reasoned_examples(Path("some.parquet"), records, {"c": "why c", "a": "why a"}, fewest=3)


def test_impossible_bounds_are_refused() -> None:
    with pytest.raises(InputError, match=r"min_words \(9\) must not be more than max_words \(8\)"):
        BootstrapSettings.from_json(json.dumps({"filter": {"min_words": 9, "max_words": 8}}))
