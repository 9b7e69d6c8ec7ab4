"""Makes pairs of a better and a worse answer from the references of a split, for a reward model to learn from.

The better answer is the reference or a paraphrase of it; `ecg_grpo.preference_pairs` lists the kinds of worse ones. The account
says how many there are of each kind and how long they are, since a reward model would gladly learn length alone.

    python workflow_scripts/make_preference_pairs.py --help
"""

from __future__ import annotations

import argparse

from ecg_grpo.files import write_json
from ecg_grpo.preference_pairs import (
    PREFERENCE_PAIRS,
    RECORD_COLUMNS,
    account,
    preference_pairs,
    read_samples,
    require_pairs,
)
from ecg_grpo.settings.reward_model import PairSettings
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import read_rows, write_table

parser = StageParser("make_preference_pairs", __doc__)
parser.add_input("--records", help="split with the reference answers (parquet)")
parser.add_input(
    "--samples", nargs="*", default=[], metavar="FILE", help="completions of the SFT model to some of the questions (parquet)"
)
parser.add_output("--pairs", help="pairs to write (parquet)")
parser.add_output("--account", help="numbers of pairs and their lengths, by kind, to write (JSON)")
parser.add_argument("--held-out", action="store_true", help="make pairs of every kind that applies, however many of a record")
parser.add_settings("reward_model.pairs")


def make_preference_pairs(arguments: argparse.Namespace, stage: Stage) -> None:
    """Reads, makes, counts, writes."""
    settings = PairSettings.from_json(arguments.settings)
    records = read_rows(arguments.records, *RECORD_COLUMNS)
    samples = read_samples(arguments.samples)
    pairs = preference_pairs(records, settings, samples, arguments.held_out)
    require_pairs(arguments.records, pairs)
    made = account(pairs, len(records)) | {"records_with_samples": sum(record["id"] in samples for record in records)}
    stage.facts["pairs"] = {kind: lengths["pairs"] for kind, lengths in made["kinds"].items()}
    stage.say(f"{stage.name}: {len(pairs)} pairs of {len(records)} records: {stage.facts['pairs']}")
    write_table(arguments.pairs, pairs, PREFERENCE_PAIRS, {"settings": arguments.settings})
    write_json(arguments.account, made)


if __name__ == "__main__":
    parser.run(make_preference_pairs)
