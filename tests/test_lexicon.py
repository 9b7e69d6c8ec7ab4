"""The lexicon is well formed, and texts that name the same concept in other words fold to the same."""

from __future__ import annotations

import json
import re
import timeit
from pathlib import Path

import pytest
from conftest import SAMPLE
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_grpo.errors import InputError
from ecg_grpo.lexicon import LEXICON, is_exact, load_lexicon, plural

LEX = load_lexicon()
TERMS = [variant for name in LEX.concepts for variant in LEX.variants_of(name)]


def test_there_are_250_concepts_of_many_kinds() -> None:
    assert len(LEX.concepts) >= 250
    assert {"finding", "disease", "lead", "wave", "interval", "drug", "drug class", "procedure", "structure", "symptom",
            "laboratory", "vessel"} <= {concept.kind for concept in LEX.concepts.values()}  # fmt: skip


def test_every_term_is_found_as_its_own_concept() -> None:
    for name in LEX.concepts:
        for variant in LEX.variants_of(name):
            assert LEX.find(variant) == [(name, 0, len(variant))], variant


def test_no_term_is_written_twice() -> None:
    written = [(term if is_exact(term) else term.lower()) for term in TERMS]
    assert sorted({term for term in written if written.count(term) > 1}) == []


def test_tokens_are_letters_and_underscores() -> None:
    assert all(re.fullmatch(r"c(_[a-z]+)+", concept.token) for concept in LEX.concepts.values())
    assert LEX.concepts["lead V1"].token == "c_lead_v_one"


def test_every_drug_has_a_class_that_is_a_concept() -> None:
    drugs = [concept for concept in LEX.concepts.values() if concept.kind == "drug"]
    assert len(drugs) >= 50
    for concept in drugs:
        assert concept.drug_class is not None
        assert LEX.concepts[concept.drug_class].kind in {"drug class", "other drug class"}, concept.name
    assert LEX.concepts["amiodarone"].drug_class == "class III antiarrhythmic"


@pytest.mark.parametrize("term", "AS AR MR MS TR PR PE AT AVR HR LA RA MRA PDA PH RAD UA CHD CVD I II III".split())
def test_ambiguous_abbreviations_stay(term: str) -> None:
    assert LEX.find(f"It is {term}.") == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("an MI", "a heart attack"),
        ("MIs", "myocardial infarctions"),
        ("the LAD", "the left anterior descending coronary artery"),
        ("RBBB", "right bundle-branch block"),
        ("AF", "a-fib"),
        ("EKG", "electrocardiogram"),
        ("VPCs", "ventricular extrasystoles"),
        ("premature ventricular contraction", "PVC"),
        ("β-blockers", "beta blocker"),
        ("Beta-Blockers", "beta blocker"),
        ("WPW syndrome", "Wolff–Parkinson–White syndrome"),
        ("ST-segment elevation", "ST elevation"),
        ("stemi", "ST-elevation myocardial infarction"),
        ("hyperkalemia", "hyperkalaemia"),
        ("TIAs", "transient ischemic attacks"),
        ("Dressler’s syndrome", "Dressler syndrome"),
        ("cardiomyopathies", "heart muscle diseases"),
    ],
)
def test_other_words_for_the_same_fold_to_the_same(one: str, other: str) -> None:
    assert re.sub("^an? |^the ", "", LEX.fold(one)) == re.sub("^an? |^the ", "", LEX.fold(other))


@pytest.mark.parametrize(
    "text",
    ["mi amigo", "pea soup", "tdp", "avl", "stroke volumes", "familiar", "a ramified tree", "the LADder", "", "²", "can CAD-"],
)
def test_what_only_looks_like_a_term_is_another_word(text: str) -> None:
    assert not re.search("infarction|pulseless|torsades|lead|c_stroke$|c_stroke |descending", LEX.fold(text))


def test_the_longest_term_counts() -> None:
    assert LEX.fold("left bundle branch block") == "c_left_bundle_branch_block"
    assert LEX.fold("non-ST-elevation MI, then MI") == "c_non_st_elevation_myocardial_infarction, then c_myocardial_infarction"


def test_a_comma_or_slash_ends_a_term() -> None:
    assert LEX.fold("heart, failure") == "heart, failure"
    assert LEX.fold("chest/pain") == "chest/pain"
    assert LEX.fold("sacubitril/valsartan") == "c_sacubitril_valsartan"


TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from([*TERMS, "the", "acute", "-", ",", "left", "s", "c_lead", "ST", "segment"]), max_size=12).map(
        " ".join
    ),
)


@given(TEXTS)
@settings(max_examples=300, deadline=None)
def test_folding_twice_changes_nothing_more(text: str) -> None:
    once = LEX.fold(text)
    assert LEX.fold(once) == once


@given(TEXTS)
@settings(deadline=None)
def test_finds_are_in_order_and_apart(text: str) -> None:
    last = 0
    for name, start, end in LEX.find(text):
        assert last <= start < end <= len(text)
        assert name in LEX.concepts
        last = end


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ("disease: {a: [b", "YAML"),
        ("disease: {one: [MI], other: [mi]}", "other"),
        ("disease: {one: [x, one two]}\nfinding: {x: []}", "x"),
        ("disease: {one: ['']}", "one"),
        ("disease: {'': [a]}", "disease"),
        ("disease: {one: [a]}\ndisease: {other: [b]}", "disease"),
        ("disease: {one: a}", "one"),
        ("- a", "keys"),
        ("", "keys"),
    ],
)
def test_a_bad_file_is_refused_with_its_place(tmp_path: Path, content: str, key: str) -> None:
    file = tmp_path / "lexicon.yaml"
    file.write_text(content)
    with pytest.raises(InputError) as refusal:
        load_lexicon(file)
    assert str(file) in str(refusal.value)
    assert key in str(refusal.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none"):
        load_lexicon(tmp_path / "none.yaml")


def test_the_lexicon_is_read_once() -> None:
    assert load_lexicon() is load_lexicon(LEXICON)


@pytest.mark.parametrize(
    ("one", "many"), [("MI", "MIs"), ("biopsy", "biopsies"), ("pulse", "pulses"), ("complex", "complexes")]
)
def test_plurals(one: str, many: str) -> None:
    assert plural(one) == many


def test_folding_is_fast() -> None:
    answers = [
        row.get("A") or row["Answer"] for file in sorted(SAMPLE.glob("*.json")) for row in json.loads(file.read_text("utf-8"))
    ]
    words = sum(len(answer.split()) for answer in answers)
    seconds = min(timeit.repeat(lambda: [LEX.fold(answer) for answer in answers], number=1, repeat=5))
    assert seconds / words * 60 < 1e-3  # about a tenth of it on a free core; the margin is for shared ones
