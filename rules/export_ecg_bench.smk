"""The run's GRPO model and data for ECG-Bench and its successor ECG-Language-Models; made only when it is asked for.

Inputs:  the base and the GRPO model, training and test split, the templates below resources/ecg_bench
Outputs: export/ecg_bench/manifest.json, which stands for the folder
Steps:   refuse what is no Llama 3; link the model, write datasets, entry and README; check all that the two projects rely on
"""


rule export_ecg_bench:
    input:
        base_model=f"{RESULTS}/base_model/manifest.json",
        model=f"{RESULTS}/grpo_model/manifest.json",
        train=f"{RESULTS}/data/train.parquet",
        test=f"{RESULTS}/data/test.parquet",
        readme_template="resources/ecg_bench/README.md.j2",
        entry_template="resources/ecg_bench/hf_llms_entry.py.j2",
    output:
        manifest=f"{RESULTS}/export/ecg_bench/manifest.json",
        provenance=provenance_of("export_ecg_bench"),
    log:
        f"{LOGS}/export_ecg_bench.log",
    benchmark:
        f"{BENCHMARKS}/export_ecg_bench.tsv"
    conda:
        "../envs/train.yaml"
    threads: 2
    resources:
        **needs("export_ecg_bench", mem_mb=8000, runtime=60),
    params:
        run=SETTINGS.run,
        split=SETTINGS.evaluation.split,
        max_new_tokens=SETTINGS.evaluation.generation.max_new_tokens,
        code=code_fingerprint("workflow_scripts/export_ecg_bench.py"),
    message:
        f"Writing {RESULTS}/export/ecg_bench"
    shell:
        "python workflow_scripts/export_ecg_bench.py"
        " --run {params.run:q}"
        " --split {params.split}"
        " --max-new-tokens {params.max_new_tokens}"
        " --base-model {input.base_model:q}"
        " --model {input.model:q}"
        " --train {input.train:q}"
        " --test {input.test:q}"
        " --readme-template {input.readme_template:q}"
        " --entry-template {input.entry_template:q}"
        " --manifest {output.manifest:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"
