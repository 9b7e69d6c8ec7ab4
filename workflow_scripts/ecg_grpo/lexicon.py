"""Terms of cardiology by concept: a heart attack, an MI and a myocardial infarction are one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from pathlib import Path

import yaml

from ecg_grpo.errors import InputError
from ecg_grpo.resources import resource

LEXICON = resource("lexicon/cardiology.yaml")

_WORD = re.compile(r"\w+")
_BETWEEN = re.compile(r"(\W+)")
_GAP = re.compile(r"(?:['’]\s?|\s*[-‐‑–/]\s*|\s{1,3})\Z")
"""What may stand between two words of a term. A slash only where the variant has one."""
_SHORT = 3
"""Variants of up to so many characters with two capitals, or a capital and a digit, count only as they are written."""
_DIGITS = dict(zip("0123456789", "zero one two three four five six seven eight nine".split(), strict=True))
_MEND = "Give each concept as `name: [variants]` under its kind; the file's first lines say how."


@dataclass(frozen=True)
class Concept:
    """What several terms stand for.

    Attributes:
        name: the term that the others are explained by; also the key of `Lexicon.concepts`.
        kind: `disease`, `finding`, `lead`, `drug` and so on.
        variants: other ways to write it, without the name.
        drug_class: of a drug, the name of its class; else None.
    """

    name: str
    kind: str
    variants: tuple[str, ...]
    drug_class: str | None = None

    @property
    def token(self) -> str:
        """What `Lexicon.fold` writes for it: `c_` and letters, digits spelled out, so that word patterns keep it whole."""
        spelled = "".join(f" {_DIGITS[sign]} " if sign in _DIGITS else sign for sign in self.name.lower())
        return "c_" + "_".join(re.findall(r"[a-z]+", spelled))


@dataclass(frozen=True)
class _Entry:
    """One way to write a concept, split into words."""

    words: tuple[str, ...]
    exact: bool  # words are compared as they are written, not in lower case
    slash: bool
    concept: str
    token: str


@dataclass(frozen=True)
class Lexicon:
    """Concepts, and how texts name them. Made by `load_lexicon`."""

    concepts: Mapping[str, Concept]
    # By the first word and the second, if there is one, in lower case: few words begin a term. Longest first.
    _entries: Mapping[str, Mapping[str, tuple[_Entry, ...]]] = field(repr=False)

    def variants_of(self, concept: str) -> tuple[str, ...]:
        """Every way to write a concept, its name first.

        Raises:
            KeyError: no such concept.
        """
        found = self.concepts[concept]
        return (found.name, *found.variants)

    def find(self, text: str) -> list[tuple[str, int, int]]:
        """The concepts that a text names, as (name, start, end), in its order and without overlaps.

        Where terms overlap, the one that begins first counts, and of those the longest. Never raises.
        """
        parts = _BETWEEN.split(text)
        starts = [0, *accumulate(map(len, parts))]
        return [(entry.concept, starts[2 * first], starts[2 * last + 1]) for entry, first, last in self._matches(parts)]

    def fold(self, text: str) -> str:
        """The text with one token for each concept it names, so that synonyms become equal words.

        Folding a folded text changes nothing. Never raises.
        """
        parts = _BETWEEN.split(text)
        for entry, first, last in self._matches(parts):
            parts[2 * first] = entry.token
            parts[2 * first + 1 : 2 * last + 1] = [""] * (2 * (last - first))
        return "".join(parts)

    def _matches(self, parts: Sequence[str]) -> list[tuple[_Entry, int, int]]:
        """The terms in a text, as (entry, its first word, its last one).

        Args:
            parts: words and what stands between them, in turn.
        """
        words, gaps = parts[::2], parts[1::2]
        lower = [*map(str.lower, words), ""]
        found: list[tuple[_Entry, int, int]] = []
        after = 0  # the first word behind the last term
        for place in [place for place, word in enumerate(lower) if word in self._entries]:
            if place < after:
                continue
            begun = self._entries[lower[place]]
            for entry in (*begun.get(lower[place + 1], ()), *begun.get("", ())):
                end = place + len(entry.words)
                if entry.words == tuple((words if entry.exact else lower)[place:end]) and all(
                    _GAP.match(gap) and ("/" not in gap or entry.slash) for gap in gaps[place : end - 1]
                ):
                    found.append((entry, place, end - 1))
                    after = end
                    break
        return found


def load_lexicon(file: Path = LEXICON) -> Lexicon:
    """Read a lexicon; the same file is read once.

    Args:
        file: YAML as the one in `resources/lexicon`, whose first lines describe it.

    Raises:
        InputError: it cannot be read, is no YAML, is of another form, a name or variant is empty or stands under two
            concepts; names file and key.
    """
    return _load(file)


@cache
def _load(file: Path) -> Lexicon:
    try:
        tree = yaml.compose(file.read_text("utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise InputError(file, f"this is no readable YAML file: {problem}", _MEND) from problem
    concepts: dict[str, Concept] = {}
    owner: dict[tuple[str, ...], str] = {}  # a term in lower case → the concept it stands for
    entries: dict[str, dict[str, list[_Entry]]] = {}
    for concept, where in _concepts(tree, file):
        if concept.name in concepts:
            raise InputError(where, f"{concept.name!r} is there twice", "Join the two entries.")
        concepts[concept.name] = concept
        for variant in (concept.name, *concept.variants):
            for entry in _entries(variant, concept):
                key = tuple(map(str.lower, entry.words))
                other = owner.setdefault(key, concept.name)
                if other != concept.name:
                    raise InputError(where, f"{variant!r} stands for {other!r} too", "Keep it under one, or leave it out.")
                first, second = map(str.lower, (*entry.words, "")[:2])
                entries.setdefault(first, {}).setdefault(second, []).append(entry)
    tokens = [concept.token for concept in concepts.values()]
    for concept in concepts.values():
        if tokens.count(concept.token) > 1:
            raise InputError(f"{file}, {concept.name}", f"another concept has the token {concept.token} too", "Rename one.")
    ordered = {
        first: {second: tuple(sorted(found, key=lambda entry: -len(entry.words))) for second, found in begun.items()}
        for first, begun in entries.items()
    }
    return Lexicon(concepts, ordered)


def _concepts(tree: yaml.Node | None, file: Path) -> Iterator[tuple[Concept, str]]:
    """Every concept, and where it stands. Read as nodes: YAML would take `no` for a truth value and drop repeated keys."""
    for kind, names, where in _pairs(tree, str(file)):
        for name, below, place in _pairs(names, where):
            if isinstance(below, yaml.MappingNode):  # a class of drugs
                for drug, variants, drug_place in _pairs(below, place):
                    yield Concept(drug, kind, _variants(variants, drug_place), drug_class=name), drug_place
            else:
                yield Concept(name, kind, _variants(below, place)), place


def _pairs(node: yaml.Node | None, where: str) -> Iterator[tuple[str, yaml.Node, str]]:
    if not isinstance(node, yaml.MappingNode):
        raise InputError(where, "keys with values are expected here", _MEND)
    seen: set[str] = set()
    for key, value in node.value:
        name = _text(key, where)
        if name in seen:
            raise InputError(f"{where}, {name}, line {key.start_mark.line + 1}", "this key is there twice", "Join the two.")
        seen.add(name)
        yield name, value, f"{where}, {name}"


def _variants(node: yaml.Node, where: str) -> tuple[str, ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise InputError(where, "a list of variants is expected here", _MEND)
    return tuple(_text(item, where) for item in node.value)


def _text(node: yaml.Node, where: str) -> str:
    if not isinstance(node, yaml.ScalarNode) or not re.search("[A-Za-z]", node.value):
        raise InputError(f"{where}, line {node.start_mark.line + 1}", "a name is empty or has no letter", _MEND)
    return node.value


def _entries(variant: str, concept: Concept) -> Iterator[_Entry]:
    """A variant, and its plural."""
    words = tuple(_WORD.findall(variant))
    exact = is_exact(variant)
    ends = (words[-1], plural(words[-1])) if exact or words[-1][-1:] != "s" else (words[-1],)
    for end in ends:
        form = (*words[:-1], end)
        yield _Entry(form if exact else tuple(map(str.lower, form)), exact, "/" in variant, concept.name, concept.token)


def is_exact(variant: str) -> bool:
    """Whether a variant counts only as it is written: up to three characters, two of them capitals or a capital and a digit."""
    capitals, digits = sum(map(str.isupper, variant)), sum(map(str.isdigit, variant))
    return len(variant) <= _SHORT and (capitals > 1 or (capitals == 1 and digits > 0))


def plural(word: str) -> str:
    """The plural of a word or abbreviation: `MIs`, `biopsies`, `arrhythmias`."""
    if len(word) > 2 and word[-1] == "y" and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) and not word.isupper() else "s")
