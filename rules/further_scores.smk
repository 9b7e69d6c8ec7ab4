"""Further ways of scoring: as ECG-Bench does, by meaning, by how likely the references are, and by people.

Inputs:  evaluation/<system>/answers.parquet, the questions, the models, a sentence embedding model on disk, exported ratings
Outputs: evaluation/ecg_bench.json, evaluation/<system>/{meaning,reference_loss,ratings}.parquet
Steps:   a benchmark's figures of every system; likeness of meaning of every answer; loss of every reference answer; ratings
"""


rule score_as_ecg_bench:
    input:
        answers=expand(f"{RESULTS}/evaluation/{{system}}/answers.parquet", system=SYSTEMS),
    output:
        figures=f"{RESULTS}/evaluation/ecg_bench.json",
        provenance=provenance_of("score_as_ecg_bench"),
    log:
        f"{LOGS}/score_as_ecg_bench.log",
    benchmark:
        f"{BENCHMARKS}/score_as_ecg_bench.tsv"
    conda:
        "../envs/evaluation.yaml"
    threads: 1
    resources:
        **needs("score_as_ecg_bench", mem_mb=2000, runtime=60),
    params:
        code=code_fingerprint("workflow_scripts/score_as_ecg_bench.py"),
    message:
        "Scoring answers as ECG-Bench does"
    shell:
        "python workflow_scripts/score_as_ecg_bench.py"
        " --answers {input.answers:q}"
        " --figures {output.figures:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"


rule score_meaning:
    input:
        answers=expand(f"{RESULTS}/evaluation/{{system}}/answers.parquet", system=SYSTEMS),
        model=MEANING_MODEL_FILES,
    output:
        meaning=expand(f"{RESULTS}/evaluation/{{system}}/meaning.parquet", system=SYSTEMS),
        provenance=provenance_of("score_meaning"),
    log:
        f"{LOGS}/score_meaning.log",
    benchmark:
        f"{BENCHMARKS}/score_meaning.tsv"
    conda:
        "../envs/meaning.yaml"
    threads: 8
    resources:
        **needs("score_meaning", mem_mb=4000, runtime=60, gpu=0),
    params:
        settings="null" if SETTINGS.evaluation.meaning is None else SETTINGS.evaluation.meaning.as_json(),
        code=code_fingerprint("workflow_scripts/score_meaning.py"),
    message:
        "Scoring answers by meaning"
    shell:
        ". workflow_scripts/take_gpus.sh {resources.gpu}; "
        "python workflow_scripts/score_meaning.py"
        " --answers {input.answers:q}"
        " --model-files {input.model:q}"
        " --meaning {output.meaning:q}"
        " --settings {params.settings:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"


rule score_references:
    input:
        model=lambda wildcards: OTHER_MODEL_FILES.get(
            wildcards.model, f"{RESULTS}/{wildcards.model}_model/manifest.json"
        ),
        questions=QUESTIONS,
        reasoned=[f"{RESULTS}/evaluation/{{model}}/answers.parquet"] if SETTINGS.reasoning else [],
    output:
        losses=f"{RESULTS}/evaluation/{{model}}/reference_loss.parquet",
        provenance=provenance_of("score_references", "{model}"),
    log:
        f"{LOGS}/score_references.{{model}}.log",
    benchmark:
        f"{BENCHMARKS}/score_references.{{model}}.tsv"
    conda:
        "../envs/train.yaml"
    threads: 8
    resources:
        **needs("score_references", mem_mb=8000, runtime=120, gpu=0),
    params:
        settings="null" if SETTINGS.evaluation.reference_loss is None else SETTINGS.evaluation.reference_loss.as_json(),
        code=code_fingerprint("workflow_scripts/score_references.py"),
    message:
        "Scoring the reference answers: {wildcards.model}"
    shell:
        ". workflow_scripts/take_gpus.sh {resources.gpu}; "
        "python workflow_scripts/score_references.py"
        " --model {input.model:q}"
        " --questions {input.questions:q}"
        " --reasoned {input.reasoned:q}"
        " --losses {output.losses:q}"
        " --settings {params.settings:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"


rule read_ratings:
    input:
        ratings=SETTINGS.evaluation.ratings,
        answers=expand(f"{RESULTS}/evaluation/{{model}}/answers.parquet", model=MODELS),
    output:
        scores=expand(f"{RESULTS}/evaluation/{{model}}/ratings.parquet", model=MODELS),
        provenance=provenance_of("read_ratings"),
    log:
        f"{LOGS}/read_ratings.log",
    benchmark:
        f"{BENCHMARKS}/read_ratings.tsv"
    conda:
        "../envs/data.yaml"
    threads: 1
    resources:
        **needs("read_ratings", mem_mb=1000, runtime=10),
    params:
        code=code_fingerprint("workflow_scripts/read_ratings.py"),
    message:
        "Reading people's ratings"
    shell:
        "python workflow_scripts/read_ratings.py"
        " --ratings {input.ratings:q}"
        " --answers {input.answers:q}"
        " --scores {output.scores:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"
