"""The eleven files of ECG-Expert-QA: their names, codes and fingerprints.

Public home of the data: Zaozzz/ECG-Expert-QA; paper: arXiv 2502.17475. It carries no license, so none of it is in this
project: it is fetched to where it is used, or read from a local folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ecg_grpo.errors import InputError


@dataclass(frozen=True)
class RawFile:
    """One file of the data set.

    Attributes:
        code: the short name of its task, part of every record's id.
        name: the file's original name.
        title: what it holds, in words.
        git_blob: git blob SHA-1 of its content, line ends untouched.
        records: how many records the published file has; of dialogues the turns, as other loaders of these files count them.
        about_patients: whether each record is about one patient. Such records share their wording ("What does my ECG
            show?") and differ in the patient, so it is the patient that must not be in two splits. In the other files
            the wording is the record.
        prose: whether every answer is made of whole sentences, so that a missing full stop shows a cut.
    """

    code: str
    name: str
    title: str
    git_blob: str
    records: int
    about_patients: bool = False
    prose: bool = False


RAW_FILES = (
    RawFile(
        *("EBK", "ECG Knowledge (Basic Q&A).json", "ECG knowledge", "ba05c4b298cf667ecadae9e0d271744dae55c2f4"),
        records=2_247,
        prose=True,
    ),
    RawFile(
        *("CK", "Cardiology Knowledge (Basic Knowledge Q&A).json", "Cardiology knowledge"),
        git_blob="c59512c04f59ea9f6f6770bdd551f543fd6e149b",
        records=2_592,
        prose=True,
    ),
    RawFile(
        *("CD", "Complex diagnosis (analysis of difficult diseases).json", "Difficult diseases"),
        git_blob="6a7426de57e41b4a3e00b74f8771b761a58b8305",
        records=1_931,
        prose=True,
    ),
    RawFile(
        *("PP", "Patient prognosis (prognostic analysis).json", "Prognosis"),
        git_blob="8dddf2f7fd8b89a89f802b36fadf45020058bd92",
        records=1_164,
        prose=True,
    ),
    RawFile(
        *("PRTK", "Patient's right to know.json", "Patients' right to know"),
        git_blob="d074e4fc6b07c3c94f32b02a40f2c86a5716e160",
        records=1_357,
        prose=True,
    ),
    RawFile(
        *("CMD", "Cross modal diagnosis (ECG Text corresponding diagnosis).json", "Diagnosis from an ECG's report"),
        git_blob="4211062ff3381a07404ee80c003ad5ed7c27079a",
        records=20_032,
        about_patients=True,
    ),
    RawFile(
        *("MROD", "Medical inquiry, multiple rounds of dialogue between doctors and patients.json", "Medical inquiry"),
        git_blob="e1230184ff36087e2feb5646a84534bea3fd7ace",
        records=28_308,
        about_patients=True,
    ),
    RawFile(
        *("LTD", "Long text diagnosis.json", "Diagnosis from a long text"),
        git_blob="4a1c0d8e5eec9b76295819c5c666661ca15a9948",
        records=8_789,
        about_patients=True,
    ),
    RawFile(
        *("MC", "Memory correction.json", "Memory correction"),
        git_blob="9c161f60b6be943b0ac26a26952432fa706db4a5",
        records=7_905,
        about_patients=True,
    ),
    RawFile(
        *("GRA", "Generate risk assessment.json", "Risk assessment"),
        git_blob="54ab23b315a8fc381ea822a49cde436f0a20c60f",
        records=2_931,
        about_patients=True,
    ),
    RawFile(
        *("MEE", "Medical entity extraction.json", "Medical entities"),
        git_blob="31c27f92c2cac94a23d92af89cf648d1d74e2e8d",
        records=2_621,
        about_patients=True,
    ),
)
"""In the order in which their records are read: knowledge first, then patients."""

BY_CODE = {raw.code: raw for raw in RAW_FILES}
BY_NAME = {raw.name: raw for raw in RAW_FILES}


def raw_file_named(file: Path) -> RawFile:
    """What is known of a file, by its name.

    Raises:
        InputError: the data set has no file of this name.
    """
    if file.name not in BY_NAME:
        mend = f"Give it its original name or move it out of the folder. Known names: {'; '.join(BY_NAME)}."
        raise InputError(file, "not a file of ECG-Expert-QA", mend)
    return BY_NAME[file.name]


def git_blob_sha1(file: Path) -> str:
    """The SHA-1 that git gives a file's bytes as they are (`git hash-object --no-filters`), 40 hexadecimal digits."""
    digest = hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def in_reading_order(files: Iterable[Path]) -> list[Path]:
    """Raw files in the order of `RAW_FILES`, whichever order they are given in.

    Raises:
        InputError: one has another name, or two have the same.
    """
    named: dict[str, Path] = {}
    for file in files:
        raw_file_named(file)
        if file.name in named:
            raise InputError(file, f"there is another file of this name ({named[file.name]})", "Give one of the two.")
        named[file.name] = file
    return [named[name] for name in BY_NAME if name in named]


def find_raw_files(raw_dir: str | Path) -> list[Path]:
    """The files of ECG-Expert-QA that a folder holds, in the order of `RAW_FILES`.

    Raises:
        InputError: the folder does not exist, holds none of them, or holds a JSON file of another name (a misspelt name
            would otherwise be left out in silence).
    """
    raw_dir = Path(raw_dir)
    mend = "Set data.raw_dir in the configuration to a folder with ECG-Expert-QA's JSON files, or to null to fetch them."
    if not raw_dir.is_dir():
        raise InputError(raw_dir, "this raw data folder does not exist", mend)
    for file in sorted(raw_dir.glob("*.json")):
        raw_file_named(file)
    found = [raw_dir / raw.name for raw in RAW_FILES if (raw_dir / raw.name).is_file()]
    if not found:
        expected = "; ".join(BY_NAME)
        raise InputError(raw_dir, f"none of the raw files is in this folder (expected one or more of: {expected})", mend)
    return found
