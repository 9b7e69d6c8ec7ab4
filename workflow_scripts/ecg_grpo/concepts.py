"""The concepts of a clinical text: what it says, word by word, whichever way it is written.

Terms of the lexicon count as one concept under all their names (MI is a myocardial infarction), other content words by their
stem, numbers by their value in a common unit. A concept carries its scope: what is negated, or said of the left and not of
the right, is another concept.
"""

from __future__ import annotations

import math
import re
from functools import cache, lru_cache

from nltk.stem import PorterStemmer

from ecg_grpo.lexicon import load_lexicon
from ecg_grpo.polarity import after_the_answer, is_negation, with_plain_negations
from ecg_grpo.quantities import Quantity, quantities, without_quantities
from ecg_grpo.resources import resource

TERM_COUNTS = resource("lexicon/term_counts.tsv")
"""In how many answers of the project's sample each term stands; `count_terms.py` writes it. The same for every run: a score
that weighed terms by each run's own data would not be the same score in two runs."""

# Words without a content of their own. Direction (above, below, before, after), amount (more, less, two), and negation are
# none of them, which is why no library's list serves.
_FUNCTION_WORDS = frozenset(
    "a an the this that these those it its they their them he she his her you your we our i my who whom whose which what "
    "when where why how there here is are was were be been being am do does did done have has had having can could may "
    "might will would shall should must of to in on at by for from with as and or but if than then so such also too very "
    "into about because while during through s t".split()
)
_SIDES = frozenset(
    "left right anterior posterior inferior superior lateral medial septal upper lower proximal distal atrial ventricular "
    "systolic diastolic early late first second third".split()
)
_TOKEN = re.compile(r"[^\W\d]+(?:'[^\W\d]+)?|[.;:!?,]")
_ENDS = frozenset(".;:!?") | {"but", "however", "although", "though", "whereas"}
_REACH = 4
"""Words over which a negation reaches, as for the sides of `polarity`."""


def terms(text: str) -> list[str]:
    """The terms of a text in its order, without scope: concepts of the lexicon (`c_…`), stems of other content words."""
    return [stem for role, stem in map(_read, _words(text)) if role in ("term", "side")]


@lru_cache(maxsize=50_000)
def concepts(text: str) -> frozenset[str]:
    """The concepts of a text.

    Returns:
        Terms; `c_yes` or `c_no` for the answer that the text begins with; `¬` before a term that a negation governs; `side~`
        before one that a side word (left, anterior, systolic) stands before; quantities as `=120ms`, `>120ms`, with one unit
        for each dimension.
    """
    found = {_written(quantity) for quantity in quantities(text)}
    negated_until, side = -1, ""
    for place, word in enumerate(_words(text)):
        role, stem = _read(word)
        if role == "term":
            found.add(f"¬{side}{stem}" if place <= negated_until else side + stem)
            side = ""
        elif role == "side":
            side = f"{side}{word}~"
        elif role == "negation":
            negated_until = place + _REACH
        elif role == "end":
            negated_until, side = -1, ""
    if side:  # said of nothing that follows: "on the left"
        found.add(side)
    return frozenset(found)


@cache
def _read(word: str) -> tuple[str, str]:
    """What a word does in a clause (`end`, `negation`, `side`, `term`, or nothing), and its stem."""
    stem = word if "_" in word else _STEMMER.stem(word)
    if word in _ENDS:
        return "end", stem
    if is_negation(word):
        return "negation", stem
    if word in _SIDES:
        return "side", stem
    return "term" if word[0].isalpha() and word not in _FUNCTION_WORDS else "", stem


def _words(text: str) -> list[str]:
    """Words and signs of a text, terms of the lexicon as one word, without its quantities; `c_no` for a first `No,`."""
    answer, rest = after_the_answer(" ".join(text.split()))
    words = _TOKEN.findall(load_lexicon().fold(without_quantities(with_plain_negations(rest))).lower().replace("’", "'"))
    return words if answer is None else [f"c_{answer}", *words]


def concept_f1(prediction: str, reference: str, question: str) -> float:
    """How well the answer's concepts agree with the reference's, apart from those that the question gave, from 0 to 1.

    F1 of two sets after SQuAD's (Rajpurkar et al. 2016), each concept weighing as much as it is rare (inverse document
    frequency, Spärck Jones 1972). What the question says earns nothing on either side, so that echoing it scores 0, unless
    the reference says nothing else.

    Gamed by: naming the right concepts in a wrong sentence; what is said of what is not seen beyond negations and sides.
    """
    asked = concepts(question)
    expected, given = concepts(reference) - asked, concepts(prediction) - asked
    if not expected:  # the reference says nothing that the question did not: compare all of it
        expected, given = concepts(reference), concepts(prediction)
    if not expected and not given:  # "It is.": words without a content
        return float(bool(prediction.strip()) == bool(reference.strip()))
    shared = expected & given
    if not shared:
        return 0.0
    return min(1.0, 2 * _weight(shared) / (_weight(expected) + _weight(given)))


def _weight(found: frozenset[str]) -> float:
    return math.fsum(map(rarity, found))  # exact, or the last digit would depend on the order of a set


@cache
def rarity(concept: str) -> float:
    """Smoothed inverse document frequency of a concept: 1 for one that stands in every answer, 7 for an unseen one."""
    counts, answers = _term_counts()
    bare = concept.removeprefix("¬").rpartition("~")[2]
    return math.log((1 + answers) / (1 + counts.get(bare, 0))) + 1


@cache
def _term_counts() -> tuple[dict[str, int], int]:
    first, *lines = TERM_COUNTS.read_text(encoding="utf-8").splitlines()
    counts = dict(line.split("\t") for line in lines)
    return {term: int(count) for term, count in counts.items()}, int(first.split("\t")[1])


def _written(quantity: Quantity) -> str:
    size = f"{quantity.low}" if quantity.low == quantity.high else f"{quantity.low}..{quantity.high}"
    return f"{quantity.direction}{size}{quantity.unit}"


_STEMMER = PorterStemmer()
