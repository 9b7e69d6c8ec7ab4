"""Supervised fine-tuning, of a LoRA adapter or of every parameter.

Inputs:  data/train.parquet, data/validation.parquet, the base model, the kept reasonings with `reasoning: on`
Outputs: sft/checkpoint/manifest.json, which stands for the adapter or whole model, and sft/training_log.jsonl
Steps:   train with completion-only loss; resume from scratch/ after a death
"""


rule train_sft:
    input:
        train=f"{RESULTS}/data/train.parquet",
        validation=f"{RESULTS}/data/validation.parquet",
        base_model=f"{RESULTS}/base_model/manifest.json",
        reasonings=REASONINGS,
        launch_files=SETTINGS.sft.launch.files(),
    output:
        checkpoint=f"{RESULTS}/sft/checkpoint/manifest.json",
        training_log=report(
            f"{RESULTS}/sft/training_log.jsonl",
            caption="../resources/captions/sft_log.rst",
            category="3 Training",
            labels={"result": "Fine-tuning (SFT): log (JSON lines)"},
        ),
        provenance=provenance_of("train_sft"),
    log:
        f"{LOGS}/train_sft.log",
    benchmark:
        f"{BENCHMARKS}/train_sft.tsv"
    conda:
        "../envs/train_vllm.yaml" if SETTINGS.sft.needs_gpu_packages() else "../envs/train.yaml"
    threads: 8
    resources:
        **needs("train_sft", mem_mb=8000, runtime=1440, gpu=0),
        **machines(SETTINGS.sft.launch),
        # Too little data for GRPO is refused here, before SFT is paid for. A resource and not a parameter, because another
        # batch size of GRPO must not train SFT again.
        grpo_prompts_per_step=SETTINGS.grpo.prompts_per_step,
    params:
        launch=launch_command("train_sft", SETTINGS.sft.launch),
        launcher_log=SETTINGS.sft.launch.launcher_log(f"{LOGS}/train_sft.launcher.log"),
        settings=SETTINGS.sft.as_json(),
        code=code_fingerprint("workflow_scripts/train_sft.py"),
        scratch=SCRATCH,
        tensorboard=f"{TENSORBOARD}/train_sft",
    message:
        "Supervised fine-tuning"
    shell:
        ". workflow_scripts/take_gpus.sh {resources.gpu} {resources.nodes}; "
        "{params.launch} workflow_scripts/train_sft.py"
        " --train {input.train:q}"
        " --validation {input.validation:q}"
        " --base-model {input.base_model:q}"
        " --reasonings {input.reasonings:q}"
        " --launch-files {input.launch_files:q}"
        " --checkpoint {output.checkpoint:q}"
        " --training-log {output.training_log:q}"
        " --scratch {params.scratch:q}"
        " --tensorboard {params.tensorboard:q}"
        " --grpo-prompts-per-step {resources.grpo_prompts_per_step}"
        " --settings {params.settings:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"
        " {params.launcher_log}"
