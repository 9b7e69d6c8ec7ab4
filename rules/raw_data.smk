"""The data set from its public home.

Inputs:  none; the address, the commit and the files are those of section raw_data
Outputs: the fetched files under their original names
Steps:   fetch each file, going on where a transfer broke off; compare its git blob hash; put all into place
"""


rule fetch_raw_data:
    input:
        [],
    output:
        files=FETCHED_RAW_FILES,
        provenance=provenance_of("fetch_raw_data"),
    log:
        f"{LOGS}/fetch_raw_data.log",
    benchmark:
        f"{BENCHMARKS}/fetch_raw_data.tsv"
    conda:
        "../envs/data.yaml"
    threads: 1
    resources:
        **needs("fetch_raw_data", mem_mb=1000, runtime=120),
    params:
        settings=SETTINGS.raw_data.as_json(),
        code=code_fingerprint("workflow_scripts/fetch_raw_data.py"),
        scratch=SCRATCH,
    message:
        f"ECG-Expert-QA at commit {SETTINGS.raw_data.commit}"
    shell:
        "python workflow_scripts/fetch_raw_data.py"
        " --files {output.files:q}"
        " --scratch {params.scratch:q}"
        " --settings {params.settings:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"
