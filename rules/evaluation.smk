"""Base, SFT and GRPO answer the test questions and are compared.

Inputs:  data/{train,test}.parquet, the three models
Outputs: evaluation/{base,sft,grpo,echo,nearest}/{answers,scores}.parquet, evaluation/comparison.json
Steps:   answer greedily; answer without a model; score; compare with intervals
"""


rule generate_answers:
    input:
        model=f"{RESULTS}/{{model}}_model/manifest.json",
        questions=f"{RESULTS}/data/test.parquet",
    output:
        answers=f"{RESULTS}/evaluation/{{model}}/answers.parquet",
        provenance=f"{PROVENANCE}/generate_answers.{{model}}.json",
    log:
        f"{LOGS}/generate_answers.{{model}}.log",
    benchmark:
        f"{BENCHMARKS}/generate_answers.{{model}}.tsv"
    conda:
        "../envs/train.yaml"
    threads: 8
    resources:
        mem_mb=8000,
        runtime=240,
        gpu=0,
    params:
        settings=SETTINGS.evaluation.generation.as_json(),
        code=code_fingerprint("workflow_scripts/generate_answers.py"),
    message:
        "Answering the test questions: {wildcards.model}"
    shell:
        "python workflow_scripts/generate_answers.py"
        " --model {input.model:q}"
        " --questions {input.questions:q}"
        " --answers {output.answers:q}"
        " --settings {params.settings:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"


rule generate_baselines:
    input:
        train=f"{RESULTS}/data/train.parquet",
        questions=f"{RESULTS}/data/test.parquet",
    output:
        echo=f"{RESULTS}/evaluation/echo/answers.parquet",
        nearest=f"{RESULTS}/evaluation/nearest/answers.parquet",
        provenance=f"{PROVENANCE}/generate_baselines.json",
    log:
        f"{LOGS}/generate_baselines.log",
    benchmark:
        f"{BENCHMARKS}/generate_baselines.tsv"
    conda:
        "../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        code=code_fingerprint("workflow_scripts/generate_baselines.py"),
    message:
        "Answering the test questions without a model"
    shell:
        "python workflow_scripts/generate_baselines.py"
        " --train {input.train:q}"
        " --questions {input.questions:q}"
        " --echo {output.echo:q}"
        " --nearest {output.nearest:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"


rule score_answers:
    input:
        answers=f"{RESULTS}/evaluation/{{system}}/answers.parquet",
    output:
        scores=f"{RESULTS}/evaluation/{{system}}/scores.parquet",
        provenance=f"{PROVENANCE}/score_answers.{{system}}.json",
    log:
        f"{LOGS}/score_answers.{{system}}.log",
    benchmark:
        f"{BENCHMARKS}/score_answers.{{system}}.tsv"
    conda:
        "../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        code=code_fingerprint("workflow_scripts/score_answers.py"),
    message:
        "Scoring answers: {wildcards.system}"
    shell:
        "python workflow_scripts/score_answers.py"
        " --answers {input.answers:q}"
        " --scores {output.scores:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"


rule compare_models:
    input:
        scores=expand(f"{RESULTS}/evaluation/{{system}}/scores.parquet", system=SYSTEMS),
    output:
        comparison=f"{RESULTS}/evaluation/comparison.json",
        provenance=f"{PROVENANCE}/compare_models.json",
    log:
        f"{LOGS}/compare_models.log",
    benchmark:
        f"{BENCHMARKS}/compare_models.tsv"
    conda:
        "../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        settings=SETTINGS.evaluation.comparison.as_json(),
        code=code_fingerprint("workflow_scripts/compare_models.py"),
    message:
        "Comparing base, SFT, GRPO and the baselines"
    shell:
        "python workflow_scripts/compare_models.py"
        " --scores {input.scores:q}"
        " --comparison {output.comparison:q}"
        " --settings {params.settings:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"
