"""Counts in how many answers of the project's sample each term stands: what makes a concept rare in `concept_f1`.

    python workflow_scripts/count_terms.py --raw resources/sample/*.json --counts resources/lexicon/term_counts.tsv

To be run again, and its result committed, when the sample or the lexicon changes; a test holds the file to that.
"""

from __future__ import annotations

import argparse
from collections import Counter

from ecg_grpo.concepts import terms
from ecg_grpo.files import new_file
from ecg_grpo.readers import read_records
from ecg_grpo.stage import Stage, StageParser

parser = StageParser("count_terms", __doc__)
parser.add_input("--raw", nargs="+", metavar="JSON", help="raw files of ECG-Expert-QA's shape")
parser.add_output("--counts", help="table to write: the number of answers, then a term and its count a line")


def count_terms(arguments: argparse.Namespace, stage: Stage) -> None:
    """Counts and writes; a term that stands in one answer only is left out, since an unseen one weighs nearly the same."""
    answers = [record.answer for file in arguments.raw for record in read_records(file)]
    counts = Counter(term for answer in answers for term in set(terms(answer)))
    lines = [f"answers\t{len(answers)}", *(f"{term}\t{count}" for term, count in sorted(counts.items()) if count > 1)]
    with new_file(arguments.counts) as file:
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser.run(count_terms)
