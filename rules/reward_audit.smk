"""The reward is attacked before it is trained on.

Inputs:  data/train.parquet, data/validation.parquet, the SFT model
Outputs: reward_audit/audit.json, reward_audit/passed.json, without which GRPO does not start
Steps:   sample the SFT model; score reference, paraphrase, attacks and samples; stop if an attack earns too much
"""


rule sample_for_audit:
    input:
        model=f"{RESULTS}/sft_model/manifest.json",
        questions=f"{RESULTS}/data/validation.parquet",
    output:
        answers=f"{RESULTS}/reward_audit/samples.parquet",
        provenance=provenance_of("sample_for_audit"),
    log:
        f"{LOGS}/sample_for_audit.log",
    benchmark:
        f"{BENCHMARKS}/sample_for_audit.tsv"
    conda:
        (
            "../envs/train.yaml"
            if SETTINGS.reward_audit.generation.engine == "transformers"
            else "../envs/train_vllm.yaml"
        )
    threads: 8
    resources:
        **needs("sample_for_audit", mem_mb=8000, runtime=480, gpu=0),
    params:
        scratch=SCRATCH,
        sampling=SETTINGS.reward_audit.sampling.as_json(),
        settings=SETTINGS.reward_audit.generation.as_json(),
        code=code_fingerprint("workflow_scripts/sample_answers.py"),
    message:
        "Sampling the SFT model for the audit of the reward"
    shell:
        ". workflow_scripts/take_gpus.sh {resources.gpu}; "
        "python workflow_scripts/sample_answers.py"
        " --model {input.model:q}"
        " --questions {input.questions:q}"
        " --answers {output.answers:q}"
        " --scratch {params.scratch:q}"
        " --sampling {params.sampling:q}"
        " --settings {params.settings:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"


rule audit_reward:
    input:
        train=f"{RESULTS}/data/train.parquet",
        validation=f"{RESULTS}/data/validation.parquet",
        samples=f"{RESULTS}/reward_audit/samples.parquet",
        reward_model=REWARD_MODEL_USED,
        embedding_model=EMBEDDING_MODEL_FILES,
        policy=([f"{RESULTS}/sft_model/manifest.json"] if SETTINGS.reward.needs_policy() else []),
    output:
        audit=report(
            f"{RESULTS}/reward_audit/audit.json",
            caption="../resources/captions/reward_audit.rst",
            category="3 Training",
            labels={"result": "Audit of the reward (JSON)"},
        ),
        provenance=provenance_of("audit_reward"),
    log:
        f"{LOGS}/audit_reward.log",
    benchmark:
        f"{BENCHMARKS}/audit_reward.tsv"
    conda:
        "../envs/train.yaml"
    threads: 8 if REWARD_MODEL_USED else 1
    resources:
        **needs("audit_reward", mem_mb=8000 if REWARD_MODEL_USED else 4000, runtime=120, gpu=0),
    params:
        scratch=SCRATCH,
        reward=SETTINGS.reward_in_use.as_json(),
        settings=SETTINGS.reward_audit.audit.as_json(),
        code=code_fingerprint("workflow_scripts/audit_reward.py"),
    message:
        "Attacking the reward"
    shell:
        ". workflow_scripts/take_gpus.sh {resources.gpu}; "
        "python workflow_scripts/audit_reward.py"
        " --train {input.train:q}"
        " --validation {input.validation:q}"
        " --samples {input.samples:q}"
        " --audit {output.audit:q}"
        " --scratch {params.scratch:q}"
        " --reward-model {input.reward_model:q}"
        " --embedding-model-files {input.embedding_model:q}"
        " --policy {input.policy:q}"
        " --reward {params.reward:q}"
        " --settings {params.settings:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"


rule require_sound_reward:
    input:
        audit=f"{RESULTS}/reward_audit/audit.json",
    output:
        passed=f"{RESULTS}/reward_audit/passed.json",
        provenance=provenance_of("require_sound_reward"),
    log:
        f"{LOGS}/require_sound_reward.log",
    benchmark:
        f"{BENCHMARKS}/require_sound_reward.tsv"
    conda:
        "../envs/data.yaml"
    threads: 1
    resources:
        **needs("require_sound_reward", mem_mb=1000, runtime=10),
    params:
        code=code_fingerprint("workflow_scripts/require_sound_reward.py"),
    message:
        "Is the reward sound enough to train on?"
    shell:
        "python workflow_scripts/require_sound_reward.py"
        " --audit {input.audit:q}"
        " --passed {output.passed:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"
