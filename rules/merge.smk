"""Adapter and base become one model, which proves that it is the sum of the two.

Inputs:  the adapter (or full checkpoint), the model that it was trained on, data/validation.parquet for the checks
Outputs: {sft,grpo}_model/manifest.json, which stands for the directory
Steps:   merge in float32, compare logits, save, read again, compare again
"""


rule merge_grpo_checkpoint:
    input:
        base_model=f"{RESULTS}/sft_model/manifest.json",
        checkpoint=f"{RESULTS}/grpo/checkpoint/manifest.json",
        validation=f"{RESULTS}/data/validation.parquet",
    output:
        manifest=f"{RESULTS}/grpo_model/manifest.json",
        provenance=provenance_of("merge_grpo_checkpoint"),
    log:
        f"{LOGS}/merge_grpo_checkpoint.log",
    benchmark:
        f"{BENCHMARKS}/merge_grpo_checkpoint.tsv"
    conda:
        "../envs/train.yaml"
    threads: 8
    resources:
        **needs("merge_grpo_checkpoint", mem_mb=8000, runtime=60),
    params:
        settings=SETTINGS.merge.as_json(),
        code=code_fingerprint("workflow_scripts/merge_adapter.py"),
    message:
        "Merging the GRPO checkpoint into the SFT model"
    shell:
        "python workflow_scripts/merge_adapter.py"
        " --base-model {input.base_model:q}"
        " --checkpoint {input.checkpoint:q}"
        " --validation {input.validation:q}"
        " --manifest {output.manifest:q}"
        " --settings {params.settings:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"


# A sweep can leave this rule out, and so it is the one that is made from the other.
use rule merge_grpo_checkpoint as merge_sft_adapter with:
    input:
        base_model=f"{RESULTS}/base_model/manifest.json",
        checkpoint=f"{RESULTS}/sft/checkpoint/manifest.json",
        validation=f"{RESULTS}/data/validation.parquet",
    output:
        manifest=f"{RESULTS}/sft_model/manifest.json",
        provenance=provenance_of("merge_sft_adapter"),
    log:
        f"{LOGS}/merge_sft_adapter.log",
    benchmark:
        f"{BENCHMARKS}/merge_sft_adapter.tsv"
    resources:
        **needs("merge_sft_adapter", mem_mb=8000, runtime=60),
    message:
        "Merging the SFT adapter into the base model"
