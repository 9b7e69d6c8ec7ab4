"""Answers changed on purpose: each in one respect that makes it wrong, or in its words alone.

A score that is worth training on falls with the first and stays with the second. Every change is a function of the texts
alone: what it draws, it draws from a hash of them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import yaml

from ecg_grpo.errors import InputError
from ecg_grpo.lexicon import Lexicon, is_exact, load_lexicon, plural
from ecg_grpo.polarity import stances, yes_or_no
from ecg_grpo.quantities import NUMBER, UNITS, number_agreement, quantities
from ecg_grpo.resources import resource

SYNONYMS = resource("lexicon/synonyms.yaml")

Change = Callable[[str, str], str | None]
"""(answer, question) → the changed answer; None if the change does not apply."""


@dataclass(frozen=True)
class Counterfactual:
    """One way to make an answer wrong.

    Attributes:
        label: name in tables and figures.
        change: (answer, question) → another text, or None where it does not apply. Deterministic; never raises.
        note: what it does, in one sentence.
    """

    label: str
    change: Change
    note: str


@dataclass(frozen=True)
class _Edit:
    """A replacement of `text[start:end]`."""

    start: int
    end: int
    new: str


def _draws(*texts: str) -> random.Random:
    return random.Random(sha256("\0".join(texts).encode("utf-8", "surrogatepass")).digest())


_ARTICLE = re.compile(r"(?:(?<!\w)(an?)|(?:^|(?<=[.!?] ))(An?))(\s+)$")
_SOUNDS_LIKE_A_VOWEL = re.compile(
    r"(?!STEMI|SCAD|[Oo]ne\b|[Uu]ni|[Uu]s[ea])(?:[AEFHILMNORSX](?![a-z])|[aeiouAEIOU]|8|1[18](?!\d))"
)
_SENTENCE_START = re.compile(r"(?:^|[.!?])\W*$")
_UNREADABLE = re.compile(r"[\u017f\u0131\u0130\u212a]|\d{300}")
"""Letters that a pattern takes for s, i or k while a table of words does not, and numbers beyond every arithmetic."""


def _apply(text: str, edits: Iterable[_Edit]) -> str:
    """The text with the edits made, `a` and `an` before them put right, and capitals at their beginning kept."""
    result, place = "", 0
    for edit in sorted(edits, key=lambda edit: edit.start):
        old, new = text[edit.start : edit.end], edit.new
        result += text[place : edit.start]
        if old[:1].isupper() and not new.startswith("aV") and _SENTENCE_START.search(result):
            new = new[:1].upper() + new[1:]
        if new and (article := _ARTICLE.search(result)):
            right = "an" if _SOUNDS_LIKE_A_VOWEL.match(new) else "a"
            result = result[: article.start()] + (right.capitalize() if article[2] else right) + article[3]
        result += new
        place = edit.end
    return result + text[place:]


def _free(edits: Iterable[_Edit]) -> list[_Edit]:
    """The edits without those that overlap an earlier one of the list."""
    kept: list[_Edit] = []
    for edit in edits:
        if all(edit.end <= other.start or other.end <= edit.start for other in kept):
            kept.append(edit)
    return kept


def _words(words: Iterable[str]) -> str:
    """A pattern of any of the words or phrases, longest first; word boundaries where they begin or end with a letter."""
    ordered = sorted(words, key=len, reverse=True)
    plain = [re.escape(word) for word in ordered if word[0].isalnum() and word[-1].isalnum()]
    others = [
        re.escape(word) + (r"(?![\w-])" if word[-1].isalnum() else "") for word in ordered if re.escape(word) not in plain
    ]
    return "|".join([rf"(?<![\w-])(?:{'|'.join(plain)})(?![\w-])", *others])


# ---------------------------------------------------------------------------------------------------------- polarity

ANTONYMS: dict[str, str] = {
    "indicated": "contraindicated", "recommended": "inadvisable", "advised": "inadvisable", "advisable": "inadvisable",
    "appropriate": "inappropriate", "warranted": "unwarranted", "contraindicated": "indicated",
    "contra-indicated": "indicated", "inadvisable": "advisable", "inappropriate": "appropriate", "unwarranted": "warranted",
    "normal": "abnormal", "physiologic": "pathologic", "physiological": "pathological", "abnormal": "normal",
    "pathologic": "physiologic", "pathological": "physiological", "present": "absent", "absent": "present",
    "elevated": "reduced", "increased": "decreased", "raised": "lowered", "high": "low", "higher": "lower",
    "increases": "decreases", "increase": "decrease", "rises": "falls", "rise": "fall", "elevation": "depression",
    "depressed": "elevated", "decreased": "increased", "lowered": "raised", "low": "high", "lower": "higher",
    "reduced": "increased", "decreases": "increases", "decrease": "increase", "reduces": "increases", "reduce": "increase",
    "falls": "rises", "fall": "rise", "depression": "elevation", "prolonged": "shortened", "long": "short",
    "longer": "shorter", "prolongation": "shortening", "prolongs": "shortens", "prolong": "shorten",
    "lengthened": "shortened", "lengthens": "shortens", "shortened": "prolonged", "short": "long", "shorter": "longer",
    "shortening": "prolongation", "shortens": "prolongs", "shorten": "prolong", "wide": "narrow", "wider": "narrower",
    "broad": "narrow", "widened": "narrowed", "narrow": "wide", "narrower": "wider", "narrowed": "widened", "fast": "slow",
    "faster": "slower", "rapid": "slow", "tachycardia": "bradycardia", "tachycardic": "bradycardic", "slow": "fast",
    "slower": "faster", "bradycardia": "tachycardia", "bradycardic": "tachycardic", "regular": "irregular",
    "irregular": "regular", "upright": "inverted", "positive": "negative", "upward": "downward", "inverted": "upright",
    "negative": "positive", "downward": "upward", "likely": "unlikely", "probable": "improbable", "unlikely": "likely",
    "improbable": "probable", "stable": "unstable", "unstable": "stable", "symptomatic": "asymptomatic",
    "asymptomatic": "symptomatic", "reversible": "irreversible", "temporary": "permanent", "transient": "persistent",
    "irreversible": "reversible", "permanent": "temporary", "persistent": "transient", "safe": "unsafe", "unsafe": "safe",
    "dangerous": "safe", "hazardous": "safe",
}  # fmt: skip
"""Each word of `polarity.OPPOSITES` → the word of the other side that stands in its place in a sentence."""

_SIDE_WORD = re.compile(r"[a-z]+(?:[-'][a-z]+)*", re.IGNORECASE)
_LEADING = re.compile(r"(\W*)(yes|no)\b(\s*[,.;:!—–]\s*)?", re.IGNORECASE)
_NOT = re.compile(
    r"\b(?P<verb>is|are|was|were|should|can|could|may|might|must|will|would|does|do|did|has|have|be)(?P<not>n[’']t| not)\b"
    r"|\b(?P<cannot>cannot)\b",
    re.IGNORECASE,
)
_AUXILIARY = re.compile(r"\b(is|are|was|were|should|can|could|may|might|must|will|would)\b", re.IGNORECASE)
_VERBS = {
    verb + "s": verb
    for verb in (
        "indicate suggest show reflect mean cause require occur appear include help involve depend affect support represent "
        "lead result provide allow make give remain begin follow predict need work protect improve favour favor produce"
    ).split()
} | {"carries": "carry"}
_VERB = re.compile(rf"\b(?<!which )(?<!that )({'|'.join(_VERBS)})\b")


def polarity(answer: str, question: str) -> str | None:
    """The answer on the other side: another yes or no, opposites exchanged; a negation where it names no side.

    Returns:
        A text that takes none of the sides that `polarity.stances` finds in the answer; None if nothing can be turned.
    """
    for candidate in (_turned(answer), _negated(answer), _negated(_turned(answer) or answer), _denied(answer)):
        if candidate and candidate != answer and _is_turned(answer, candidate):
            return candidate
    return None


def _is_turned(answer: str, candidate: str) -> bool:
    before, after = stances(answer), stances(candidate)
    return all(after.get(name) != side for name, side in before.items())


def _turned(answer: str) -> str | None:
    text = answer
    if first := yes_or_no(answer):
        found = _LEADING.match(answer)
        if found is None:
            return None
        rest = answer[found.end() :]
        if first == "no" and found[3] is None:  # it negates the noun: "No ST elevation."
            rest = rest.lstrip(" -")
            text = found[1] + rest[:1].upper() + rest[1:]
        else:
            word = "no" if first == "yes" else "yes"
            word = word.capitalize() if found[2][0].isupper() else word
            text = found[1] + word + (found[3] or ", ") + (rest if found[3] else rest.lstrip(" -,"))
    taken = stances(answer)
    still = {name for name, side in stances(text).items() if taken.get(name) == side}
    edits = [
        _Edit(*match.span(), ANTONYMS[match[0].lower()])
        for match in _SIDE_WORD.finditer(text.replace("’", "'"))
        if match[0].lower() in ANTONYMS and not still.isdisjoint(stances(match[0].lower()))
    ]
    return _apply(text, edits) if edits or text != answer else None


def _negated(answer: str) -> str | None:
    """The first statement negated, or its negation taken away."""
    if found := _NOT.search(answer):
        verb = "can" if found["cannot"] else found["verb"]
        return _apply(answer, [_Edit(*found.span(), verb)])
    if found := _AUXILIARY.search(answer):
        new = found[1] + ("not" if found[1].lower() == "can" else " not")
        return _apply(answer, [_Edit(*found.span(), new)])
    if found := _VERB.search(answer):
        return _apply(answer, [_Edit(*found.span(), f"does not {_VERBS[found[1]]}")])
    return None


def _denied(answer: str) -> str | None:
    """`Not` before an answer that has no verb to negate, as the short ones are."""
    if not re.search(r"[^\W\d_]", answer):
        return None
    rest = answer if re.match(r"\w*[A-Z\d]|[A-Z]\b", answer[1:]) or answer[1:2] == " " else answer[:1].lower() + answer[1:]
    return f"Not {rest.lstrip()}"


# ----------------------------------------------------------------------------------------------------------- numbers

_NUMBER_WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()
_FACTORS = tuple(tenth / 10 for tenth in range(15, 26))
_LARGER = (2.75, 3.3, 4, 5, 7, 11)


def numbers(answer: str, question: str) -> str | None:
    """Every number changed by one factor from 1.5 to 2.5, so that ranges stay in order; whole numbers stay whole.

    The factor is larger where none of these does it, and turned round where a percentage would pass 100. Years change by
    some years, degrees Celsius by some degrees. Names with digits (V1, 12-lead) stay.

    Returns:
        A text that shares no quantity with the answer; None if the answer has no number, or none of the factors does it.
    """
    before = () if _UNREADABLE.search(answer) else quantities(answer)
    if not before:
        return None
    factors = list(_FACTORS)
    _draws("numbers", answer, question).shuffle(factors)
    for factor in (*factors, *_LARGER):  # the larger ones for texts such as `type 1, 2 and 3`
        down = any(found.unit == "%" and found.low <= 100 < found.high * factor for found in before)
        candidate = _scaled(answer, 1 / factor if down else factor)
        after = quantities(candidate)
        if candidate != answer and after and not any(old.agrees_with(new) for old in before for new in after):
            return candidate
    return None


def _scaled(text: str, factor: float) -> str:
    edits: list[_Edit] = []
    for match in NUMBER.finditer(text):
        if match["ratio"]:
            above, joined, below = re.split("([:/])", match["ratio"])
            scaled = int(below) if joined == ":" else _scaled_integer(int(below), factor)  # both of two pressures
            edits.append(_Edit(*match.span("ratio"), f"{_scaled_integer(int(above), factor)}{joined}{scaled}"))
        elif match["word"]:
            value = _scaled_integer(_NUMBER_WORDS.index(match["word"].lower()), factor)
            edits.append(_Edit(*match.span("word"), _NUMBER_WORDS[value] if value < len(_NUMBER_WORDS) else str(value)))
        else:
            edits.append(_Edit(*match.span("digits"), _scaled_digits(match, text, factor)))
    return _apply(text, edits)


def _scaled_integer(value: int, factor: float) -> int:
    if factor < 1:
        return min(value - 1, round(value * factor)) if value > 1 else value + 2
    return max(value + 1, round((value or factor >= _LARGER[0]) * factor))


def _scaled_digits(match: re.Match[str], text: str, factor: float) -> str:
    digits = match["digits"]
    plain = digits.replace(",", "")
    if re.fullmatch(r"(?:19|20)\d\d", plain) and not match["unit"]:
        return str(int(plain) + round((factor - 1) * 10) + 3)  # a year; twice 2018 would be none
    if "." not in plain:
        celsius = not match["unit"] and re.match(r"\s?°\s?C", text[match.end() :])
        value = int(plain) + max(2, round(abs(factor - 1) * 4)) if celsius else _scaled_integer(int(plain), factor)
        return f"{value:,}" if "," in digits else str(value)
    places = min(len(plain.partition(".")[2]), 12)
    new = f"{float(plain) * factor:.{places}f}"
    return new if float(new) != float(plain) else f"{float(new) + 3 / 10**places:.{places}f}"


# --------------------------------------------------------------------------------------------------------- direction

TURNED: dict[str, str] = {
    "at least": "at most", "more than": "less than", "greater than": "less than", "longer than": "shorter than",
    "wider than": "narrower than",
    "higher than": "lower than", "larger than": "smaller than", "taller than": "shorter than", "faster than": "slower than",
    "over": "under", "above": "below", "exceeding": "below", "exceeds": "is below", "exceed": "are below",
    "not exceed": "exceed", "without exceeding": "while exceeding",
    "beyond": "within", "≥": "≤", ">": "<", ">=": "<=", "=>": "=<", "minimum of": "maximum of",
    "at most": "at least", "up to": "at least",
    "less than": "more than", "fewer than": "more than", "shorter than": "longer than", "narrower than": "wider than",
    "lower than": "higher than", "smaller than": "larger than", "slower than": "faster than", "under": "over",
    "below": "above", "within": "beyond", "≤": "≥", "<": ">", "<=": ">=", "=<": "=>", "maximum of": "minimum of",
    "⩾": "⩽", "≧": "≦", "＞": "＜", "⩽": "⩾", "≦": "≧", "＜": "＞",
}  # fmt: skip
"""Each comparison before a number that `quantities` reads → one of the other direction."""
TURNED_BEHIND: dict[str, str] = {
    "or more": "or less", "or greater": "or less", "or above": "or below", "or longer": "or shorter",
    "or higher": "or lower", "or over": "or under", "or older": "or younger", "and above": "and below",
    "and older": "and younger", "+": " or less", "or less": "or more", "or fewer": "or more", "or below": "or above",
    "or shorter": "or longer", "or lower": "or higher", "or under": "or over", "or younger": "or older",
    "and below": "and above", "and younger": "and older",
}  # fmt: skip
"""The same for those that stand behind a number."""

_AHEAD = re.compile(
    rf"(?P<direction>{_words(TURNED)})\s*(?:or equal to\s*)?(?:(?:about|approximately|roughly|around)\s+)?(?:an? |the )?$",
    re.IGNORECASE,
)
_BEHIND = re.compile(
    rf"\s?(?P<direction>{'|'.join(re.escape(word) for word in sorted(TURNED_BEHIND, key=len, reverse=True))})(?!\w)",
    re.IGNORECASE,
)


def direction(answer: str, question: str) -> str | None:
    """Every comparison with a number turned: at least ↔ at most, above ↔ below, ≥ ↔ ≤.

    Returns:
        Another text; None without such a comparison.
    """
    if _UNREADABLE.search(answer):
        return None
    edits: list[_Edit] = []
    last = 0
    for match in NUMBER.finditer(answer):
        if ahead := _AHEAD.search(answer, last, match.start()):
            edits.append(_Edit(*ahead.span("direction"), TURNED[ahead["direction"].lower()]))
        elif behind := _BEHIND.match(answer, match.end()):
            sign = behind["direction"] == "+"  # its words bring their own space
            edits.append(_Edit(*behind.span(0 if sign else "direction"), TURNED_BEHIND[behind["direction"].lower()]))
        last = match.end()
    return _changed(answer, edits)


def _changed(answer: str, edits: list[_Edit]) -> str | None:
    if not edits:
        return None
    candidate = _apply(answer, _free(edits))
    return candidate if candidate != answer else None


# -------------------------------------------------------------------------------------------------------------- side

_BOTH_WAYS = (
    "leftward:rightward leftwards:rightwards left-sided:right-sided upper:lower superior:inferior atrial:ventricular "
    "atria:ventricles atrium:ventricle systolic:diastolic systole:diastole proximal:distal proximally:distally RBBB:LBBB "
    "LV:RV LVH:RVH LVOT:RVOT LAFB:LPFB LAE:RAE RCA:LAD epicardial:endocardial epicardium:endocardium basal:apical "
    "septal:lateral medial:lateral clockwise:counterclockwise mitral:tricuspid antegrade:retrograde "
    "anterograde:retrograde arm:leg arms:legs anteroseptal:inferolateral anterolateral:inferior anteriorly:posteriorly "
    "anteromedial:posterolateral anterolateral:posteromedial"
)
_SIDES: dict[str, str] = {}
for _pair in _BOTH_WAYS.split():
    _one, _other = _pair.split(":")
    _SIDES.setdefault(_one, _other)
    _SIDES.setdefault(_other, _one)
_SIDES |= {"anterior": "inferior", "inferior": "anterior", "posterior": "anterior", "supraventricular": "ventricular",
           "subendocardial": "subepicardial", "subepicardial": "subendocardial", "left": "right", "right": "left",
           "left anterior descending": "posterior descending", "posterior descending": "left anterior descending"}  # fmt: skip
_SIDE = re.compile(rf"(?<!\w)(?:{'|'.join(sorted(map(re.escape, _SIDES), key=len, reverse=True))})(?!\w)", re.IGNORECASE)
# "the right to refuse", "left untreated": left and right name a side only before one of these, or at the end
_PLACES = re.compile(
    r"[\s-]+(?:(?:and|or|to)\s+(?:left|right)\b|sided?\b|(?:atri|ventric|bundle|axis|axes|anter|poster|later|main|coronar|heart|arms?\b|"
    r"legs?\b|precord|chest|circum|domin|breast|upper|lower|stern|subclav|intern|common|lungs?\b|hands?\b|wrist|foot|feet|ankle"
    r"|should|axill|mid|parastern|hemi|fasci|infer|super|pulmon|carot|groin|femor|radial|jugul|septal|cusp|limb|vag|stell|BBB))",
    re.IGNORECASE,
)
_ON_THE = re.compile(r"(?:\b(?:on|to|from) the|\bfrom|\b(?:left|right) to)\s+$", re.IGNORECASE)
_STOPS = re.compile(r"\s*(?:[.,;:)]|$|of\b|and\b|to\b)", re.IGNORECASE)
_LIMBS = re.compile(
    r"\s+(?:limb|leg|extremit|lobe|chest|body|border|stern|third|half|part|back|segment|right|left)", re.IGNORECASE
)
_JOINS = re.compile(r"\s*(?:and|or|and/or|/|versus)\s*$", re.IGNORECASE)


def side(answer: str, question: str) -> str | None:
    """Places exchanged: left ↔ right, anterior ↔ inferior, atrial ↔ ventricular, systolic ↔ diastolic, RBBB ↔ LBBB.

    `left and right` stays, since `right and left` says the same; so does the right to something.

    Returns:
        Another text; None if it names no such place.
    """
    found = [match for match in _SIDE.finditer(answer) if _is_place(match, answer)]
    joined: set[int] = set()
    for first, second in pairwise(found):
        if _JOINS.match(answer[first.end() : second.start()]) and _other_side(first[0]).lower() == second[0].lower():
            joined |= {first.start(), second.start()}
    edits: list[_Edit] = []
    for match in found:
        # of `left ventricle`, the left is turned and no more: a right atrium would be two changes
        if match.start() not in joined and not (edits and answer[edits[-1].end : match.start()] in {" ", "-"}):
            edits.append(_Edit(*match.span(), _other_side(match[0])))
    return _changed(answer, edits)


def _other_side(word: str) -> str:
    return _SIDES[word] if word in _SIDES else _SIDES.get(word.lower(), word)


def _is_place(match: re.Match[str], text: str) -> bool:
    word = match[0]
    if word not in _SIDES and word.lower() not in _SIDES:  # an abbreviation in another case
        return False
    if word.lower() in {"left", "right"}:
        on_the = _ON_THE.search(text, 0, match.start()) is not None and _STOPS.match(text, match.end()) is not None
        return on_the or _PLACES.match(text, match.end()) is not None
    return word.lower() != "lower" or _LIMBS.match(text, match.end()) is not None


# -------------------------------------------------------------------------------------------------------------- lead

_LEAD = r"(?:aV[RLF]|V[1-9]R?|III|II|I)(?!\w)"
_LEAD_NAME = re.compile(rf"(?<![\w-]){_LEAD}|(?<=[-–]){_LEAD}")
_LEADS = re.compile(rf"(?<![\w-]){_LEAD}(?:(?:\s*(?:,\s*(?:and|or)?|and|or|to|through|[-–/+&])\s*){_LEAD})*")
_SPAN = re.compile(r"(V[1-9])(\s*(?:to|through|[-–])\s*)(V[1-9])(?!\w)")
_STANDARD = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
_TERRITORY = {
    lead: territory
    for territory, leads in {"lateral": "I aVL V5 V6", "inferior": "II III aVF", "anterior": "V1 V2 V3 V4"}.items()
    for lead in leads.split()
}


def lead(answer: str, question: str) -> str | None:
    """Leads replaced by others that the answer does not name, of another territory where there is one.

    I, II and III are leads after `lead`, or in a list with one that is beyond doubt.

    Returns:
        Another text; None without a lead.
    """
    runs = [run for run in _LEADS.finditer(answer) if _names_leads(run, answer)]
    if not runs:
        return None
    draws = _draws("lead", answer, question)
    used = {name for run in runs for name in _run_leads(run[0])}
    twins: dict[str, str] = {}
    edits: list[_Edit] = []
    for run in runs:
        place = run.start()
        while match := _LEAD_NAME.search(answer, place, run.end()):
            span = _SPAN.match(answer, match.start(), run.end())
            start, end, old = (*span.span(), span[0]) if span else (*match.span(), match[0])
            if old not in twins:
                taken = {name for twin in twins.values() for name in _run_leads(twin)}
                twins[old] = _other_span(span, used, draws) if span else _other_lead(old, used | taken, draws)
            edits.append(_Edit(start, end, twins[old]))
            place = end
    return _changed(answer, edits)


def _names_leads(run: re.Match[str], text: str) -> bool:
    if re.match(r"\s*-?(?:receptor|class|antagonist)", text[run.end() :]):
        return False
    if "V" in run[0]:
        return True
    before = text[: run.start()]
    if re.search(r"\bleads?\s*\(?$", before, re.IGNORECASE) or re.match(r"\s+leads?\b", text[run.end() :]):
        return True
    sure = re.search(r"(?<!\w)(?:aV[RLF]|V[1-9])(?!\w)|\blead", text) is not None
    return sure and re.search(r"\bin\s+$", before) is not None


def _run_leads(run: str) -> set[str]:
    names = set(_LEAD_NAME.findall(run))
    for span in _SPAN.finditer(run):
        low, high = sorted((int(span[1][1]), int(span[3][1])))
        names |= {f"V{number}" for number in range(low, high + 1)}
    return names


def _other_lead(name: str, used: set[str], draws: random.Random) -> str:
    """A lead outside `used`, of another territory if there is one; else any other lead."""
    free = [other for other in _STANDARD if other not in used and other != name]
    far = [other for other in free if other != "aVR" and _TERRITORY[other] != _TERRITORY.get(name)]
    return draws.choice(far or free or [other for other in _STANDARD if other != name])


def _other_span(span: re.Match[str], used: set[str], draws: random.Random) -> str:
    """Neighbours among V1 to V6 that are free, else one or two limb leads."""
    spans = [(low, high) for low in range(1, 6) for high in range(low + 1, 7)]
    spans = [(low, high) for low, high in spans if used.isdisjoint(f"V{number}" for number in range(low, high + 1))]
    if spans:
        low, high = max(spans, key=lambda bounds: bounds[1] - bounds[0])
        return f"V{low}{span[2]}V{high}"
    pairs = [pair for pair in ("II and aVF", "I and aVL", "II and III") if used.isdisjoint(pair.split(" and "))]
    return draws.choice(pairs) if pairs else "aVR"


# -------------------------------------------------------------------------------------------------- drug and disease

_DRUGS = frozenset({"drug", "drug class"})
_DISEASES = frozenset({"disease", "arrhythmia", "conduction disorder", "finding"})


def drug(answer: str, question: str) -> str | None:
    """Each drug or drug class exchanged for one of another class that neither text names.

    Returns:
        Another text; None without a drug of the lexicon.
    """
    lexicon = load_lexicon()
    found = [(name, start, end) for name, start, end in lexicon.find(answer) if lexicon.concepts[name].kind in _DRUGS]
    named = {name for text in (answer, question) for name, _, _ in lexicon.find(text)}
    classes = {lexicon.concepts[name].drug_class or name for name in named}
    draws = _draws("drug", answer, question)
    twins: dict[str, str] = {}
    for name, _, _ in found:
        kind = lexicon.concepts[name].kind
        taken = named | set(twins.values())
        free = [other for other in lexicon.concepts.values() if other.kind == kind and other.name not in taken]
        far = [other.name for other in free if (other.drug_class or other.name) not in classes]
        if name not in twins and far:
            twins[name] = draws.choice(far)
    return _changed(answer, _exchanges(answer, found, twins, lexicon))


def disease(answer: str, question: str) -> str | None:
    """One disease or finding, the first that the question does not name if any, exchanged for another of its kind.

    The other one is named by neither text, and shares not all words with any that is: a heart failure is no other
    concept than a congestive heart failure.

    Returns:
        Another text; None without a disease or finding of the lexicon.
    """
    lexicon = load_lexicon()
    found = [(name, start, end) for name, start, end in lexicon.find(answer) if lexicon.concepts[name].kind in _DISEASES]
    if not found:
        return None
    asked = {name for name, _, _ in lexicon.find(question)}
    old = next((name for name, _, _ in found if name not in asked), found[0][0])
    named = [set(name.lower().split()) for name in asked | {name for name, _, _ in lexicon.find(answer)}]
    free = [
        other.name
        for other in lexicon.concepts.values()
        if other.kind == lexicon.concepts[old].kind
        and not any(words <= set(other.name.lower().split()) or words >= set(other.name.lower().split()) for words in named)
    ]
    if not free:
        return None
    new = _draws("disease", answer, question).choice(free)
    return _changed(answer, _exchanges(answer, found, {old: new}, lexicon))


def _exchanges(text: str, found: list[tuple[str, int, int]], twins: dict[str, str], lexicon: Lexicon) -> list[_Edit]:
    return [
        _Edit(start, end, _in_number_of(text[start:end], twins[name], name, lexicon))
        for name, start, end in found
        if name in twins
    ]


def _in_number_of(written: str, new: str, concept: str, lexicon: Lexicon) -> str:
    """The new term, in the plural if the old one is written in it."""
    last = re.findall(r"\w+", written)[-1].lower()
    singular = {re.findall(r"\w+", variant)[-1].lower() for variant in lexicon.variants_of(concept)}
    if last in singular or last not in {plural(word) for word in singular} or new[-1] == "s":
        return new
    return re.sub(r"\w+$", lambda match: plural(match[0]), new)


COUNTERFACTUALS: dict[str, Counterfactual] = {
    "polarity": Counterfactual("Other side", polarity, "Yes for no, opposites exchanged, or the statement negated."),
    "numbers": Counterfactual("Other numbers", numbers, "Every number about twice or half as large."),
    "direction": Counterfactual("Comparison turned", direction, "At least for at most, above for below."),
    "side": Counterfactual("Other place", side, "Left for right, anterior for inferior, atrial for ventricular."),
    "lead": Counterfactual("Other lead", lead, "Leads replaced by those of another territory."),
    "drug": Counterfactual("Other drug", drug, "A drug replaced by one of another class."),
    "disease": Counterfactual("Other disease", disease, "A disease or finding replaced by another of its kind."),
}
"""Every change that makes an answer wrong, by name."""


# -------------------------------------------------------------------------------------------------------- paraphrase


@cache
def _synonyms(file: Path = SYNONYMS) -> dict[str, tuple[str, ...]]:
    """Phrase in lower case → phrases that may stand in its place.

    Raises:
        InputError: not readable, of another form, or a phrase that is there twice.
    """
    mend = "Give lines of the form `written: instead` or `written: [one, other]`."
    try:
        tree = yaml.compose(file.read_text("utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise InputError(file, f"this is no readable YAML file: {problem}", mend) from problem
    if not isinstance(tree, yaml.MappingNode):
        raise InputError(file, "keys with values are expected here", mend)
    found: dict[str, tuple[str, ...]] = {}
    for key, value in tree.value:
        others = value.value if isinstance(value, yaml.SequenceNode) else [value]
        if not all(isinstance(node, yaml.ScalarNode) and node.value.strip() for node in (key, *others)):
            raise InputError(f"{file}, line {key.start_mark.line + 1}", "a phrase is empty or none", mend)
        phrase = key.value.lower()
        if phrase in found:
            raise InputError(f"{file}, {phrase}, line {key.start_mark.line + 1}", "this phrase is there twice", "Join the two.")
        found[phrase] = tuple(node.value for node in others)
    return found


@cache
def _synonym_pattern() -> re.Pattern[str]:
    return re.compile(_words(_synonyms()), re.IGNORECASE)


_PAIR = re.compile(
    r"(?<=\w )(?P<before>(?:of|in|with|by|for|both|between|from|as|including|during|leads?|without)\s+)"
    r"(?P<one>[A-Za-z]\w{2,}|V\d|II)(?P<join> and | or )(?P<other>[A-Za-z]\w{2,}|V\d|II)(?=[.,;)]|$)"
)


def paraphrase(answer: str, question: str) -> str | None:
    """The same in other words: terms of the lexicon in another way, synonyms, pairs in the other order, equal units.

    Returns:
        Another text that takes the same sides (`polarity.stances`) and names the same quantities; a rewrite that would
        change either is left out. None if nothing applies.
    """
    if _UNREADABLE.search(answer):
        return None
    draws = _draws("paraphrase", answer)
    edits = _free([*_unit_edits(answer), *_pair_edits(answer), *_term_edits(answer, draws), *_synonym_edits(answer, draws)])
    edits = [edit for edit in edits if _apply(answer, [edit]) != answer]
    candidate = _apply(answer, edits)
    if not _says_the_same(answer, candidate):
        kept: list[_Edit] = []
        for edit in edits:
            if _says_the_same(answer, _apply(answer, [*kept, edit])):
                kept.append(edit)
        candidate = _apply(answer, kept)
    return candidate if candidate != answer and _says_the_same(answer, candidate) else None


def _says_the_same(answer: str, candidate: str) -> bool:
    return (
        stances(answer) == stances(candidate)
        and number_agreement(candidate, answer) in {None, 1}
        and number_agreement(answer, candidate) in {None, 1}
    )


def _term_edits(answer: str, draws: random.Random) -> Iterator[_Edit]:
    """Abbreviations written out, and full forms abbreviated or written in another way."""
    lexicon = load_lexicon()
    for name, start, end in lexicon.find(answer):
        written = answer[start:end]
        if lexicon.concepts[name].kind == "lead" or answer[end : end + 1] in {"-", "/"}:  # a part of a compound
            continue
        others = [term for term in lexicon.variants_of(name) if _stem(term) != _stem(written)]
        if not others:
            continue
        short = [term for term in others if _is_short(term)]
        long = [term for term in others if not _is_short(term)]
        new = (long[0] if long else short[0]) if _is_short(written) else draws.choice(short or long)
        yield _Edit(start, end, _in_number_of(written, new, name, lexicon))


def _stem(term: str) -> str:
    return re.sub(r"[\W_]+", " ", term.lower()).rstrip("s")


def _is_short(term: str) -> bool:
    return is_exact(term) or (" " not in term and sum(map(str.isupper, term)) > 1)


def _synonym_edits(answer: str, draws: random.Random) -> Iterator[_Edit]:
    synonyms = _synonyms()
    for match in _synonym_pattern().finditer(answer):
        if others := synonyms.get(match[0].lower()):
            yield _Edit(*match.span(), draws.choice(others))


def _pair_edits(answer: str) -> Iterator[_Edit]:
    """`A and B` as `B and A`, where both are single words between a preposition and the end of a phrase."""
    for match in _PAIR.finditer(answer):
        yield _Edit(match.start("one"), match.end("other"), match["other"] + match["join"] + match["one"])


_UNIT_FORMS = {
    "bpm": "beats per minute", "beats per minute": "bpm", "beats/min": "beats per minute", "/min": " beats per minute",
    "%": " percent", "percent": "%", "mm hg": "mmHg", "mmhg": "mm Hg", "°": " degrees", "degrees": "°", "ms": "milliseconds",
    "milliseconds": "ms", "mv": "millivolts", "seconds": "s", "s": "seconds", "mg": "milligrams", "mm": "millimetres",
    "minutes": "min", "min": "minutes", "hours": "h", "years": "yr", "j": "joules", "hz": "hertz",
}  # fmt: skip
_RESCALED = {"ms": ("s", -3), "milliseconds": ("seconds", -3), "s": ("ms", 3), "seconds": ("milliseconds", 3),
             "cm": ("mm", 1), "mm": ("cm", -1), "mv": ("µV", 3), "g": ("mg", 3)}  # fmt: skip
_RESCALABLE = re.compile(
    r"(?<![\w.,/+−-])(?P<low>\d+(?:\.\d+)?)(?:(?P<join>\s?[-–]\s?|\s+to\s+)(?P<high>\d+(?:\.\d+)?))?"
    r"(?P<gap>[\s-]?)(?P<unit>milliseconds|seconds|ms|mV|s|cm|mm|g)(?![\w/])"
)


def _unit_edits(answer: str) -> Iterator[_Edit]:
    """Numbers in an equal unit (0.12 s as 120 ms), else their unit written in another way."""
    for match in _RESCALABLE.finditer(answer):
        unit, shift = _RESCALED[match["unit"].lower()]
        low, high = _shifted(match["low"], shift), _shifted(match["high"], shift) if match["high"] else ""
        if match["unit"] not in {"mm", "g", "mV"} or len(low) < 4:
            yield _Edit(*match.span(), f"{low}{match['join'] or ''}{high}{match['gap'] or ' '}{unit}")
    for match in NUMBER.finditer(answer):
        unit = match["unit"]
        new = _UNIT_FORMS.get(unit.lower()) if unit else None
        if new and unit.lower() in UNITS:
            start = match.start("unit")
            gap = " " if new[0].isalpha() and not answer[start - 1].isspace() and answer[start - 1] != "-" else ""
            yield _Edit(start, match.end("unit"), gap + (new.lstrip() if answer[start - 1].isspace() else new))


def _shifted(number: str, places: int) -> str:
    """A decimal number times a power of ten, without zeros at its end."""
    whole, _, fraction = number.partition(".")
    if places < 0:
        whole = whole.rjust(1 - places, "0")
        whole, fraction = whole[:places], whole[places:] + fraction
    else:
        fraction = fraction.ljust(places, "0")
        whole, fraction = whole + fraction[:places], fraction[places:]
    whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
    return f"{whole}.{fraction}" if fraction else whole
