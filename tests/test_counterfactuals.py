"""Each change makes an answer wrong in its one respect; a paraphrase keeps sides and numbers."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest
from conftest import SAMPLE
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from ecg_grpo import counterfactuals
from ecg_grpo.counterfactuals import ANTONYMS, COUNTERFACTUALS, TURNED, TURNED_BEHIND, paraphrase
from ecg_grpo.errors import InputError
from ecg_grpo.lexicon import load_lexicon
from ecg_grpo.polarity import OPPOSITES, stances
from ecg_grpo.quantities import _AFTER, _DIRECTIONS, number_agreement, quantities

ROWS = [row for file in sorted(SAMPLE.glob("*.json")) for row in json.loads(file.read_text("utf-8"))]
PAIRS = [(row.get("A") or row["Answer"], row.get("Q") or row["Question"]) for row in ROWS]
CHANGES = {**{name: found.change for name, found in COUNTERFACTUALS.items()}, "paraphrase": paraphrase}
LEX = load_lexicon()


def _change(name: str, answer: str, question: str = "") -> str | None:
    return CHANGES[name](answer, question)


def test_the_order_is_fixed() -> None:
    assert list(COUNTERFACTUALS) == ["polarity", "numbers", "direction", "side", "lead", "drug", "disease"]


@pytest.mark.parametrize(
    ("name", "answer", "expected"),
    [
        ("polarity", "Yes, the PR interval is prolonged.", "No, the PR interval is shortened."),
        ("polarity", "No ST elevation.", "ST elevation."),
        ("polarity", "No-reflow follows.", "No-reflow does not follow."),
        ("polarity", "An elevated potassium is found.", "A reduced potassium is found."),
        ("polarity", "It is a normal finding.", "It is an abnormal finding."),
        ("polarity", "Surgery can cure it.", "Surgery cannot cure it."),
        ("polarity", "It is not a block.", "It is a block."),
        ("polarity", "This suggests pericarditis.", "This does not suggest pericarditis."),
        ("polarity", "Pericarditis.", "Not pericarditis."),
        ("polarity", "V1 to V3.", "Not V1 to V3."),
        ("polarity", "60–100.", None),
        ("numbers", "V1, S1Q3T3 and a 12-lead ECG.", None),
        ("direction", "It lasts at least 120 ms.", "It lasts at most 120 ms."),
        ("direction", "A QRS ≥0.12 s or below 60 bpm", "A QRS ≤0.12 s or above 60 bpm"),
        ("direction", "beyond about 300 ms", "within about 300 ms"),
        ("direction", "65 years or older", "65 years or younger"),
        ("direction", "greater than or equal to 2 mm", "less than or equal to 2 mm"),
        ("direction", "above the valve", None),
        ("side", "the left ventricle", "the right ventricle"),
        ("side", "from right to left", "from left to right"),
        ("side", "an anterior and a posterior infarct", "an inferior and an anterior infarct"),
        ("side", "RBBB with a systolic murmur", "LBBB with a diastolic murmur"),
        ("side", "You have the right to refuse.", None),
        ("side", "left and right arms", "left and right legs"),
        ("side", "The dose was left to them, and all right.", None),
        ("side", "Drugs lower the risk.", None),
        ("lead", "Syncope, NYHA class II, and I agree.", None),
        ("lead", "V2 receptor antagonists", None),
        ("drug", "Rest.", None),
        ("disease", "Rest.", None),
        ("paraphrase", "Zzz.", None),
    ],
)
def test_examples(name: str, answer: str, expected: str | None) -> None:
    assert _change(name, answer) == expected


@pytest.mark.parametrize(
    "answer", ["Leads II, III and aVF.", "Seen in V1–V4.", "It is best in lead II.", "V1 to V6, I and aVL"]
)
def test_leads_are_replaced_by_others(answer: str) -> None:
    changed = _change("lead", answer)
    assert changed is not None
    before, after = (set(re.findall(r"\b(?:aV[RLF]|V\d|I{1,3})\b", text)) for text in (answer, changed))
    assert after
    assert not before & after or answer.startswith("V1 to V6")


def test_a_drug_becomes_one_of_another_class_and_keeps_its_number() -> None:
    for number in range(50):
        changed = _change("drug", "Start amiodarone or beta blockers.", f"Is digoxin used? {number}")
        assert changed is not None
        (one, *_), (other, *_) = LEX.find(changed)
        assert LEX.concepts[one].drug_class not in {None, "class III antiarrhythmic", "cardiac glycoside", "beta blocker"}
        assert LEX.concepts[other].kind == "drug class"
        assert other not in {"class III antiarrhythmic", "cardiac glycoside", "beta blocker"}
        assert changed.endswith("s.")


def test_a_disease_becomes_another_that_the_question_does_not_name() -> None:
    for number in range(50):
        changed = _change("disease", "It is due to pericarditis.", f"Is it myocarditis or RBBB? {number}")
        assert changed is not None
        ((name, *_),) = LEX.find(changed)
        assert LEX.concepts[name].kind == "disease"
        assert name not in {"pericarditis", "myocarditis"}


def test_of_two_diseases_the_one_that_the_question_does_not_name_is_exchanged() -> None:
    changed = _change("disease", "Pericarditis resembles aortic dissection.", "What is pericarditis like?")
    assert changed is not None
    assert changed.startswith("Pericarditis resembles ")
    assert "aortic dissection" not in changed


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("It lasts 0.12 s.", "120 ms"),
        ("It lasts 120–200 ms.", "0.12–0.2 s"),
        ("It lasts 120 to 200 ms.", "0.12 to 0.2 s"),
        ("Seen in MI.", "myocardial infarction"),
        ("Seen in PVCs.", "premature ventricular complexes"),
        ("In men with fatigue and syncope.", "and fatigue|and tiredness"),
        ("This is due to scar.", "because of"),
    ],
)
def test_paraphrases(answer: str, expected: str) -> None:
    assert re.search(expected, paraphrase(answer, "") or "")


def test_opposites_are_all_mapped_to_the_other_side_of_their_pair() -> None:
    sides = {word: (name, side) for name, pair in OPPOSITES.items() for side in (0, 1) for word in pair[side].split("|")}
    assert set(ANTONYMS) == set(sides)
    for word, other in ANTONYMS.items():
        before = {sides[word][0]: 1 - 2 * sides[word][1]}
        assert stances(f"It is {word}") == before
        assert all(stances(f"It is {other}").get(name) in {None, -side} for name, side in before.items()), word


def test_every_comparison_that_quantities_reads_has_its_opposite() -> None:
    assert set(TURNED) - {"not exceed", "without exceeding"} == set(_DIRECTIONS)
    assert set(TURNED_BEHIND) == set(_AFTER)
    for phrase in (*TURNED, "no less than", "not more than", "no fewer than", "not exceeding"):
        (before,), (after,) = quantities(f"a {phrase} 7 ms"), quantities(_change("direction", f"a {phrase} 7 ms") or "")
        assert {before.direction, after.direction} == {"<", ">"}
    for phrase in TURNED_BEHIND:
        (before,), (after,) = quantities(f"7 ms {phrase}"), quantities(_change("direction", f"7 ms {phrase}") or "")
        assert {before.direction, after.direction} == {"<", ">"}


# what must hold of any answer and its changed text


def _check(name: str, answer: str, question: str) -> None:
    changed = _change(name, answer, question)
    assert changed == _change(name, answer, question)
    if changed is None:
        return
    assert changed != answer
    if name == "polarity":
        taken = stances(changed)
        assert all(taken.get(side) != value for side, value in stances(answer).items()), changed
    elif name == "numbers":
        assert quantities(changed)
        assert not any(old.agrees_with(new) for old in quantities(answer) for new in quantities(changed)), changed
    elif name == "paraphrase":
        assert stances(changed) == stances(answer), changed
        assert number_agreement(changed, answer) in {None, 1}, changed
        assert number_agreement(answer, changed) in {None, 1}, changed


@pytest.mark.parametrize("name", CHANGES)
def test_sample_answers(name: str) -> None:
    for answer, question in PAIRS:
        _check(name, answer, question)


def test_every_side_that_a_sample_answer_takes_is_turned() -> None:
    with_a_side = [(answer, question) for answer, question in PAIRS if stances(answer)]
    assert len(with_a_side) > 200
    assert all(_change("polarity", *pair) for pair in with_a_side)


def test_every_number_of_the_sample_is_changed() -> None:
    with_numbers = [(answer, question) for answer, question in PAIRS if quantities(answer)]
    assert len(with_numbers) > 150
    assert all(_change("numbers", *pair) for pair in with_numbers)


def test_ranges_stay_in_order_and_whole_numbers_whole() -> None:
    for number in range(30):
        changed = _change("numbers", "Between 60 and 100 bpm, 0.12–0.20 s, 3 leads.", str(number)) or ""
        low, high, short, long, count = map(float, re.findall(r"\d+(?:\.\d+)?", changed))
        assert low < high
        assert short < long
        assert {low, high, count} == {int(low), int(high), int(count)}
        assert 1.4 * 60 <= low <= 2.6 * 60


def test_a_percentage_stays_below_100() -> None:
    assert all(quantities(_change("numbers", "It is 80%.", str(number)) or "")[0].high <= 100 for number in range(20))


def test_every_direction_of_the_sample_is_turned() -> None:
    for answer, question in PAIRS:
        if any(found.direction != "=" for found in quantities(answer)):
            before, after = quantities(answer), quantities(_change("direction", answer, question) or "")
            turned = {"<": ">", ">": "<", "=": "="}
            assert sorted(turned[found.direction] for found in before) == sorted(found.direction for found in after) or any(
                word in answer for word in ("about", "roughly", "approximately")
            ), answer


def test_paraphrases_of_the_sample_differ_clearly_and_apply_to_most() -> None:
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    changed = [(answer, text) for answer, question in PAIRS if (text := paraphrase(answer, question))]
    assert len(changed) >= 0.9 * len(PAIRS)
    assert 0.6 <= median(scorer.score(answer, text)["rougeL"].fmeasure for answer, text in changed) <= 0.85


def test_enough_sample_answers_are_changed() -> None:
    counts = {name: sum(_change(name, *pair) is not None for pair in PAIRS) for name in COUNTERFACTUALS}
    assert counts["polarity"] > 0.99 * len(PAIRS)
    assert min(counts.values()) >= 30


WORDS = [
    *(word for pair in OPPOSITES.values() for side in pair for word in side.split("|")),
    *(variant for name in LEX.concepts for variant in LEX.variants_of(name)),
    *counterfactuals._synonyms(),
    *TURNED, *TURNED_BEHIND,
    *"Yes, No, No Yes not no without is are can cannot doesn't A a An an the left right or to in and".split(),
    *"leads II III I V1 V1-V4 aVF".split(),
    *"120 ms|0.12 s|60-100 bpm|2:1|-30°|three days|50%|1,200 mg|1-2|0|0.0|2018|38 °C|. The|; a|, and|12-lead".split("|"),
]  # fmt: skip
TEXTS = st.one_of(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=14).map(" ".join),
    st.text(max_size=40),
    st.text(alphabet=st.sampled_from("0123456789 .,:-–/%+()≥<msVIi\u017f\u212a°and"), max_size=40),
)


@pytest.mark.parametrize("name", CHANGES)
@given(answer=TEXTS, question=TEXTS)
@settings(max_examples=120, deadline=None)
def test_any_texts(name: str, answer: str, question: str) -> None:
    _check(name, answer, question)


@given(
    answer=TEXTS,
    more=st.sampled_from(["9" * 5000, "9" * 5000 + ":1", "\u017fix ms", "1 m\u017f", "\ud800", "\u0130 min", "k\u212aHz"]),
)
@settings(max_examples=60, deadline=None)
def test_odd_texts_do_no_harm(answer: str, more: str) -> None:
    for change in CHANGES.values():
        change(f"{answer} {more}", answer)


@pytest.mark.parametrize("content", ["a: [b", "a: b\nA: c", "a: ''", "- a", "", "a: {b: c}", "a: [[b]]"])
def test_a_bad_file_of_synonyms_is_refused_with_its_place(tmp_path: Path, content: str) -> None:
    file = tmp_path / "synonyms.yaml"
    file.write_text(content)
    with pytest.raises(InputError, match=re.escape(str(file))):
        counterfactuals._synonyms(file)


def test_no_synonym_is_its_own() -> None:
    for phrase, others in counterfactuals._synonyms().items():
        assert phrase not in map(str.lower, others)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("It lasts 120 ms.", "It takes 0.12 s.", True),
        ("It lasts 120 ms.", "It lasts.", False),
        ("It lasts.", "It lasts 120 ms.", False),
        ("It is long.", "It is.", False),
        ("It is.", "It is long.", False),
    ],
)
def test_what_a_paraphrase_must_keep(one: str, other: str, same: bool) -> None:
    assert counterfactuals._says_the_same(one, other) is same


def test_a_side_that_stays_is_not_turned() -> None:
    assert not counterfactuals._is_turned("It is long and high.", "It is short and high.")
    assert counterfactuals._is_turned("It is long and high.", "It is short.")


def test_consecutive_answers_draw_differently() -> None:
    drawn = [_change("disease", "It is pericarditis.", str(number)) for number in range(10)]
    assert any(one != other for one, other in pairwise(drawn))
