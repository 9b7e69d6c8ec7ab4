"""Counts in how many questions and answers each character 4-gram stands: the fixed weights of text similarity.

Its result, resources/similarity/common_ngrams.tsv, is part of the project and made once: with other weights other records
would count as near-duplicates, and every split would change.
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

from ecg_grpo.files import new_file
from ecg_grpo.readers import read_records
from ecg_grpo.records import Record
from ecg_grpo.similarity import NGRAM
from ecg_grpo.stage import Stage, StageParser

parser = StageParser("count_common_ngrams", __doc__)
parser.add_input("--raw", nargs="+", metavar="JSON", help="files of records that may be published")
parser.add_output("--ngrams", help="table to write (tab-separated)")


def count_common_ngrams(arguments: argparse.Namespace, stage: Stage) -> None:
    """Reads, counts, writes the grams that more than one text has."""
    records = [record for file in arguments.raw for record in read_records(file) if isinstance(record, Record)]
    texts = [text.casefold() for record in records for text in (record.question, record.answer)]
    counter = CountVectorizer(analyzer="char_wb", ngram_range=(NGRAM, NGRAM), binary=True)
    counts = np.asarray(counter.fit_transform(texts).sum(axis=0)).ravel()
    lines = [
        f"{gram.replace(' ', '_')}\t{count / len(texts):.4f}"
        for gram, count in zip(counter.get_feature_names_out(), counts, strict=True)
        if count > 1
    ]
    with new_file(arguments.ngrams) as partial:
        header = (
            f"# character {NGRAM}-gram (_ for a space), share of {len(texts)} cardiology questions and answers that have it\n"
        )
        partial.write_text(header + "\n".join(lines) + "\n", encoding="utf-8")
    stage.say(f"{len(lines)} grams in {len(texts)} texts")


if __name__ == "__main__":
    parser.run(count_common_ngrams)
