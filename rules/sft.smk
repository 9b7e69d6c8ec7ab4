"""Supervised fine-tuning of a LoRA adapter.

Inputs:  data/train.parquet, data/validation.parquet, the base model
Outputs: sft_adapter/{adapter_model.safetensors,adapter_config.json}, sft/training_log.jsonl
Steps:   train with completion-only loss; resume from scratch/ after a death
"""


rule train_sft:
    input:
        train=f"{RESULTS}/data/train.parquet",
        validation=f"{RESULTS}/data/validation.parquet",
        base_model=f"{RESULTS}/base_model/manifest.json",
        launch_files=SETTINGS.sft.launch.files(),
    output:
        adapter=f"{RESULTS}/sft_adapter/adapter_model.safetensors",
        adapter_config=f"{RESULTS}/sft_adapter/adapter_config.json",
        training_log=f"{RESULTS}/sft/training_log.jsonl",
        provenance=f"{PROVENANCE}/train_sft.json",
    log:
        f"{LOGS}/train_sft.log",
    benchmark:
        f"{BENCHMARKS}/train_sft.tsv"
    conda:
        "../envs/train.yaml" if SETTINGS.sft.on_plain_python() else "../envs/train_vllm.yaml"
    threads: 8
    resources:
        mem_mb=8000,
        runtime=1440,
        gpu=0,
        # Too little data for GRPO is refused here, before SFT is paid for. A resource and not a parameter, because another
        # batch size of GRPO must not train SFT again.
        grpo_prompts_per_step=SETTINGS.grpo.prompts_per_step,
    params:
        launch=SETTINGS.sft.launch.command(),
        settings=SETTINGS.sft.as_json(),
        code=code_fingerprint("workflow_scripts/train_sft.py"),
        scratch=SCRATCH,
    message:
        "Supervised fine-tuning"
    shell:
        "{params.launch} workflow_scripts/train_sft.py"
        " --train {input.train:q}"
        " --validation {input.validation:q}"
        " --base-model {input.base_model:q}"
        " --launch-files {input.launch_files:q}"
        " --adapter {output.adapter:q}"
        " --adapter-config {output.adapter_config:q}"
        " --training-log {output.training_log:q}"
        " --scratch {params.scratch:q}"
        " --grpo-prompts-per-step {resources.grpo_prompts_per_step}"
        " --settings {params.settings:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"
