"""Raw JSON becomes training, validation and test records.

Inputs:  the raw files in data.raw_dir, the system prompt, the base model's tokenizer
Outputs: data/{train,validation,test,quarantine}.parquet, data/data_report.json, data/training_plan.json
Steps:   read, clean, measure, group near-duplicates, split; then work out both trainings' steps
"""


rule prepare_data:
    input:
        raw=RAW_FILES,
        system_prompt=SETTINGS.data.system_prompt,
        base_model=f"{RESULTS}/base_model/manifest.json",
    output:
        train=f"{RESULTS}/data/train.parquet",
        validation=f"{RESULTS}/data/validation.parquet",
        test=f"{RESULTS}/data/test.parquet",
        quarantine=f"{RESULTS}/data/quarantine.parquet",
        report=f"{RESULTS}/data/data_report.json",
        provenance=f"{PROVENANCE}/prepare_data.json",
    log:
        f"{LOGS}/prepare_data.log",
    benchmark:
        f"{BENCHMARKS}/prepare_data.tsv"
    conda:
        "../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        settings=SETTINGS.data.as_json(),
        code=code_fingerprint("workflow_scripts/prepare_data.py"),
    message:
        "Preparing the data"
    shell:
        "python workflow_scripts/prepare_data.py"
        " --raw {input.raw:q}"
        " --system-prompt {input.system_prompt:q}"
        " --base-model {input.base_model:q}"
        " --train {output.train:q}"
        " --validation {output.validation:q}"
        " --test {output.test:q}"
        " --quarantine {output.quarantine:q}"
        " --report {output.report:q}"
        " --settings {params.settings:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"


# Before anything slow. Training waits for it but is not run again when only the check was: it takes the plan as `ancient`.
rule check_training_plan:
    input:
        train=f"{RESULTS}/data/train.parquet",
    output:
        plan=f"{RESULTS}/data/training_plan.json",
        provenance=f"{PROVENANCE}/check_training_plan.json",
    log:
        f"{LOGS}/check_training_plan.log",
    benchmark:
        f"{BENCHMARKS}/check_training_plan.tsv"
    priority: 100
    conda:
        "../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        sft=SETTINGS.sft.as_json(only=SFT_SIZES),
        grpo=SETTINGS.grpo.as_json(only=GRPO_SIZES),
        code=code_fingerprint("workflow_scripts/check_training_plan.py"),
    message:
        "Checking that both trainings have enough data"
    shell:
        "python workflow_scripts/check_training_plan.py"
        " --train {input.train:q}"
        " --plan {output.plan:q}"
        " --sft {params.sft:q}"
        " --grpo {params.grpo:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"
