"""Answers that are drawn instead of greedy ones, if `evaluation.sampling` asks for them: what a seed decides.

Inputs:  the questions, the models
Outputs: evaluation/<model>/samples.parquet, evaluation/samples.json
Steps:   answer every question several times; score every draw like a run of its own
"""

SAMPLED = [model for model in MODELS if model not in ENDPOINTS]
SAMPLING = "null" if SETTINGS.evaluation.sampling is None else SETTINGS.evaluation.sampling.as_json()


rule sample_answers:
    input:
        model=lambda wildcards: OTHER_MODEL_FILES.get(
            wildcards.model, f"{RESULTS}/{wildcards.model}_model/manifest.json"
        ),
        questions=QUESTIONS,
    output:
        answers=f"{RESULTS}/evaluation/{{model}}/samples.parquet",
        provenance=provenance_of("sample_answers", "{model}"),
    log:
        f"{LOGS}/sample_answers.{{model}}.log",
    benchmark:
        f"{BENCHMARKS}/sample_answers.{{model}}.tsv"
    conda:
        "../envs/train.yaml" if SETTINGS.evaluation.generation.engine == "transformers" else "../envs/train_vllm.yaml"
    threads: 8
    resources:
        **needs("sample_answers", mem_mb=8000, runtime=720, gpu=0),
    params:
        scratch=SCRATCH,
        sampling=SAMPLING,
        settings=SETTINGS.evaluation.generation.as_json(),
        code=code_fingerprint("workflow_scripts/sample_answers.py"),
    message:
        "Drawing answers to the test questions: {wildcards.model}"
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


rule compare_samples:
    input:
        answers=expand(f"{RESULTS}/evaluation/{{model}}/samples.parquet", model=SAMPLED),
    output:
        summary=f"{RESULTS}/evaluation/samples.json",
        provenance=provenance_of("compare_samples"),
    log:
        f"{LOGS}/compare_samples.log",
    benchmark:
        f"{BENCHMARKS}/compare_samples.tsv"
    conda:
        "../envs/evaluation.yaml"
    threads: 1
    resources:
        **needs("compare_samples", mem_mb=4000, runtime=60),
    params:
        settings=SAMPLING,
        code=code_fingerprint("workflow_scripts/compare_samples.py"),
    message:
        "Comparing draws of answers"
    shell:
        "python workflow_scripts/compare_samples.py"
        " --answers {input.answers:q}"
        " --summary {output.summary:q}"
        " --settings {params.settings:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"
