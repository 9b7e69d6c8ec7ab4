"""Training prompts that the SFT model always or never answers are left out of GRPO.

Inputs:  data/train.parquet, the SFT model
Outputs: grpo/prompts.parquet, grpo/difficulty.parquet
Steps:   sample several completions of every prompt; score them with GRPO's rewards; keep what lies between
"""

GRPO_PROMPTS = (
    f"{RESULTS}/grpo/prompts.parquet" if SETTINGS.difficulty_filter.enabled else f"{RESULTS}/data/train.parquet"
)


rule filter_prompts:
    input:
        train=f"{RESULTS}/data/train.parquet",
        sft_model=f"{RESULTS}/sft_model/manifest.json",
        reward_model=REWARD_MODEL_USED,
        embedding_model=EMBEDDING_MODEL_FILES,
    output:
        prompts=f"{RESULTS}/grpo/prompts.parquet",
        difficulty=f"{RESULTS}/grpo/difficulty.parquet",
        provenance=provenance_of("filter_prompts"),
    log:
        f"{LOGS}/filter_prompts.log",
    benchmark:
        f"{BENCHMARKS}/filter_prompts.tsv"
    conda:
        "../envs/train.yaml" if SETTINGS.difficulty_filter.engine == "transformers" else "../envs/train_vllm.yaml"
    threads: 8
    resources:
        **needs("filter_prompts", mem_mb=8000, runtime=480, gpu=0),
        # Too few prompts are refused here. A resource and not a parameter, because another batch size of GRPO must not
        # sample again.
        grpo_prompts_per_step=SETTINGS.grpo.prompts_per_step,
    params:
        settings=SETTINGS.difficulty_filter.as_json(),
        scratch=SCRATCH,
        reward=SETTINGS.reward_in_use.as_json(),
        code=code_fingerprint("workflow_scripts/filter_prompts.py"),
    message:
        "Leaving out the prompts that GRPO cannot learn from"
    shell:
        ". workflow_scripts/take_gpus.sh {resources.gpu}; "
        "python workflow_scripts/filter_prompts.py"
        " --train {input.train:q}"
        " --sft-model {input.sft_model:q}"
        " --prompts {output.prompts:q}"
        " --difficulty {output.difficulty:q}"
        " --scratch {params.scratch:q}"
        " --reward-model {input.reward_model:q}"
        " --embedding-model-files {input.embedding_model:q}"
        " --reward {params.reward:q}"
        " --prompts-per-step {resources.grpo_prompts_per_step}"
        " --settings {params.settings:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"
