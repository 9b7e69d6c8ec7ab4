"""The first reasonings to learn from, with `reasoning: on`: ECG-Expert-QA has answers alone.

Inputs:  data/train.parquet, data/validation.parquet, the base model or bootstrap_reasoning.model
Outputs: reasoning/{train,validation}.parquet, reasoning/{train,validation}.json: what was kept, and why the rest was not
Steps:   show question and answer, sample the steps between them; refuse; score the references; keep the best of each record
"""

REASONINGS = (
    expand(f"{RESULTS}/reasoning/{{split}}.parquet", split=["train", "validation"]) if SETTINGS.reasoning else []
)
REASONING_ACCOUNTS = [file.replace(".parquet", ".json") for file in REASONINGS]


rule bootstrap_reasoning:
    input:
        records=f"{RESULTS}/data/{{split}}.parquet",
        model=REASONING_MODEL_FILES or f"{RESULTS}/base_model/manifest.json",
        prompt="resources/prompts/bootstrap_reasoning.txt",
    output:
        reasonings=f"{RESULTS}/reasoning/{{split}}.parquet",
        account=report(
            f"{RESULTS}/reasoning/{{split}}.json",
            caption="../resources/captions/reasoning.rst",
            category="3 Training",
            labels={"result": "Reasonings that SFT learns, {split} split (JSON)"},
        ),
        provenance=provenance_of("bootstrap_reasoning", "{split}"),
    log:
        f"{LOGS}/bootstrap_reasoning.{{split}}.log",
    benchmark:
        f"{BENCHMARKS}/bootstrap_reasoning.{{split}}.tsv"
    wildcard_constraints:
        split="train|validation",
    conda:
        (
            "../envs/train.yaml"
            if SETTINGS.bootstrap_reasoning.generation.engine == "transformers"
            else "../envs/train_vllm.yaml"
        )
    threads: 8
    resources:
        **needs("bootstrap_reasoning", mem_mb=8000, runtime=1440, gpu=0),
    params:
        settings=SETTINGS.bootstrap_reasoning.as_json(),
        code=code_fingerprint("workflow_scripts/bootstrap_reasoning.py"),
        scratch=SCRATCH,
    message:
        "Writing reasonings to learn from: {wildcards.split}"
    shell:
        ". workflow_scripts/take_gpus.sh {resources.gpu}; "
        "python workflow_scripts/bootstrap_reasoning.py"
        " --records {input.records:q}"
        " --model {input.model:q}"
        " --prompt {input.prompt:q}"
        " --reasonings {output.reasonings:q}"
        " --account {output.account:q}"
        " --scratch {params.scratch:q}"
        " --settings {params.settings:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"
