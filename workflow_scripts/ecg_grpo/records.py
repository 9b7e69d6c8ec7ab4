"""What a record is, whichever raw file it came from."""

from __future__ import annotations

from dataclasses import dataclass

from ecg_grpo.raw_files import BY_CODE

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Record:
    """A question with its reference answer.

    Attributes:
        id: file code, 0-based row and, in a dialogue, 0-based turn: `CD-00012`, `MROD-00003-02`; the same in every artifact.
        task: the file's code.
        source_row: 0-based position in the file's array.
        question: the question.
        answer: the reference answer.
        context: what has to be known to answer; empty for none.
        history: earlier turns of the dialogue, oldest first, as (question, answer).
        turn: 0-based position of the turn in its dialogue, None where there is no dialogue.
        subject: records with the same non-empty subject (a patient, a disease) belong in one split. A patient's number is
            hashed in it.
        patient_numbers: numbers of the patient and the recording that must not be in a text.
    """

    id: str
    task: str
    source_row: int
    question: str
    answer: str
    context: str = ""
    history: tuple[tuple[str, str], ...] = ()
    turn: int | None = None
    subject: str = ""
    patient_numbers: tuple[str, ...] = ()

    @property
    def source_file(self) -> str:
        """The raw file's name."""
        return BY_CODE[self.task].name

    @property
    def stands_alone(self) -> bool:
        """Whether its wording identifies it. Records about patients share theirs and are told apart by the patient."""
        return not BY_CODE[self.task].about_patients

    def asked(self) -> str:
        """Everything that the model is asked: context, earlier turns, question."""
        return "\0".join((self.context, *(text for turn in self.history for text in turn), self.question))


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A record that is kept apart.

    Attributes:
        record: what could be read of it.
        reason: one of a few fixed phrases, the same for all records with the same defect.
        evidence: the piece of text, the key or the other record that shows it.
        raw: the row as JSON, cut to `MOST_RAW` characters, if it could not be read as a record.
    """

    record: Record
    reason: str
    evidence: str
    raw: str = ""


MOST_RAW = 2000
"""Characters of an unreadable row that the quarantine keeps."""
