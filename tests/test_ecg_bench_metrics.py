"""The benchmarks' figures against values worked out by hand, values of their own code, and independent computations."""

from __future__ import annotations

import json
import math
import string
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from test_metrics import independent_rouge_l, ngrams, random_pairs

from ecg_grpo.ecg_bench_metrics import (
    PROFILES,
    Answered,
    accuracy,
    bleu,
    meteor,
    rouge_l,
    set_rouge_1,
    set_rouge_2,
    set_rouge_l,
    token_f1,
)
from ecg_grpo.tables import ANSWERS, write_table
from score_as_ecg_bench import answered


def spoken_pairs() -> list[tuple[str, str]]:
    """200 random pairs with full stops, some of them in the middle of a number or beside spaces."""
    return [
        tuple(" ".join(f"{word}{'.' * (place % 4 == turn)}" for place, word in enumerate(text.split())) for text in pair)
        for turn, pair in enumerate(random_pairs(200), start=-100)
        for turn in [turn % 5]
    ]


def independent_bleu(pairs: list[tuple[str, str]]) -> float:
    """Papineni et al. 2002 over the corpus; a precision without a match counts 0.1 matches."""
    logs = []
    for order in range(1, 5):
        shared = possible = 0
        for prediction, reference in pairs:
            grams = ngrams(prediction.split(), order)
            shared += (grams & ngrams(reference.split(), order)).total()
            possible += max(1, grams.total())  # as nltk counts an answer too short for an n-gram
        logs.append(math.log((shared or 0.1) / possible))
    length, expected = (sum(len(pair[side].split()) for pair in pairs) for side in (0, 1))
    return math.exp(sum(logs) / 4 + min(0.0, 1 - expected / length))


def independent_token_f1(prediction: str, reference: str) -> float:
    one, other = (
        Counter("".join(char for char in text.lower() if char not in string.punctuation).split())
        for text in (prediction, reference)
    )
    precision, recall = ((one & other).total() / max(1, side.total()) for side in (one, other))
    return 2 * precision * recall / (precision + recall) if precision else float(not one and not other)


def independent_set_rouge(prediction: str, reference: str) -> tuple[float, float, float]:
    """The package rouge by its definition: a recursion where the project has a table."""
    given, expected = ([part.split() or [""] for part in text.split(".") if part != ""] for text in (prediction, reference))

    @cache
    def lcs(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
        if not one or not other:
            return ()
        if one[-1] == other[-1]:
            return (*lcs(one[:-1], other[:-1]), one[-1])
        first, second = lcs(one[:-1], other), lcs(one, other[:-1])
        return first if len(first) > len(second) else second

    def f(left: set, right: set, shared: int) -> float:
        precision, recall = (shared / len(side) if side else 0.0 for side in (left, right))
        return 2 * precision * recall / (precision + recall + 1e-8)

    words = [[word for sentence in side for word in sentence] for side in (given, expected)]
    grams = [[set(ngrams(side, order)) for side in words] for order in (1, 2)]
    union = set().union(*(lcs(tuple(one), tuple(other)) for one in expected for other in given))
    return (
        *(f(left, right, len(left & right)) for left, right in grams),
        f(set(words[0]), set(words[1]), len(union)),
    )


def test_the_package_rouge_s_own_values() -> None:
    """What rouge 1.0.1's functions return for these pairs."""
    expected = {
        ("The QRS is wide. The axis is left.", "The QRS complex is wide. Left axis."): (
            *(0.7692307642603551, 0.3076923027218935, 0.7692307642603551),
        ),
        ("Leads II, III and aVF. Yes. yes", "Yes. Leads II, III and aVF"): (
            *(0.9230769181065088, 0.7272727223140496, 0.9230769181065088),
        ),
        ("0.12 s or more.", "At least 0.12 s."): (0.5999999950000001, 0.4999999950000001, 0.5999999950000001),
    }
    for pair, values in expected.items():
        assert (set_rouge_1([pair]), set_rouge_2([pair]), set_rouge_l([pair])) == pytest.approx(values, abs=1e-15)


def test_200_random_pairs_agree_with_an_independent_computation() -> None:
    pairs = spoken_pairs()
    assert sum("." in prediction for prediction, _ in pairs) > 100
    assert bleu(pairs) == pytest.approx(independent_bleu(pairs), abs=1e-12)
    assert bleu(pairs[:1]) == pytest.approx(independent_bleu(pairs[:1]), abs=1e-12), "smoothed"
    for pair in pairs:
        found = (set_rouge_1([pair]), set_rouge_2([pair]), set_rouge_l([pair]))
        assert found == pytest.approx(independent_set_rouge(*pair), abs=1e-12)
        assert token_f1([pair]) == pytest.approx(independent_token_f1(*pair), abs=1e-12)
        assert rouge_l([pair]) == pytest.approx(independent_rouge_l(*pair), abs=1e-9)
    single = [set_rouge_l([pair]) for pair in pairs]
    assert set_rouge_l(pairs) == pytest.approx(sum(single) / 200)
    assert len({round(value, 6) for value in single}) > 40, "or the pairs show nothing"


@given(prediction=st.text("ab .\n", max_size=12), reference=st.text("ab .\n", min_size=1, max_size=12))
@settings(max_examples=300, deadline=None)
def test_odd_texts_agree_too(prediction: str, reference: str) -> None:
    pair = (prediction.strip(), reference.strip())
    if all(pair):
        found = (set_rouge_1([pair]), set_rouge_2([pair]), set_rouge_l([pair]))
        assert found == pytest.approx(independent_set_rouge(*pair), abs=1e-12)
        assert token_f1([pair]) == pytest.approx(independent_token_f1(*pair), abs=1e-12)


def test_by_hand() -> None:
    pairs = [("wide qrs complex", "the wide qrs complex"), ("Yes.", "Yes."), ("yes.", "Yes.")]
    assert accuracy(pairs) == pytest.approx(1 / 3), "case counts"
    # Words 3 of 3, 1 of 1 and 0 of 1; pairs of words 2 of 2 + 1 + 1; three in a row 1 of 1 + 1 + 1; four none of 1 + 1 + 1.
    precisions = (4 / 5, 2 / 4, 1 / 3, 0.1 / 3)
    assert bleu(pairs) == pytest.approx(math.exp(1 - 6 / 5) * math.prod(precisions) ** 0.25)
    assert token_f1([("The QRS, wide!", "qrs is wide")]) == pytest.approx(2 * 2 / 6), "the article counts"
    assert token_f1([("!", "?")]) == 1, "nothing is left of both"
    assert token_f1([("", "qrs")]) == 0
    # Words split at spaces: `qrs.` is not `qrs`. Two of three words match exactly, in one chunk; then one by its stem too.
    assert meteor([("a wide qrs.", "a wide qrs")]) == pytest.approx(2 / 3 * (1 - 0.5 * (1 / 2) ** 3))
    assert meteor([("Paced leads", "pacing lead")]) == pytest.approx(1 - 0.5 * (1 / 2) ** 3)
    # Word sets {a, b} and {a, b, c}; what stands twice counts once.
    assert set_rouge_1([("a a b", "a b c")]) == pytest.approx(2 * 1 * (2 / 3) / (5 / 3))
    assert set_rouge_2([("a b. b c", "a b b")]) == pytest.approx(2 * 2 / (3 + 2)), "pairs reach over a full stop"
    # a of the first sentence and b of the second: sentences are matched each with each.
    assert set_rouge_l([("b. a", "a b")]) == pytest.approx(1)
    assert set_rouge_l([("b a", "a b")]) == pytest.approx(0.5)
    assert set_rouge_l([("...", "a b")]) == 0


def test_what_each_profile_drops() -> None:
    answers = [Answered(" yes ", "yes\n"), Answered("  ", "no"), Answered("no", "")]
    first = PROFILES["ecg_bench"].figures(answers)
    assert (first["records"], first["dropped"], first["accuracy"]) == (1, 2, 1.0)
    second = PROFILES["ecg_language_models"].figures(answers)
    assert (second["records"], second["dropped"], second["accuracy"]) == (2, 1, 0.5)
    assert second["f1"] == second["rouge_l"] == 0.5
    assert second["thinking"] is None
    for profile in PROFILES.values():
        nothing = profile.figures([Answered("x", "")])
        assert {nothing[name] for name in profile.measures} == {0.0}
        assert (nothing["records"], nothing["dropped"]) == (0, 1)


def test_thinking_is_scored_where_the_reference_reasons() -> None:
    answers = [
        answered("left", "the axis is left", "<think>the axis is left</think><answer>left</answer>"),
        answered("left", None, "<think>wide</think>left"),
        answered("right", "the axis", "right"),
    ]
    found = PROFILES["ecg_language_models"].figures(answers)
    assert (found["records"], found["accuracy"]) == (3, 1.0)
    assert (found["thinking"]["records"], found["thinking"]["accuracy"], found["thinking"]["f1"]) == (2, 0.5, 0.5)
    assert "thinking" not in PROFILES["ecg_bench"].figures(answers)


def test_every_profile_says_what_its_figures_are() -> None:
    for profile in PROFILES.values():
        assert profile.labels.keys() == profile.measures.keys()
        assert "no synonyms" in profile.note
    assert "BERTScore is left out" in PROFILES["ecg_bench"].note
    assert all("as package rouge" in label for name, label in PROFILES["ecg_bench"].labels.items() if "rouge" in name)


def command(files: list[Path], figures: Path) -> list[str]:
    program = str(ROOT / "workflow_scripts/score_as_ecg_bench.py")
    return [sys.executable, program, "--answers", *map(str, files), "--figures", str(figures)]


def write_answers(file: Path, predictions: list[str]) -> Path:
    rows = [
        {"id": str(number), "prediction": prediction, "reasoning": None, "answer": "The QRS is wide."}
        for number, prediction in enumerate(predictions)
    ]
    write_table(file, rows, ANSWERS, {})
    return file


def test_the_program(tmp_path: Path) -> None:
    files = [
        write_answers(tmp_path / "echo/answers.parquet", ["", "The QRS is wide."]),
        write_answers(tmp_path / "sft/answers.parquet", ["A QRS.", "wide"]),
    ]
    provenance = tmp_path / "provenance.json"
    subprocess.run([*command(files, tmp_path / "figures.json"), "--provenance", str(provenance)], check=True)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures.keys() == PROFILES.keys()
    for name, profile in figures.items():
        assert profile.keys() == {"source", "note", "metrics", "systems"}
        assert profile["systems"].keys() == {"echo", "sft"}
        for found in profile["systems"].values():
            assert all(isinstance(found[metric], float) for metric in profile["metrics"])
        assert profile["systems"]["echo"]["dropped"] == (name == "ecg_bench")
    assert figures["ecg_bench"]["systems"]["echo"]["accuracy"] == 1
    assert figures["ecg_language_models"]["systems"]["echo"]["accuracy"] == 0.5
    assert len(json.loads(provenance.read_text())["inputs"]) == 2


def test_a_file_that_is_no_table_is_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "sft/answers.parquet"
    bad.parent.mkdir()
    bad.write_text("no parquet")
    refused = subprocess.run(command([bad], tmp_path / "figures.json"), capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith("score_as_ecg_bench: error:")
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "figures.json").exists()
