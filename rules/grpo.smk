"""Reinforcement learning from the merged SFT model.

Inputs:  data/train.parquet or the prompts that the difficulty filter kept, data/validation.parquet, the SFT model,
         reward_audit/passed.json: the reward withstood its audit
Outputs: grpo/checkpoint/manifest.json, grpo/training_log.jsonl, grpo/completions.parquet
Steps:   sample groups of completions, reward them, update; resume from scratch/ after a death
"""


rule train_grpo:
    input:
        train=GRPO_PROMPTS,
        validation=f"{RESULTS}/data/validation.parquet",
        sft_model=f"{RESULTS}/sft_model/manifest.json",
        launch_files=SETTINGS.grpo.launch.files(),
        sound_reward=f"{RESULTS}/reward_audit/passed.json",
        reward_model=REWARD_MODEL_USED,
        embedding_model=EMBEDDING_MODEL_FILES,
    output:
        checkpoint=f"{RESULTS}/grpo/checkpoint/manifest.json",
        training_log=report(
            f"{RESULTS}/grpo/training_log.jsonl",
            caption="../resources/captions/grpo_log.rst",
            category="3 Training",
            labels={"result": "Reinforcement learning (GRPO): log (JSON lines)"},
        ),
        completions=f"{RESULTS}/grpo/completions.parquet",
        provenance=provenance_of("train_grpo"),
    log:
        f"{LOGS}/train_grpo.log",
    benchmark:
        f"{BENCHMARKS}/train_grpo.tsv"
    conda:
        "../envs/train_vllm.yaml" if SETTINGS.grpo.needs_gpu_packages() else "../envs/train.yaml"
    threads: 8
    resources:
        **needs("train_grpo", mem_mb=8000, runtime=1440, gpu=0),
        **machines(SETTINGS.grpo.launch),
    params:
        launch=launch_command("train_grpo", SETTINGS.grpo.launch),
        launcher_log=SETTINGS.grpo.launch.launcher_log(f"{LOGS}/train_grpo.launcher.log"),
        settings=SETTINGS.grpo.as_json(),
        reward=SETTINGS.reward_in_use.as_json(),
        code=code_fingerprint("workflow_scripts/train_grpo.py"),
        metrics_code=(
            code_fingerprint("workflow_scripts/ecg_grpo/metrics.py", "workflow_scripts")
            if SETTINGS.grpo.validation
            else ""
        ),
        scratch=SCRATCH,
        tensorboard=f"{TENSORBOARD}/train_grpo",
    message:
        "Reinforcement learning (GRPO)"
    shell:
        ". workflow_scripts/take_gpus.sh {resources.gpu} {resources.nodes}; "
        "{params.launch} workflow_scripts/train_grpo.py"
        " --train {input.train:q}"
        " --validation {input.validation:q}"
        " --sft-model {input.sft_model:q}"
        " --launch-files {input.launch_files:q}"
        " --checkpoint {output.checkpoint:q}"
        " --training-log {output.training_log:q}"
        " --completions {output.completions:q}"
        " --scratch {params.scratch:q}"
        " --tensorboard {params.tensorboard:q}"
        " --settings {params.settings:q}"
        " --reward-model {input.reward_model:q}"
        " --embedding-model-files {input.embedding_model:q}"
        " --reward {params.reward:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"
        " {params.launcher_log}"
