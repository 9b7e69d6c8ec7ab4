"""Votes of readers become pairs that the reward model can train on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ecg_grpo.chat_models import ChatSampling
from ecg_grpo.conversation import Turn
from ecg_grpo.errors import InputError
from ecg_grpo.preference_pairs import PREFERENCE_PAIRS
from ecg_grpo.trained_models import TrainedModel
from ecg_grpo.votes import Votes, pairs_of

PROMPT = [{"role": "system", "content": "You are a cardiologist."}, {"role": "user", "content": "What is a P wave?"}]
SFT, BASE = TrainedModel("sft", Path("sft"), "a1", ""), TrainedModel("base", Path("base"), "b2", "")
GOOD = Turn(SFT, PROMPT, "<think>…", "Atrial depolarisation.", "…", ChatSampling(), "stop", 1.0, 0.1)
BAD = replace(GOOD, model=BASE, prediction="A kind of ocean wave.")
OTHER = replace(GOOD, prompt=[*PROMPT[:1], {"role": "user", "content": "What is a T wave?"}])


def pairs_on_disk(folder: Path) -> list[tuple[str, str]]:
    table = pq.read_table(folder / "preference_pairs.parquet")
    assert table.schema.equals(PREFERENCE_PAIRS)
    return [(row["chosen"], row["rejected"]) for row in table.to_pylist()]


def test_liked_and_disliked_answers_to_one_question_are_pairs(tmp_path: Path) -> None:
    votes = Votes(tmp_path)
    assert votes.add(GOOD, True) == 0
    assert votes.add(OTHER, False) == 0, "another question"
    assert votes.add(BAD, False) == 1
    assert pairs_on_disk(tmp_path) == [(GOOD.prediction, BAD.prediction)]
    (pair,) = pq.read_table(tmp_path / "preference_pairs.parquet").to_pylist()
    assert (pair["prompt"], pair["task"], pair["kind"]) == (PROMPT, "chat", "vote")


def test_the_last_vote_on_an_answer_counts_and_votes_survive_the_program(tmp_path: Path) -> None:
    votes = Votes(tmp_path)
    votes.add(GOOD, True)
    votes.add(BAD, False)
    again = Votes(tmp_path)
    assert again.add(BAD, None) == 0, "taken back"
    again.add(BAD, True)
    assert again.add(GOOD, False) == 1
    assert pairs_on_disk(tmp_path) == [(BAD.prediction, GOOD.prediction)]


def test_a_vote_that_cannot_be_kept_is_one_message(tmp_path: Path) -> None:
    votes = Votes(tmp_path / "gone")
    with pytest.raises(InputError, match=r"votes\.jsonl"):
        votes.add(GOOD, True)


def test_several_pages_vote_at_once(tmp_path: Path) -> None:
    """Each has its own `Votes`, and each vote of all makes its pairs."""
    answers = [replace(BAD, prediction=f"Answer {number}.") for number in range(24)]
    pages = [Votes(tmp_path) for _ in range(3)]
    pages[0].add(GOOD, True)
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda entry: pages[entry[0] % 3].add(entry[1], False), enumerate(answers)))
    assert sorted(counts) == list(range(1, 25))
    assert sorted(pairs_on_disk(tmp_path)) == sorted((GOOD.prediction, answer.prediction) for answer in answers)


@pytest.mark.parametrize("line", ["no JSON", "[1]", '{"prompt": []}'])
def test_a_line_that_is_no_vote_is_named(tmp_path: Path, line: str) -> None:
    votes = Votes(tmp_path)
    votes.add(GOOD, True)
    with (tmp_path / "votes.jsonl").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(InputError, match=r"votes\.jsonl, line 2"):
        Votes(tmp_path)
    with pytest.raises(InputError, match=r"votes\.jsonl, line 2"):
        votes.add(BAD, False)


def test_the_newest_vote_on_an_answer_is_the_one_that_counts() -> None:
    vote = {"prompt": PROMPT, "prediction": "Yes.", "liked": True}
    other = vote | {"prediction": "No.", "liked": False}
    assert len(pairs_of([vote, other])) == 1
    assert pairs_of([vote, other, vote | {"liked": None}]) == []
