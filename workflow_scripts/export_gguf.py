"""A model of a run for llama.cpp and Ollama: one GGUF file with weights, tokenizer and chat template, and how to use it."""

from __future__ import annotations

import argparse

from ecg_grpo.files import model_directory, new_file
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import read_rows, system_prompt_of

PROMPTS = 8

parser = StageParser("export_gguf", __doc__)
parser.add_input("--model", help="manifest.json of the model: of grpo_model, sft_model or base_model")
parser.add_input(
    "--validation", help=f"validation split (parquet): its system prompt; its first {PROMPTS} prompts serve checks"
)
parser.add_input("--modelfile-template", help="the Modelfile's Jinja template")
parser.add_input("--readme-template", help="the README's Jinja template")
parser.add_output("--gguf", help="the model to write (GGUF)")
parser.add_output("--modelfile", help="the Modelfile for Ollama to write")
parser.add_output("--readme", help="the README to write")
parser.add_argument("--name", required=True, help="what the model is called")
parser.add_argument("--type", default="f16", choices=("f32", "f16", "bf16", "q8_0"), help="number format (default: f16)")


def export_gguf(arguments: argparse.Namespace, stage: Stage) -> None:
    """Writes the model, then the files that speak of it."""
    import torch
    from transformers import AutoTokenizer

    from ecg_grpo.gguf_export import DESCRIPTION, start_token_of, write_gguf
    from ecg_grpo.ollama import check_quotable, turns_of
    from ecg_grpo.templates import render_text

    torch.set_num_threads(stage.threads)
    directory = model_directory(arguments.model)
    prompts = [row["prompt"] for row in read_rows(arguments.validation, "prompt")[:PROMPTS]]
    system_prompt = check_quotable(system_prompt_of(arguments.validation))
    with new_file(arguments.gguf) as partial:
        facts = write_gguf(directory, partial, arguments.type, arguments.name)

    tokenizer = AutoTokenizer.from_pretrained(directory)
    start = start_token_of(tokenizer, directory)

    def render(prompt: list) -> str:
        return tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True).removeprefix(start)

    turns = turns_of(render, prompts)
    variables = {
        "name": arguments.name,
        "file": arguments.gguf.name,
        "number_format": arguments.type,
        "system_prompt": system_prompt,
        "go_template": turns.go_template() if turns else None,
        "disclaimer": DESCRIPTION,
    }
    for file, template in (
        (arguments.modelfile, arguments.modelfile_template),
        (arguments.readme, arguments.readme_template),
    ):
        with new_file(file) as partial:
            partial.write_text(render_text(template, **variables), encoding="utf-8")
    stage.facts |= facts | {"has_ollama_template": turns is not None}
    stage.say(str(stage.facts))


if __name__ == "__main__":
    parser.run(export_gguf)
