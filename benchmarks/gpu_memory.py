"""What a configuration's trainings need of a GPU: its memory, the machine's memory, seconds a step.

    python benchmarks/gpu_memory.py config/llama-3.2-3b.yaml
    python benchmarks/gpu_memory.py config/llama-3.2-3b-24gb.yaml --steps 3 --json memory.json

The model has Llama-3.2-3B's shape and random weights, so that no license and no download is needed; every record is as long as
the configuration allows, and random weights never end an answer: nothing needs more. SFT, GRPO and answering run as the
workflow's own programs with the configuration's own sections. A training is ended by SIGKILL after a few steps, before it
writes a checkpoint. Two things are left out: completions are all worth nothing, so prompts are not replaced
(`dynamic_sampling`), and guards that random weights would trip are off.

`card` is the most that the driver showed in use above what was in use before, looked at four times a second; it counts
what torch and vLLM hold in reserve. `main` is the most that the processes held together of the machine's memory, pages
that they share counted once. `seconds` is the median of the steps after the first, which warms everything up.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "workflow_scripts"
sys.path[:0] = [str(PROGRAMS), str(ROOT / "tests")]

from snakemake.utils import update_config  # noqa: E402

from ecg_grpo.files import new_model_directory  # noqa: E402
from ecg_grpo.settings.run import Settings, load_settings  # noqa: E402
from ecg_grpo.settings.training import LaunchSettings  # noqa: E402

SHAPE = {
    "vocab_size": 128_256,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 131_072,
    "tie_word_embeddings": True,
}
"""Llama-3.2-3B's, from its config.json."""

PROGRAMS_MEASURED = ["train_sft", "train_grpo", "generate_answers"]
VALIDATION_RECORDS = 64
TRIPPED_BY_NOISE = ("max_clipped_ratio", "max_frac_reward_zero_std", "max_entropy")
BETWEEN_LOOKS = 0.25
"""Seconds."""


class Watch(threading.Thread):
    """The most memory that a process and its children held since this was started."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        super().__init__(daemon=True)
        self._process, self._before, self._ended = process, used_on_card(), threading.Event()
        self.card = self.main = 0.0

    def run(self) -> None:
        while not self._ended.wait(BETWEEN_LOOKS):
            self.card = max(self.card, used_on_card() - self._before)
            self.main = max(self.main, held_by(self._process.pid))

    def stop(self) -> None:
        self._ended.set()
        self.join()


def used_on_card() -> float:
    """Gigabytes in use on the first card, by everybody."""
    query = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(query, capture_output=True, text=True, check=True).stdout) * 2**20 / 1e9


def held_by(process: int) -> float:
    """Gigabytes of main memory that a process and all its children hold, each its share of what is shared."""
    held = 0
    try:
        for one in [psutil.Process(process), *psutil.Process(process).children(recursive=True)]:
            fields = dict(line.split(":") for line in Path(f"/proc/{one.pid}/smaps_rollup").read_text().splitlines()[1:])
            held += int(fields["Pss"].split()[0]) * 1024
    except (OSError, psutil.NoSuchProcess, KeyError):
        pass  # it ended meanwhile
    return held / 1e9


def save_random_model(folder: Path, layers: int) -> None:
    """Weights of the shape, drawn on the card, and a tokenizer with Llama 3's numbers in which a byte is a token."""
    import torch
    from llama_3 import byte_level_tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, logging

    logging.disable_progress_bar()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level_tokenizer(),
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token="<|finetune_right_pad_id|>",
        chat_template=(ROOT / "resources/chat_templates/llama-3.jinja").read_text(),
    )
    tokens = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(LlamaConfig(**SHAPE | {"num_hidden_layers": layers}, **tokens))
    with new_model_directory(folder) as directory:
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)


def save_records(file: Path, number: int, prompt_tokens: int, answer_tokens: int, folder: Path) -> None:
    """Questions and answers that differ, of exactly so many tokens, chat template and end token included."""
    import pyarrow
    import pyarrow.parquet
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    system = {"role": "system", "content": "Answer."}

    def length(question: str) -> int:
        prompt = [system, {"role": "user", "content": question}]
        return len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False))

    room = prompt_tokens - length("x") + 1
    rows = []
    for record in range(number):
        question, answer = f"{record:05d}?".ljust(room, "q"), f"{record:05d}.".ljust(answer_tokens - 1, "a")
        rows.append(
            {
                "id": f"{record:05d}",
                "task": "none",
                "question": question,
                "answer": answer,
                "prompt": [system, {"role": "user", "content": question}],
                "prompt_tokens": length(question),
            }
        )
    assert {row["prompt_tokens"] for row in rows} == {prompt_tokens}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)


def seconds_of_steps(log: Path) -> list[float]:
    """When each step ended, in seconds since the training began."""
    if not log.exists():
        return []
    entries = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
    return [entry["seconds"] for entry in entries if "loss" in entry]


def measure(name: str, command: str, folder: Path, steps: int | None) -> dict[str, Any]:
    """Runs a program until it has done so many steps, or to its end.

    Raises:
        SystemExit: it ended before, with what it printed last.
    """
    printed = folder / f"{name}.txt"
    begun = time.monotonic()
    with printed.open("w") as stream:
        process = subprocess.Popen(
            command, shell=True, stdout=stream, stderr=subprocess.STDOUT, cwd=ROOT, text=True, start_new_session=True
        )
    watch = Watch(process)
    watch.start()
    done: list[float] = []
    try:
        while process.poll() is None and (steps is None or len(done) < steps):
            time.sleep(BETWEEN_LOOKS)
            logs = list(folder.glob(f"{name}/scratch/*/training_log.jsonl"))
            done = seconds_of_steps(logs[0]) if logs else []
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        watch.stop()
    if len(done) < steps if steps is not None else process.returncode:
        sys.exit(f"{name} ended with {process.returncode}:\n" + printed.read_text()[-3000:])
    found: dict[str, Any] = {"program": name, "card_gb": watch.card, "main_gb": watch.main, "wall": time.monotonic() - begun}
    if steps is not None:
        found["seconds"] = statistics.median(later - earlier for earlier, later in itertools.pairwise(done))
    return found


def commands(settings: Settings, folder: Path) -> dict[str, tuple[str, bool]]:
    """What the workflow's rules run in a shell, by name, and whether it trains."""
    manifest, train, validation = (folder / name for name in ("model/manifest.json", "train.parquet", "validation.parquet"))
    sft, grpo = json.loads(settings.sft.as_json()), json.loads(settings.grpo.as_json())
    sft["evaluations"] = 1  # at the end, so that no step holds one
    grpo["guards"] |= dict.fromkeys(TRIPPED_BY_NOISE)
    grpo["dynamic_sampling"] = None

    def program(name: str, *arguments: object) -> str:
        return shlex.join(map(str, (f"workflow_scripts/{name}.py", *arguments, "--threads", os.cpu_count())))

    def training(name: str, launch: LaunchSettings, *arguments: object) -> str:
        own = folder / name
        outputs = {"scratch": "scratch", "training-log": "log.jsonl", "checkpoint": "checkpoint/manifest.json"}
        words = [word for flag, file in outputs.items() for word in (f"--{flag}", own / file)]
        data = ("--train", train, "--validation", validation, "--launch-files", *launch.files())
        return f"{launch.command()} {program(name, *data, *words, *arguments)}"

    base = ("--base-model", manifest, "--settings", json.dumps(sft))
    policy = ("--sft-model", manifest, "--settings", json.dumps(grpo), "--reward", settings.reward_in_use.as_json())
    answers = ("--model", manifest, "--questions", validation, "--settings", settings.evaluation.generation.as_json())
    return {
        "train_sft": (training("train_sft", settings.sft.launch, *base), True),
        "train_grpo": (
            training("train_grpo", settings.grpo.launch, *policy, "--completions", folder / "completions.parquet"),
            True,
        ),
        "generate_answers": (f"python {program('generate_answers', *answers, '--answers', folder / 'answers.parquet')}", False),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configuration", type=Path, help="file that is given to snakemake --configfile")
    parser.add_argument("--steps", type=int, default=4, help="steps of each training, at least 2 (default: 4)")
    parser.add_argument(
        "--only", nargs="+", choices=PROGRAMS_MEASURED, default=PROGRAMS_MEASURED, help="what is measured (default: all three)"
    )
    parser.add_argument("--layers", type=int, default=SHAPE["num_hidden_layers"], help="fewer, to try this out (default: 28)")
    parser.add_argument("--folder", type=Path, help="where models and checkpoints go (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    if arguments.steps < 2:
        parser.error("--steps: at least 2, since the first one only warms up")
    if not shutil.which("nvidia-smi"):
        parser.error("no nvidia-smi on this machine: this measures NVIDIA's cards")
    configuration = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    update_config(configuration, yaml.safe_load(arguments.configuration.read_text()))
    settings = load_settings(configuration, [str(arguments.configuration)])
    card = "--query-gpu=name,memory.total"
    print(
        subprocess.run(["nvidia-smi", card, "--format=csv,noheader"], capture_output=True, text=True, check=True).stdout, end=""
    )
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        folder = Path(temporary)
        draw = [
            sys.executable,
            "-c",
            f"import gpu_memory as g; g.save_random_model(g.Path({str(folder / 'model')!r}), {arguments.layers})",
        ]
        subprocess.run(
            draw, check=True, env=os.environ | {"PYTHONPATH": f"{ROOT / 'benchmarks'}:{os.environ.get('PYTHONPATH', '')}"}
        )
        lengths = (settings.data.max_prompt_tokens, settings.data.max_answer_tokens, folder / "model")
        longest = max(settings.grpo.prompts_per_step, settings.sft.sequences_per_step) * (arguments.steps + 1)
        save_records(folder / "train.parquet", longest, *lengths)
        save_records(folder / "validation.parquet", VALIDATION_RECORDS, *lengths)
        found = []
        print(f"{'':18}{'card, GB':>10}{'main, GB':>10}{'s a step':>10}{'s in all':>10}")
        for name, (command, trains) in commands(settings, folder).items():
            if name in arguments.only:
                one = measure(name, command, folder, arguments.steps if trains else None)
                found.append(one)
                step = f"{one['seconds']:10.1f}" if trains else " " * 10
                print(f"{name:18}{one['card_gb']:10.1f}{one['main_gb']:10.1f}{step}{one['wall']:10.0f}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
