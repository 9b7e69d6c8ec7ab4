"""How fast workflow_scripts/train_sft.py and train_grpo.py train, against TRL's own command line on the same work.

    python benchmarks/training.py --rounds 2 --json training.json
    python benchmarks/training.py --sft-only --records 48

Model and text are the demo's; `snakemake` makes them if they are missing. Both sides get the same records, base model, batches
(4 records x 4 accumulated), adapter, learning rate and seed. Three variants take turns, because a machine's speed drifts:

  ours         the workflow's program, as the workflow runs it
  TRL default  `trl sft`, `trl grpo`: float32 weights, bfloat16 autocast, activations recomputed in the backward pass
  TRL tuned    the same without recomputation, in the number format that `ecg_grpo.device` finds fastest on this machine

SFT is measured in tokens a second (prompt and answer, no padding: both sides must have counted what the chat template gives),
GRPO in seconds an optimizer step (2 prompts x 8 completions of at most 96 tokens). The first step, which warms everything up,
is stated apart, and so is what lies outside the steps: imports, loading, tokenizing, validation, writing. A ratio is taken
within a round; above 1, ours is faster. `busy` is how many processors a process got: far fewer in one variant than in another
means that something else ran beside it, and the ratio is void.

Every process is watched from within by two hooks, so nothing is inferred: the optimizer's step ends a step, and the shapes
that reach the embedding, with and without gradients, tell trained and rolled-out positions. Beside speed stand

  padding   share of the trained positions that are padding; below 0 where completions share one copy of their prompt
  useful    floating-point operations that the method needs, over the step's time and the machine's own rate
  executed  the same for what was computed: with padding, with recomputation, with the output head wherever it was applied

A token needs 2N operations forward and 2N for the gradient of activations, N being the layers' matrices; those are frozen, so
only the adapter needs 2N more for its own gradient. Recomputation costs 2N again. The output head needs 4N, at the positions
that are scored. A rolled-out token costs 2N. Attention's own products are left out: they are under 3 % at these lengths. The
rate is that of a large square product in the variant's number format, measured before every round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "workflow_scripts"
TRACE = "ECG_GRPO_TRACE"
"""Environment variable: the file that a watched process writes its events to."""

WATCHED = {"train_sft.py", "train_grpo.py", "sft.py", "grpo.py"}
LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}
BATCH = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "seed": 42}
SFT = BATCH | {"learning_rate": 1e-3, "lr_scheduler_type": "cosine", "warmup_steps": 0.05}
GRPO = BATCH | {
    "num_generations": 8,
    "max_completion_length": 96,
    "learning_rate": 2e-5,
    "lr_scheduler_type": "constant_with_warmup",
    "warmup_steps": 0,
}
COMPLETIONS = BATCH["per_device_train_batch_size"] * BATCH["gradient_accumulation_steps"]
LAST_ONLY = 10_000
"""Steps between two checkpoints: the only one is that of the end, outside the measured time."""


class RunFailed(Exception):
    """A process ended with an error, or did not train on what it should have."""


@dataclass(frozen=True)
class Job:
    """What all variants are given.

    Attributes:
        train: the records (parquet), as the workflow's programs read them.
        validation: a few records that ours validates on.
        trl_data: folders with the same records as TRL reads them, for `sft` and `grpo`.
        base_model: model directory.
        dtype: the number format that is fastest on this machine.
        steps: optimizer steps of GRPO.
        threads: processor threads.
    """

    train: Path
    validation: Path
    trl_data: Path
    base_model: Path
    dtype: str
    steps: int
    threads: int


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        name: as it is printed.
        command: what is run, given the job and a folder for its files.
        dtype: number format of its products; None is the one that is fastest on this machine.
        recomputes: whether activations are recomputed in the backward pass.
        scores_all: whether the output head is applied to every position, or only to those that are scored.
    """

    name: str
    command: Callable[[Job, Path], list[Any]]
    dtype: str | None
    recomputes: bool
    scores_all: bool


@dataclass(frozen=True)
class Parameters:
    """How many parameters a token meets: the layers' matrices, their adapters, the output head."""

    layers: int
    adapters: int
    head: int


def own_sft(job: Job, folder: Path) -> list[Any]:
    """The command line of the workflow's SFT program."""
    settings = SFT | {"lora": LORA, "evaluations": 1, "save_steps": LAST_ONLY, "precision": job.dtype}
    return [
        *(sys.executable, PROGRAMS / "train_sft.py", "--train", job.train, "--validation", job.validation),
        *("--base-model", job.base_model / "manifest.json", "--training-log", folder / "training_log.jsonl"),
        *("--checkpoint", folder / "checkpoint/manifest.json"),
        *("--scratch", folder / "scratch", "--settings", json.dumps(settings), "--threads", job.threads),
    ]


def own_grpo(job: Job, folder: Path) -> list[Any]:
    """The command line of the workflow's GRPO program."""
    settings = GRPO | {
        "lora": LORA,
        "save_steps": LAST_ONLY,
        "precision": job.dtype,
        "max_steps": job.steps,
    }
    return [
        *(sys.executable, PROGRAMS / "train_grpo.py", "--train", job.train, "--validation", job.validation),
        *("--sft-model", job.base_model / "manifest.json", "--training-log", folder / "training_log.jsonl"),
        *("--checkpoint", folder / "checkpoint/manifest.json", "--completions", folder / "completions.parquet"),
        *("--scratch", folder / "scratch", "--settings", json.dumps(settings), "--threads", job.threads),
    ]


def trl_sft(job: Job, folder: Path) -> list[Any]:
    """The command line of TRL's SFT; what is not named is at its default."""
    return _trl("sft", job, folder, SFT | {"num_train_epochs": 1})


def trl_grpo(job: Job, folder: Path) -> list[Any]:
    """The command line of TRL's GRPO; what is not named is at its default."""
    sys.path.insert(0, str(PROGRAMS))
    from training_rewards import FUNCTIONS

    command = _trl("grpo", job, folder, GRPO | {"max_steps": job.steps})
    rewards = ("--reward_funcs", *(f"training_rewards.{name}" for name in FUNCTIONS))
    return [*command, *rewards, "--reward_weights", *(weight for _, weight in FUNCTIONS.values())]


def tuned(command: Callable[[Job, Path], list[Any]]) -> Callable[[Job, Path], list[Any]]:
    """The command line with what one would set by hand on this machine."""
    by_hand = ("--gradient_checkpointing", "false", "--bf16", "false", "--dtype")
    return lambda job, folder: [*command(job, folder), *by_hand, job.dtype]


def _trl(method: str, job: Job, folder: Path, options: Mapping[str, Any]) -> list[Any]:
    adapter = {f"lora_{name.removeprefix('lora_')}": value for name, value in LORA.items()}
    common = {"model_name_or_path": job.base_model, "dataset_name": job.trl_data / method, "output_dir": folder / "trl"}
    return [
        *(Path(sys.executable).parent / "trl", method, "--use_cpu", "--use_peft"),
        *("--logging_steps", 1, "--report_to", "none", "--disable_tqdm", "true"),
        *(word for name, value in (common | adapter | dict(options)).items() for word in (f"--{name}", value)),
    ]


def variants(own: Callable[[Job, Path], list[Any]], trl: Callable[[Job, Path], list[Any]]) -> list[Variant]:
    """What is compared, in the order of a round."""
    return [
        Variant("ours", own, None, recomputes=False, scores_all=False),
        Variant("TRL default", trl, "bfloat16", recomputes=True, scores_all=True),
        Variant("TRL tuned", tuned(trl), None, recomputes=False, scores_all=True),
    ]


def watch() -> None:
    """Called at the start of every process that a run starts: puts the hooks into the one that trains."""
    if TRACE not in os.environ or not any(Path(word).name in WATCHED for word in sys.orig_argv):
        return
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    stream = Path(os.environ[TRACE]).open("a", encoding="utf-8")  # noqa: SIM115 it stays open as long as the process

    def write(**event: Any) -> None:
        stream.write(json.dumps({"at": time.monotonic()} | event) + "\n")
        stream.flush()

    embed = torch.nn.Embedding.forward

    def forward(self: torch.nn.Embedding, tokens: torch.Tensor) -> torch.Tensor:
        write(rows=tokens.numel() // max(1, tokens.shape[-1]), positions=tokens.numel(), trains=torch.is_grad_enabled())
        return embed(self, tokens)

    torch.nn.Embedding.forward = forward
    register_optimizer_step_post_hook(lambda *_: write(step=True))


def run(variant: Variant, job: Job, folder: Path) -> dict[str, Any]:
    """Runs one variant in a process of its own.

    Returns:
        `wall`: seconds of the whole process, `busy`: processors it kept busy meanwhile; and what `steps_of` gives.

    Raises:
        RunFailed: it ended with an error.
    """
    folder.mkdir(parents=True)
    (folder / "hook").mkdir()
    (folder / "hook/sitecustomize.py").write_text("import training\n\ntraining.watch()\n", encoding="utf-8")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, (folder / "hook", Path(__file__).parent, PROGRAMS))),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(folder / "datasets"),
        "OMP_NUM_THREADS": str(job.threads),
        "TOKENIZERS_PARALLELISM": "false",
        TRACE: str(folder / "trace.jsonl"),
    }
    printed = folder / "printed.txt"
    started, before = time.monotonic(), os.times()
    with printed.open("w", encoding="utf-8") as stream:
        command = list(map(str, variant.command(job, folder)))
        status = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, env=environment, check=False).returncode
    wall, after = time.monotonic() - started, os.times()
    busy = (after.children_user + after.children_system - before.children_user - before.children_system) / wall
    if status:
        last = "\n".join(printed.read_text(encoding="utf-8", errors="replace").splitlines()[-25:])
        raise RunFailed(f"{variant.name} ended with {status}:\n{' '.join(command)}\n{last}")
    return {"wall": wall, "busy": busy} | steps_of(_json_lines(folder / "trace.jsonl"), _training_log(folder))


def _json_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _training_log(folder: Path) -> list[dict[str, Any]]:
    """One entry a step, from ours or from TRL's last checkpoint; both count `tokens` from the beginning."""
    own = folder / "training_log.jsonl"
    if own.is_file():
        entries = _json_lines(own)
    else:
        (state,) = folder.glob("trl/checkpoint-*/trainer_state.json")
        entries = json.loads(state.read_text(encoding="utf-8"))["log_history"]
    return [entry | {"tokens": entry.get("tokens", entry.get("num_tokens"))} for entry in entries if "loss" in entry]


def steps_of(trace: Iterable[Mapping[str, Any]], log: list[dict[str, Any]]) -> dict[str, Any]:
    """What each optimizer step took and did.

    Args:
        trace: events of `watch`, in order of time.
        log: the trainer's own entry of every step.

    Returns:
        `steps`: of each its `seconds`, `tokens`, `positions` trained, `rolled_out` (`positions` without gradients and `rows`,
        one for each token that was sampled), `loss`, and with GRPO `reward` and `completion_tokens`.

    Raises:
        RunFailed: trace and log disagree on the number of steps.
    """
    # GRPO's first step begins with its rollouts; a validation before SFT's first step does not belong to it.
    grpo = "step_time" in log[0]
    begin: float | None = None
    counts = dict.fromkeys(("positions", "rolled_out_positions", "rolled_out_rows"), 0)
    steps: list[dict[str, Any]] = []
    for event in trace:
        if "step" in event:
            steps.append({"seconds": event["at"] - begin} | counts)
            begin, counts = event["at"], dict.fromkeys(counts, 0)
        elif event["trains"] or grpo:
            begin = event["at"] if begin is None else begin
            counts["positions" if event["trains"] else "rolled_out_positions"] += event["positions"]
            counts["rolled_out_rows"] += 0 if event["trains"] else event["rows"]
    if len(steps) != len(log):
        raise RunFailed(f"{len(steps)} optimizer steps were seen, but the log has {len(log)}")
    before = 0.0
    for step, entry in zip(steps, log, strict=True):
        step |= {"tokens": entry["tokens"] - before, "loss": entry["loss"]}
        before = entry["tokens"]
        if grpo:
            step |= {"reward": entry["reward"], "completion_tokens": entry["completions/mean_length"] * COMPLETIONS}
    return {"steps": steps}


def padding_share(tokens: float, positions: float) -> float:
    """Share of the positions that hold no token."""
    return 1 - tokens / positions


def training_flops(parameters: Parameters, tokens: float, scored: float, recomputes: bool = False) -> float:
    """Operations of forward and backward pass.

    Args:
        parameters: what a token meets.
        tokens: positions that pass the layers.
        scored: positions that pass the output head.
        recomputes: the layers' forward pass is made twice.
    """
    again = 2 if recomputes else 0
    return tokens * ((4 + again) * parameters.layers + (6 + again) * parameters.adapters) + scored * 4 * parameters.head


def rollout_flops(parameters: Parameters, tokens: float, sampled: float) -> float:
    """Operations of sampling: every token passes the layers once, every sampled one came out of the output head."""
    return 2 * (tokens * (parameters.layers + parameters.adapters) + sampled * parameters.head)


def parameters_of(shapes: Mapping[str, tuple[int, ...]], rank: int) -> Parameters:
    """Counts the matrices of a Llama-like model by name and shape; the head may be tied to the embedding."""
    layers = [shape for name, shape in shapes.items() if ".layers." in name and len(shape) == 2]
    head = shapes["lm_head.weight"] if "lm_head.weight" in shapes else shapes["model.embed_tokens.weight"]
    return Parameters(
        layers=sum(rows * columns for rows, columns in layers),
        adapters=sum(rank * (rows + columns) for rows, columns in layers),
        head=head[0] * head[1],
    )


def figures_of(
    found: Mapping[str, Any], variant: Variant, parameters: Parameters, rates: Mapping[str, float], scored_share: float
) -> dict[str, Any]:
    """The printed figures of one run, over all steps but the first.

    Args:
        found: what `run` gave.
        variant: which one it was.
        parameters: what a token meets.
        rates: operations a second of this machine, by number format.
        scored_share: SFT's share of tokens that are scored.
    """
    steps = found["steps"]
    warm = steps[1:]
    total = {name: sum(step[name] for step in warm) for name in warm[0]}
    scored = total.get("completion_tokens", total["tokens"] * scored_share)
    useful = training_flops(parameters, total["tokens"], scored)
    executed = training_flops(
        parameters, total["positions"], total["positions"] if variant.scores_all else scored, variant.recomputes
    )
    figures = {
        "tokens_per_second": total["tokens"] / total["seconds"],
        "step_seconds": total["seconds"] / len(warm),
        "first_step": steps[0]["seconds"],
        "busy": found["busy"],
        "outside": found["wall"] - sum(step["seconds"] for step in steps),
        "padding": padding_share(sum(step["tokens"] for step in steps), sum(step["positions"] for step in steps)),
        "loss": statistics.fmean(step["loss"] for step in steps),
        "last_loss": steps[-1]["loss"],
    }
    if "reward" in total:
        useful += rollout_flops(parameters, total["tokens"], total["completion_tokens"])
        executed += rollout_flops(parameters, total["rolled_out_positions"], total["rolled_out_rows"])
        figures["reward"] = statistics.fmean(step["reward"] for step in steps)
        figures["completion_tokens"] = statistics.fmean(step["completion_tokens"] for step in steps) / COMPLETIONS
    rate = rates[variant.dtype or "fastest"]
    return figures | {"useful": useful / total["seconds"] / rate, "executed": executed / total["seconds"] / rate}


def ratio_summary(ours: list[float], other: list[float]) -> dict[str, float]:
    """Median and range, over the rounds, of how many times as fast ours was.

    Args:
        ours: seconds for the same work, by round.
        other: the other's, of the same rounds.
    """
    ratios = [theirs / own for own, theirs in zip(ours, other, strict=True)]
    return {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}


def product_rates(dtype: str, threads: int) -> dict[str, float]:
    """Operations a second of a square product in float32 and bfloat16, best of several; `fastest` is that of `dtype`."""
    import torch

    torch.set_num_threads(threads)
    size, rates = 2048, {}
    for name in ("float32", "bfloat16"):
        matrix = torch.ones(size, size, dtype=getattr(torch, name))
        best = float("inf")
        for _ in range(6):
            started = time.perf_counter()
            matrix @ matrix
            best = min(best, time.perf_counter() - started)
        rates[name] = 2 * size**3 / best
    return rates | {"fastest": rates[dtype]}


def make_job(results: Path, folder: Path, records: int, steps: int, threads: int) -> tuple[Job, dict[str, float]]:
    """Writes the records for both sides.

    Returns:
        The job, and of its records the `tokens` and how many are `scored`, as the chat template gives them.

    Raises:
        RunFailed: the finished run has too few records.
    """
    import pyarrow.parquet as pq
    import torch
    from transformers import AutoTokenizer

    sys.path.insert(0, str(PROGRAMS))
    from ecg_grpo.device import choose_dtype

    torch.set_num_threads(threads)
    train = pq.read_table(results / "data/train.parquet").slice(0, records)
    if len(train) < records:
        raise RunFailed(f"{results}/data/train.parquet has only {len(train)} records")
    folder.mkdir(parents=True)
    pq.write_table(train, folder / "train.parquet")
    pq.write_table(pq.read_table(results / "data/validation.parquet").slice(0, 4), folder / "validation.parquet")
    tokenizer = AutoTokenizer.from_pretrained(results / "base_model")
    lines: dict[str, list[dict[str, Any]]] = {"sft": [], "grpo": []}
    counts = {"tokens": 0, "scored": 0}
    for row in train.to_pylist():
        answer = [{"role": "assistant", "content": row["answer"]}]
        lines["sft"].append({"prompt": row["prompt"], "completion": answer})
        lines["grpo"].append({name: row[name] for name in ("prompt", "id", "question", "answer")})
        whole = len(tokenizer.apply_chat_template(row["prompt"] + answer)["input_ids"])
        prompt = len(tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True)["input_ids"])
        counts = {"tokens": counts["tokens"] + whole, "scored": counts["scored"] + whole - prompt}
    for method, rows in lines.items():
        (folder / method).mkdir()
        (folder / method / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return (
        Job(
            train=folder / "train.parquet",
            validation=folder / "validation.parquet",
            trl_data=folder,
            base_model=results.resolve() / "base_model",
            dtype=str(choose_dtype("auto")).removeprefix("torch."),
            steps=steps,
            threads=threads,
        ),
        counts,
    )


def report(method: str, rounds: list[dict[str, dict[str, Any]]]) -> tuple[dict[str, dict[str, float]], str]:
    """The ratios of one method, and its lines to print."""
    names = list(rounds[0])
    if method == "sft":
        title, seconds = "SFT, tokens a second", lambda figures: 1 / figures["tokens_per_second"]
    else:
        title, seconds = "GRPO, seconds a step", lambda figures: figures["step_seconds"]
    series = {name: [seconds(turn[name]) for turn in rounds] for name in names}
    ratios = {name: ratio_summary(series["ours"], series[name]) for name in names[1:]}
    lines = [title] + [
        f"  ours / {name}: {found['median']:.2f} x ({found['lowest']:.2f} to {found['highest']:.2f} in {len(rounds)} rounds)"
        for name, found in ratios.items()
    ]
    columns = {"tokens/s": ("tokens_per_second", ".1f"), "s/step": ("step_seconds", ".2f"), "first step": ("first_step", ".2f")}
    columns |= {
        "outside s": ("outside", ".1f"),
        "busy": ("busy", ".2f"),
        "padding": ("padding", ".1%"),
        "useful": ("useful", ".1%"),
    }
    columns |= {"executed": ("executed", ".1%"), "mean loss": ("loss", ".4f"), "last loss": ("last_loss", ".4f")}
    if method == "grpo":
        columns |= {"reward": ("reward", ".4f"), "length": ("completion_tokens", ".1f")}
    lines.append(f"  {'median of rounds':18}" + "".join(f"{head:>12}" for head in columns))
    for name in names:
        cells = (format(statistics.median(turn[name][key] for turn in rounds), form) for key, form in columns.values())
        lines.append(f"  {name:18}" + "".join(f"{cell:>12}" for cell in cells))
    return ratios, "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--sft-only", action="store_true", help="leave GRPO out")
    only.add_argument("--grpo-only", action="store_true", help="leave SFT out")
    parser.add_argument("--rounds", type=int, default=2, help="how often the variants take turns (default: 2)")
    parser.add_argument("--records", type=int, default=96, help="training records, 16 an optimizer step of SFT (default: 96)")
    parser.add_argument("--steps", type=int, default=4, help="optimizer steps of GRPO (default: 4)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="processor threads (default: all)")
    parser.add_argument(
        "--results",
        type=Path,
        default=ROOT / "results/demo",
        help="folder of a run with data and base model (default: demo)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go as JSON")
    arguments = parser.parse_args()
    if arguments.records <= COMPLETIONS or arguments.steps < 2 or arguments.rounds < 1:
        parser.error(f"--records must be above {COMPLETIONS}, --steps above 1 (the first is left out), --rounds above 0")
    needed = [arguments.results / "data/train.parquet", arguments.results / "base_model/manifest.json"]
    if not all(file.is_file() for file in needed):
        if arguments.results != ROOT / "results/demo":
            parser.exit(1, f"{needed[0]} or {needed[1]} is missing\n")
        targets = ["data", "results/demo/base_model/manifest.json"]
        snakemake = Path(sys.executable).parent / "snakemake"
        subprocess.run([snakemake, "--cores", str(arguments.threads), *targets], cwd=ROOT, check=True)

    from safetensors import safe_open

    with safe_open(arguments.results / "base_model/model.safetensors", framework="numpy") as weights:
        shapes = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118 no mapping
    parameters = parameters_of(shapes, LORA["r"])
    methods = {"sft": variants(own_sft, trl_sft), "grpo": variants(own_grpo, trl_grpo)}
    methods = {name: methods[name] for name in methods if not getattr(arguments, f"{'grpo' if name == 'sft' else 'sft'}_only")}
    runs: list[dict[str, Any]] = []
    rates: list[dict[str, float]] = []
    rounds: dict[str, list[dict[str, dict[str, Any]]]] = {method: [] for method in methods}
    with tempfile.TemporaryDirectory(prefix="training_") as temporary:
        folder = Path(temporary)
        try:
            job, counts = make_job(arguments.results, folder / "job", arguments.records, arguments.steps, arguments.threads)
            for method, choices in methods.items():
                for turn in range(arguments.rounds):
                    rates.append(product_rates(job.dtype, arguments.threads))
                    rounds[method].append({})
                    for variant in choices:
                        found = run(variant, job, folder / f"{method}_{turn}_{variant.name.replace(' ', '_')}")
                        trained = sum(step["tokens"] for step in found["steps"])
                        if method == "sft" and trained != counts["tokens"]:
                            raise RunFailed(f"{variant.name} trained on {trained} tokens, not on {counts['tokens']}")
                        figures = figures_of(found, variant, parameters, rates[-1], counts["scored"] / counts["tokens"])
                        rounds[method][-1][variant.name] = figures
                        runs.append({"method": method, "round": turn, "variant": variant.name} | figures | found)
                        speed = f"{figures['tokens_per_second']:.1f} tokens/s, {figures['step_seconds']:.2f} s/step"
                        print(f"{method} round {turn + 1} {variant.name}: {speed}", file=sys.stderr, flush=True)
        except RunFailed as failure:
            parser.exit(1, f"{failure}\n")
    ratios = {}
    for method, found in rounds.items():
        ratios[method], lines = report(method, found)
        print(lines + "\n")
    best = {name: max(rate[name] for rate in rates) / 1e9 for name in ("float32", "bfloat16")}
    print(f"matrix product: float32 {best['float32']:.0f}, bfloat16 {best['bfloat16']:.0f} GFLOP/s; best: {job.dtype}")
    print(f"{arguments.records} records, {counts['tokens']} tokens, {counts['scored']} of them scored")
    if arguments.json:
        figures = {
            "machine": platform.platform(),
            "processors": os.cpu_count(),
            "python": platform.python_version(),
            "threads": arguments.threads,
            "dtype": job.dtype,
            "sft": SFT,
            "grpo": GRPO | {"max_steps": arguments.steps},
            "lora": LORA,
            "records": {"number": arguments.records} | counts,
            "parameters": vars(parameters),
            "operations_per_second": rates,
            "ratios": ratios,
            "runs": runs,
        }
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
