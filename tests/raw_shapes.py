"""Rows in every shape that the data set's eleven files have, written for these tests, and what they must become."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ecg_grpo.raw_files import BY_CODE

SUMMARY = "Sinus bradycardia at 48 beats per minute. First-degree AV block."

ROWS: dict[str, list[dict[str, Any]]] = {
    "EBK": [{"Q": "Which wave shows atrial depolarisation?", "A": "The P wave shows it."}],
    "CK": [{"Q": "What does the mitral valve separate?", "A": "It separates the left atrium from the left ventricle."}],
    "CD": [
        {
            "Disease": "Chagas Cardiomyopathy",
            "Q": "Which conduction defect is typical?",
            "A": "Right bundle branch block with left anterior fascicular block is typical.",
        }
    ],
    "PP": [
        {
            "medical_advice": "Stop smoking and take the statin every evening.",
            "Q": "What is the outlook with this advice?",
            "A": "The risk of another infarction falls within a year.",
        }
    ],
    "PRTK": [{"Question": "May I read my own ECG report?", "Answer": "Yes, the report belongs to your record."}],
    "CMD": [
        {
            "subject_id": 10099991,
            "study_id": 40000017,
            "cart_id": 6848296,
            "ecg_time": "2180-07-23 08:44:00",
            "report_0": "Sinus rhythm",
            "report_1": "Left axis deviation",
            "report_2": None,
            "report_10": "Abnormal ECG",
            "bandwidth": "0.005-150 Hz",
            "filtering": "60 Hz notch Baseline filter",
            "rr_interval": 857,
            "p_onset": 40,
            "p_end": 150.0,
            "qrs_onset": "194",
            "qrs_end": 298,
            "t_end": 29999,
            "p_axis": 51,
            "qrs_axis": -38,
            "t_axis": 29999,
            "Q": "Sinus rhythm with left axis deviation.",
            "A": "What does this ECG show?",
        }
    ],
    "MROD": [
        {
            "subject_id": 10099992,
            "result": SUMMARY,
            "QA": [
                {"Q": "Why do I feel dizzy?", "A": "Your heart beats slowly, 48 times a minute."},
                {"Q": "Is that dangerous?", "A": "Not by itself; we look for a cause first."},
            ],
        },
        {
            "subject_id": "10099993",
            "result": SUMMARY,
            "QA": {
                "cause": {"Question": "What delays the beat?", "Answer": "The AV node conducts it late."},
                "therapy": {"Question": "Do I need a pacemaker?", "Answer": "Not while you have no syncope."},
            },
        },
    ],
    "LTD": [
        {
            "subject_id": 10099994.0,
            "result": SUMMARY,
            "QA": {"diagnosis": {"Question": "Which diagnosis fits?", "Answer": "Sinus node disease is likely."}},
        }
    ],
    "MC": [
        {
            "subject_id": 10099995,
            "result": SUMMARY,
            "Conversation": {
                "first visit": [
                    {"Doctor": "Good morning, what brings you here?"},
                    {"Patient": "I fainted on Monday."},
                    {"Daughter": "It was Tuesday."},
                    {"Doctor": "On Tuesday, then. Did your heart race?"},
                ],
                "correction": [{"Patient": "No, it felt slow."}, {"Doctor": "I correct my note: slow, not fast."}],
            },
        }
    ],
    "GRA": [{"subject_id": 10099996, "result": SUMMARY, "RA": "Summary\nLow risk.\n\nAdvice\n- Repeat the ECG in a year"}],
    "MEE": [
        {"subject_id": 10099997, "result": SUMMARY, "keywords": ["sinus bradycardia", "first-degree AV block"]},
        {"subject_id": 10099998, "result": SUMMARY, "keywords": "sinus bradycardia, first-degree AV block"},
    ],
}


def write_raw_files(folder: Path, **changes: list[Any]) -> Path:
    """All eleven files in a folder, some with other rows: `write_raw_files(folder, EBK=[...])`."""
    folder.mkdir(parents=True, exist_ok=True)
    for code, rows in (ROWS | changes).items():
        (folder / BY_CODE[code].name).write_text(json.dumps(rows), encoding="utf-8")
    return folder
