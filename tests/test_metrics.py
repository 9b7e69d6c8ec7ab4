"""Metrics against published values, values worked out by hand, and independent computations on random pairs."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.stem import PorterStemmer
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from ecg_grpo.metrics import METRICS, exact_match, length_ratio, meteor, rouge_1, rouge_l, token_f1, words
from ecg_grpo.prompts import take_apart
from ecg_grpo.rewards import REWARDS

VOCABULARY = (
    "the a qrs complex wide wider narrow lead leads V1 aVF pace paced pacing block blocks ST elevation elevated of in is are "
    "not normal abnormal 120 ms 0.12 s yes no infarction ischaemia axis left right bundle branch atrial flutter rate above"
).split()


def random_pairs(number: int = 200) -> list[tuple[str, str]]:
    """Predictions and references of 1 to 25 words, half of them made from each other."""
    generator, pairs = random.Random(0), []
    for index in range(number):
        reference = generator.choices(VOCABULARY, k=generator.randint(1, 25))
        prediction = generator.choices(VOCABULARY, k=generator.randint(1, 25))
        if index % 2:
            prediction = [word if generator.random() < 0.7 else generator.choice(VOCABULARY) for word in reference]
            generator.random() < 0.3 and generator.shuffle(prediction)
        pairs.append((" ".join(prediction), " ".join(reference)))
    return pairs


def f1(shared: float, given_size: float, expected_size: float) -> float:
    return 2 * shared / (given_size + expected_size) if shared else 0.0


def stems(text: str) -> list[str]:
    """As ROUGE's reference implementation: lower case, letters and digits, words above three letters stemmed."""
    plain = "".join(char if char.isascii() and char.isalnum() else " " for char in text.lower()).split()
    return [PorterStemmer().stem(word) if len(word) > 3 else word for word in plain]


def ngrams(sequence: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(sequence[start:] for start in range(order)), strict=False))


def independent_rouge_n(prediction: str, reference: str, order: int) -> float:
    given_grams, expected = ngrams(stems(prediction), order), ngrams(stems(reference), order)
    return f1((given_grams & expected).total(), given_grams.total(), expected.total())


def independent_rouge_l(prediction: str, reference: str) -> float:
    one, other = stems(prediction), stems(reference)
    lengths = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, left in enumerate(one):
        for j, right in enumerate(other):
            lengths[i + 1][j + 1] = lengths[i][j] + 1 if left == right else max(lengths[i][j + 1], lengths[i + 1][j])
    return f1(lengths[-1][-1], len(one), len(other))


def independent_bleu(prediction: str, reference: str, most: int) -> float:
    """Geometric mean of clipped precisions up to the answer's own length; zeros are halved anew each time; brevity penalty."""
    given_words, expected = prediction.split(), reference.split()
    logs, zeros = [], 0
    for order in range(1, min(most, len(given_words)) + 1):
        found = ngrams(given_words, order)
        matches = (found & ngrams(expected, order)).total()
        if order == 1 and not matches:
            return 0.0
        zeros += not matches
        logs.append(math.log(matches / found.total() if matches else 1 / (2**zeros * found.total())))
    penalty = min(0.0, 1 - len(expected) / len(given_words))
    return math.exp(penalty + sum(logs) / len(logs))


def independent_chrf(prediction: str, reference: str) -> float:
    """F2 from precision and recall averaged over orders 1 to 6, spaces taken out; an order counts if both texts have it."""
    one, other = prediction.replace(" ", ""), reference.replace(" ", "")
    precisions, recalls = [], []
    for order in range(1, 7):
        given_grams, expected = ngrams(one, order), ngrams(other, order)
        if given_grams and expected:
            shared = (given_grams & expected).total()
            precisions.append(shared / given_grams.total())
            recalls.append(shared / expected.total())
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return 5 * precision * recall / (4 * precision + recall) if precision + recall else 0.0


def independent_token_f1(prediction: str, reference: str) -> float:
    given_words, expected = (
        [word for word in text.lower().replace(".", "").split() if word not in {"a", "an", "the"}]
        for text in (prediction, reference)
    )
    shared = sum(min(given_words.count(word), expected.count(word)) for word in set(given_words))
    return f1(shared, len(given_words), len(expected))


INDEPENDENT: dict[str, Callable[[str, str], float]] = {
    "rouge_1": lambda p, r: independent_rouge_n(p, r, 1),
    "rouge_2": lambda p, r: independent_rouge_n(p, r, 2),
    "rouge_l": independent_rouge_l,
    "bleu_1": lambda p, r: independent_bleu(p, r, 1),
    "bleu_4": lambda p, r: independent_bleu(p, r, 4),
    "chrf": independent_chrf,
    "token_f1": independent_token_f1,
}


@pytest.mark.parametrize("name", INDEPENDENT)
def test_equals_an_independent_computation_on_200_random_pairs(name: str) -> None:
    pairs = random_pairs()
    found = [METRICS[name].score(prediction, reference, "") for prediction, reference in pairs]
    assert found == pytest.approx([INDEPENDENT[name](*pair) for pair in pairs], abs=1e-6)
    assert len(set(found)) > 30, "or the pairs show nothing"


def test_rouge_score_gives_its_published_values() -> None:
    prediction, reference = "The quick brown dog jumps on the log.", "The quick brown fox jumps over the lazy dog"
    assert rouge_1(prediction, reference, "") == pytest.approx(0.7058823529, abs=1e-9)
    assert rouge_l(prediction, reference, "") == pytest.approx(0.5882352941, abs=1e-9)


def test_remembering_words_changes_no_rouge() -> None:
    plain = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    for prediction, reference in random_pairs(60):
        expected = plain.score(reference, prediction)
        for name, key in (("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL")):
            assert METRICS[name].score(prediction, reference, "") == expected[key].fmeasure


def test_sacrebleu_gives_its_published_values() -> None:
    systems = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
    references = [
        ["The dog bit the man.", "It was not unexpected.", "The man bit him first."],
        ["The dog had bit the man.", "No one was surprised.", "The man had bitten the dog."],
    ]
    assert BLEU().corpus_score(systems, references).score == pytest.approx(48.530827009, abs=1e-6)
    assert CHRF().corpus_score(systems, references).score == pytest.approx(59.73, abs=0.005)


def test_meteor_by_hand() -> None:
    # 3 of 3 and 3 of 4 words match in one chunk: F = 10PR/(R+9P), penalty 0.5 (1/3)^3
    f_mean = 10 * 1.0 * 0.75 / (0.75 + 9 * 1.0)
    assert meteor("the wide qrs", "the wide qrs complex", "") == pytest.approx(f_mean * (1 - 0.5 * (1 / 3) ** 3))
    assert meteor("pacing leads", "paced lead", "") > 0.4, "stems match"
    assert meteor("leads paced", "paced lead", "") < meteor("paced leads", "paced lead", ""), "order counts"


def test_token_f1_and_exact_match_by_hand() -> None:
    assert token_f1("The QRS is wide.", "qrs wide", "") == pytest.approx(2 * 2 / (3 + 2))
    assert token_f1("a the an", "qrs", "") == 0
    assert exact_match("The QRS is wide!", "QRS is wide", "") == 1
    assert exact_match("wide QRS is", "QRS is wide", "") == 0


def test_a_metric_says_nothing_where_it_does_not_apply() -> None:
    assert METRICS["numbers"].score("120 ms", "A broad complex.", "How broad?") is None
    assert METRICS["polarity"].score("Yes.", "Leads II, III and aVF.", "Which leads?") is None


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.is_quality])
@given(prediction=st.text(), reference=st.text(min_size=1), question=st.text())
@settings(max_examples=100, deadline=None)
def test_any_text_gets_a_score_from_0_to_1(name: str, prediction: str, reference: str, question: str) -> None:
    score = METRICS[name].score(prediction, reference, question)
    assert score is None or 0 <= score <= 1 + 1e-9


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.is_quality])
def test_the_reference_itself_scores_1(name: str) -> None:
    reference = "Yes, the QRS is prolonged beyond 120 ms in left bundle branch block"
    assert METRICS[name].score(reference, reference, "Is it wide?") == pytest.approx(1, abs=0.001)


def test_an_empty_answer_scores_0() -> None:
    reference = "No, leads II, III and aVF are normal below 2 mm."
    assert all(metric.score("", reference, "Which leads?") == 0 for metric in METRICS.values())


def test_lengths() -> None:
    assert words("one two three", "x", "") == 3
    assert length_ratio("one two three", "one two", "") == 1.5


@pytest.mark.parametrize("name", ["chrf", "concept_f1", "rouge_l"])
def test_a_metric_with_a_rewards_name_is_that_reward(name: str) -> None:
    reference, question = "No, leads II, III and aVF are normal below 2 mm.", "Are the inferior leads abnormal?"
    for text in (reference, question, "No, they are not.", "They show 2 mm of ST elevation.", ""):
        reward = REWARDS[name](take_apart(text), reference, question)
        assert METRICS[name].score(text, reference, question) == pytest.approx(reward, abs=1e-12)
