"""How fast models are asked and answers are scored.

    python benchmarks/evaluation.py --json evaluation.json
    python benchmarks/evaluation.py --only scoring

Answers: SmolLM2-135M answers the same questions with one prompt at a time (what a script does that calls `generate` in a
loop), with the transformers engine in batches and with vLLM, greedily, each in a process of its own, in turn, in one run. Every
answer has exactly the given number of tokens, so that no engine is faster for stopping sooner. Loading and start-up are stated
apart from speed. One at a time answers a few questions only: its speed does not depend on how many there are.

Scoring: the programs score_answers.py (three systems) and compare_models.py on as many answers as asked for, made of the
sample's reference answers; seconds of the whole processes, start-up included. Embeddings and judges are no part of it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "workflow_scripts"
SYSTEMS = ("base", "sft", "grpo")

ENGINE = """
import json, sys, time
started = time.monotonic()
from pathlib import Path
import torch
from ecg_grpo import generation
from ecg_grpo.device import choose_dtype, _keep_freed_memory, _share_keys_among_heads

engine, model, prompts, tokens, batch, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
dtype = choose_dtype("auto")
if engine != "one at a time":
    _keep_freed_memory()
    _share_keys_among_heads()
prompts = json.loads(Path(prompts).read_text())


Config, whole = generation.GenerationConfig, generation.Completion
generation.GenerationConfig = lambda **options: Config(**options | {"eos_token_id": None})
generation._completion = lambda _, ids, prompt, seconds: whole("", "length", prompt, len(ids), seconds)
if engine == "one at a time":
    tokenizer = generation.AutoTokenizer.from_pretrained(model)
    llm = generation.AutoModelForCausalLM.from_pretrained(model, dtype=dtype).eval()
    config = generation.GenerationConfig(max_new_tokens=int(tokens), do_sample=False, pad_token_id=tokenizer.pad_token_id)
    llm.generation_config = config
    counts, began = 0, None
    for prompt in prompts:
        inputs = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        if began is None:
            llm.generate(**inputs, max_new_tokens=2)
            began = time.monotonic()
        counts += llm.generate(**inputs, generation_config=config).shape[1] - inputs["input_ids"].shape[1]
    seconds = time.monotonic() - began
else:
    if engine == "vllm":
        import vllm
        vllm.LLM  # imported before the next line: its modules need the class itself
        parameters = vllm.SamplingParams
        vllm.SamplingParams = lambda **options: parameters(**options, ignore_eos=True)
    how = generation.Generation(dtype, int(tokens), int(batch), engine)
    counts, seconds = 0, 0.0
    for found in generation.complete(Path(model), prompts, how):
        counts += generation.generated_tokens(found)
        seconds += sum(completion.seconds for group in found.values() for completion in group)
wall = time.monotonic() - started
print("RESULT", json.dumps({"tokens": counts, "seconds": seconds, "outside": wall - seconds, "dtype": str(dtype)}))
"""


def run_engine(engine: str, python: Path, prompts: list[Any], folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Answers prompts in a process of its own.

    Returns:
        `tokens` generated, `seconds` that it took, `outside`: imports, loading and start-up.
    """
    file = folder / "prompts.json"
    file.write_text(json.dumps(prompts))
    command = [
        python,
        "-c",
        ENGINE,
        engine,
        options.results / "base_model",
        file,
        options.tokens,
        options.batch,
        options.threads,
    ]
    environment = os.environ | {"PYTHONPATH": str(PROGRAMS), "OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=environment)
    results = [line for line in run.stdout.splitlines() if line.startswith("RESULT ")]
    if run.returncode or not results:
        sys.exit(f"{engine} ended with {run.returncode}:\n{run.stderr[-2000:]}")
    figures = json.loads(results[-1].removeprefix("RESULT "))
    if figures["tokens"] != len(prompts) * options.tokens:
        sys.exit(f"{engine} gave {figures['tokens']} tokens instead of {len(prompts) * options.tokens}")
    return figures | {"tokens_per_second": figures["tokens"] / figures["seconds"], "prompts": len(prompts)}


def questions(results: Path, number: int) -> list[Any]:
    """Prompts of the training split; beyond its size with a number before the question, so that no two are equal."""
    import pyarrow.parquet as pq

    rows = pq.read_table(results / "data/train.parquet", columns=["prompt"])["prompt"].to_pylist()
    prompts = []
    for index in range(number):
        *before, question = rows[index % len(rows)]
        turn = f"{index // len(rows) + 1}. " if index >= len(rows) else ""
        prompts.append([*before, {"role": question["role"], "content": turn + question["content"]}])
    return prompts


def measure_engines(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All engines in turn, and their ratios."""
    prompts = questions(options.results, options.questions)
    vllm = ROOT / ".venv-vllm/bin/python"
    turns: list[tuple[str, Path, int]] = [("one at a time", Path(sys.executable), options.alone)]
    turns += [("transformers", Path(sys.executable), options.questions)]
    turns += [("vllm", vllm, options.questions)] if vllm.exists() else []
    found: dict[str, Any] = {}
    for engine, python, number in turns:
        found[engine] = run_engine(engine, python, prompts[:number], folder, options)
        speed = found[engine]
        print(
            f"{engine:14} {speed['prompts']:6} questions {speed['tokens_per_second']:8.1f} tokens/s   "
            f"outside {speed['outside']:6.1f} s   {speed['dtype']}",
            flush=True,
        )
    speeds = {engine: figures["tokens_per_second"] for engine, figures in found.items()}
    ratios = {"transformers / one at a time": speeds["transformers"] / speeds["one at a time"]}
    if "vllm" in speeds:
        ratios["vllm / transformers"] = speeds["vllm"] / speeds["transformers"]
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f} x")
    return {"engines": found, "ratios": ratios}


def measure_scoring(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Seconds of scoring three systems and of comparing them."""
    sys.path.insert(0, str(PROGRAMS))
    import pyarrow.parquet as pq

    from ecg_grpo.tables import ANSWERS, contamination_schema, scores_schema, write_table

    rows = pq.read_table(options.results / "data/train.parquet").to_pylist()
    generator = random.Random(0)
    for system in SYSTEMS:
        answers = []
        for index in range(options.answers):
            row = rows[index % len(rows)]
            words = row["answer"].split()
            prediction = " ".join(word if generator.random() < 0.7 else generator.choice(words) for word in words)
            answers.append(
                {name: row[name] for name in ("task", "context", "question", "answer", "prompt")}
                | {"id": f"{index:06}", "cluster": f"{index // 2:06}", "completion": prediction, "prediction": prediction}
                | {"is_well_formed": True, "finish_reason": "stop"}
            )
        (folder / system).mkdir()
        write_table(folder / system / "answers.parquet", answers, ANSWERS, {})
    near = [{"id": f"{index:06}", "nearness": "below 0.5"} for index in range(options.answers)]
    write_table(folder / "contamination.parquet", near, contamination_schema(SYSTEMS), {})
    from ecg_grpo.metrics import METRICS

    write_table(folder / "second.parquet", [], scores_schema(METRICS), {})
    threads = ("--threads", options.threads)
    for system in SYSTEMS:
        files = ("--answers", folder / system / "answers.parquet", "--scores", folder / system / "scores.parquet")
        timed(f"score {system}", "score_answers.py", *files, *threads)
    scores = [folder / system / "scores.parquet" for system in SYSTEMS]
    compared = (
        *("--scores", *scores, "--second-references", folder / "second.parquet"),
        *("--contamination", folder / "contamination.parquet", "--comparison", folder / "comparison.json"),
        *("--rewards", "chrf", "concept_f1", "--settings", json.dumps({"resamples": options.resamples})),
    )
    timed("compare", "compare_models.py", *compared, *threads)
    print(f"scoring and comparing {len(SYSTEMS)} x {options.answers} answers: {sum(SECONDS.values()):.1f} s")
    return SECONDS | {"all": sum(SECONDS.values())}


SECONDS: dict[str, float] = {}


def timed(name: str, program: str, *arguments: object) -> None:
    """Runs one of the workflow's programs and keeps its time."""
    started = time.monotonic()
    subprocess.run(list(map(str, (sys.executable, PROGRAMS / program, *arguments))), check=True, capture_output=True)
    SECONDS[name] = time.monotonic() - started
    print(f"{name:14} {SECONDS[name]:6.1f} s", flush=True)


PARTS: dict[str, Callable[[argparse.Namespace, Path], dict[str, Any]]] = {
    "engines": measure_engines,
    "scoring": measure_scoring,
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, help="leave the other part out")
    parser.add_argument("--questions", type=int, default=1000, help="questions for the engines (default: 1000)")
    parser.add_argument("--alone", type=int, default=20, help="questions that are answered one at a time (default: 20)")
    parser.add_argument("--tokens", type=int, default=50, help="tokens of every answer (default: 50)")
    parser.add_argument("--batch", type=int, default=64, help="batch of the transformers engine (default: 64)")
    parser.add_argument("--answers", type=int, default=10_000, help="answers of each system to score (default: 10000)")
    parser.add_argument("--resamples", type=int, default=2000, help="bootstrap resamples (default: 2000)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="processor threads (default: all)")
    parser.add_argument("--results", type=Path, default=ROOT / "results/demo", help="a run with data and base model")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go as JSON")
    options = parser.parse_args()
    if not (options.results / "base_model/manifest.json").is_file():
        parser.exit(1, f"{options.results}/base_model is missing: run `make demo` first\n")
    figures: dict[str, Any] = {
        "machine": platform.platform(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
    }
    with tempfile.TemporaryDirectory(prefix="evaluation_") as folder:
        for name, measure in PARTS.items():
            if options.only in (None, name):
                figures[name] = measure(options, Path(folder))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
