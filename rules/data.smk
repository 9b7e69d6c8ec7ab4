"""Raw JSON becomes training, validation and test records, and a page about them.

Inputs:  the raw files (fetched, or in data.raw_dir), the system prompt, the base model's tokenizer
Outputs: data/{train,validation,test,quarantine,dropped}.parquet, data/account.json, data/data_report.{json,html}
Steps:   read, clean, flag contradictions, group and split, audit for leakage, measure; count, score without a model, render
"""


rule prepare_data:
    input:
        raw=RAW_FILES,
        system_prompt=SETTINGS.system_prompt,
        ngrams="resources/similarity/common_ngrams.tsv",
        base_model=f"{RESULTS}/base_model/manifest.json",
    output:
        train=f"{RESULTS}/data/train.parquet",
        validation=f"{RESULTS}/data/validation.parquet",
        test=f"{RESULTS}/data/test.parquet",
        quarantine=f"{RESULTS}/data/quarantine.parquet",
        dropped=f"{RESULTS}/data/dropped.parquet",
        account=report(
            f"{RESULTS}/data/account.json",
            caption="../resources/captions/account.rst",
            category="2 Data",
            labels={"result": "What became of every row (JSON)"},
        ),
        provenance=provenance_of("prepare_data"),
    log:
        f"{LOGS}/prepare_data.log",
    benchmark:
        f"{BENCHMARKS}/prepare_data.tsv"
    conda:
        "../envs/data.yaml"
    threads: 2
    resources:
        **needs("prepare_data", mem_mb=6000, runtime=60),
    params:
        settings=SETTINGS.data.as_json(),
        code=code_fingerprint("workflow_scripts/prepare_data.py"),
        raw_hashes=RAW_HASHES,
        store=STORE,
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
        " --store {params.store:q}"
        " --settings {params.settings:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"


rule make_data_report:
    input:
        account=f"{RESULTS}/data/account.json",
        train=f"{RESULTS}/data/train.parquet",
        validation=f"{RESULTS}/data/validation.parquet",
        test=f"{RESULTS}/data/test.parquet",
        quarantine=f"{RESULTS}/data/quarantine.parquet",
        dropped=f"{RESULTS}/data/dropped.parquet",
        template="resources/report/data.html.j2",
        style="resources/report/style.css",
        scripts=["resources/report/charts.js"],
    output:
        report=report(
            f"{RESULTS}/data/data_report.json",
            caption="../resources/captions/data_numbers.rst",
            category="2 Data",
            labels={"result": "Numbers of the report on the data (JSON)"},
        ),
        page=report(
            f"{RESULTS}/data/data_report.html",
            caption="../resources/captions/data_report.rst",
            category="2 Data",
            labels={"result": "All on one page: the report on the data"},
        ),
        provenance=provenance_of("make_data_report"),
    log:
        f"{LOGS}/make_data_report.log",
    benchmark:
        f"{BENCHMARKS}/make_data_report.tsv"
    priority: 1  # to be read while the training runs, not after it
    conda:
        "../envs/evaluation.yaml"
    threads: 1
    resources:
        **needs("make_data_report", mem_mb=6000, runtime=60),
    params:
        run=SETTINGS.run,
        code=code_fingerprint("workflow_scripts/make_data_report.py"),
    message:
        f"Writing {RESULTS}/data/data_report.html"
    shell:
        "python workflow_scripts/make_data_report.py"
        " --run {params.run:q}"
        " --account {input.account:q}"
        " --train {input.train:q}"
        " --validation {input.validation:q}"
        " --test {input.test:q}"
        " --quarantine {input.quarantine:q}"
        " --dropped {input.dropped:q}"
        " --template {input.template:q}"
        " --style {input.style:q}"
        " --scripts {input.scripts:q}"
        " --report {output.report:q}"
        " --page {output.page:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"
