"""What the filter of reasonings takes for telling the answer, tried on the sample's references as if they were reasonings.

python benchmarks/reasoning_filter.py
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Prints a row for each kind of text: the share that each bound refuses, and that any of them does."""
    sys.path.insert(0, str(ROOT / "workflow_scripts"))
    from ecg_grpo.baselines import nearest_training_answers
    from ecg_grpo.counterfactuals import paraphrase
    from ecg_grpo.raw_files import find_raw_files
    from ecg_grpo.readers import read_records
    from ecg_grpo.reasoning import named_share, names_a_number, quotes
    from ecg_grpo.settings.bootstrap_reasoning import ReasoningFilterSettings

    records = [
        {"context": "", "question": record.question, "answer": record.answer}
        for file in find_raw_files(ROOT / "resources" / "sample")
        for record in read_records(file)
    ]
    chance, settings = random.Random(0), ReasoningFilterSettings()
    others, asked = records[::2], records[1::2]
    texts = {
        "paraphrase": [(paraphrase(record["answer"], record["question"]), record) for record in records],
        "words in random order": [
            (" ".join(chance.sample(words := record["answer"].split(), len(words))), record) for record in records
        ],
        "first half": [(" ".join((words := record["answer"].split())[: len(words) // 2]), record) for record in records],
        "nearest other answer": list(zip(nearest_training_answers(others, asked), asked, strict=True)),
    }
    print(f"{len(records)} records\n{'text':<24}{'run':>8}{'concepts':>10}{'number':>8}{'any':>8}")
    for name, pairs in texts.items():
        cases = [(text, record["question"], record["answer"]) for text, record in pairs if text is not None]
        found = [
            (
                quotes(*case, settings.max_quoted_words),
                named_share(*case) > settings.max_named_share,
                names_a_number(*case),
            )
            for case in cases
        ]
        shares = [sum(one[place] for one in found) / len(found) for place in range(3)]
        run, concept, number = shares
        either = sum(map(any, found)) / len(found)
        print(f"{name:<24}{run:>8.1%}{concept:>10.1%}{number:>8.1%}{either:>8.1%}")


if __name__ == "__main__":
    main()
