"""Raw JSON becomes training, validation and test records.

Inputs:  the raw files (fetched, or in data.raw_dir), the system prompt, the base model's tokenizer
Outputs: data/{train,validation,test,quarantine,dropped}.parquet, data/account.json
Steps:   read, clean, flag contradictions, group and split, audit for leakage, measure
"""


rule prepare_data:
    input:
        raw=RAW_FILES,
        system_prompt=SETTINGS.data.system_prompt,
        ngrams="resources/similarity/common_ngrams.tsv",
        base_model=f"{RESULTS}/base_model/manifest.json",
    output:
        train=f"{RESULTS}/data/train.parquet",
        validation=f"{RESULTS}/data/validation.parquet",
        test=f"{RESULTS}/data/test.parquet",
        quarantine=f"{RESULTS}/data/quarantine.parquet",
        dropped=f"{RESULTS}/data/dropped.parquet",
        account=f"{RESULTS}/data/account.json",
        provenance=f"{PROVENANCE}/prepare_data.json",
    log:
        f"{LOGS}/prepare_data.log",
    benchmark:
        f"{BENCHMARKS}/prepare_data.tsv"
    conda:
        "../envs/data.yaml"
    threads: 2
    resources:
        mem_mb=6000,
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
        " --ngrams {input.ngrams:q}"
        " --base-model {input.base_model:q}"
        " --train {output.train:q}"
        " --validation {output.validation:q}"
        " --test {output.test:q}"
        " --quarantine {output.quarantine:q}"
        " --dropped {output.dropped:q}"
        " --account {output.account:q}"
        " --settings {params.settings:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"
