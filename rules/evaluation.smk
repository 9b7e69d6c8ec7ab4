"""Base, SFT and GRPO answer the test questions and are compared.

Inputs:  data/train.parquet, the evaluated split (`evaluation.split`), the three models
Outputs: evaluation/<system>/{answers,scores}.parquet, evaluation/contamination.{parquet,json}, evaluation/comparison.json,
         evaluation/requirements.json
Steps:   answer greedily; answer without a model; score; look for memory; compare with intervals; judge what is required
"""

QUESTIONS = f"{RESULTS}/data/{SETTINGS.evaluation.split}.parquet"


rule generate_answers:
    input:
        model=lambda wildcards: OTHER_MODEL_FILES.get(
            wildcards.model, f"{RESULTS}/{wildcards.model}_model/manifest.json"
        ),
        questions=QUESTIONS,
    output:
        answers=f"{RESULTS}/evaluation/{{model}}/answers.parquet",
        provenance=provenance_of("generate_answers", "{model}"),
    log:
        f"{LOGS}/generate_answers.{{model}}.log",
    benchmark:
        f"{BENCHMARKS}/generate_answers.{{model}}.tsv"
    wildcard_constraints:
        model="|".join(model for model in MODELS if model not in ENDPOINTS),
    conda:
        "../envs/train.yaml" if SETTINGS.evaluation.generation.engine == "transformers" else "../envs/train_vllm.yaml"
    threads: 8
    resources:
        **needs("generate_answers", mem_mb=8000, runtime=240, gpu=0),
    params:
        scratch=SCRATCH,
        settings=SETTINGS.evaluation.generation.as_json(),
        code=code_fingerprint("workflow_scripts/generate_answers.py"),
    message:
        "Answering the test questions: {wildcards.model}"
    shell:
        ". workflow_scripts/take_gpus.sh {resources.gpu}; "
        "python workflow_scripts/generate_answers.py"
        " --model {input.model:q}"
        " --questions {input.questions:q}"
        " --answers {output.answers:q}"
        " --scratch {params.scratch:q}"
        " --settings {params.settings:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"


rule generate_baselines:
    input:
        train=f"{RESULTS}/data/train.parquet",
        questions=QUESTIONS,
    output:
        echo=f"{RESULTS}/evaluation/echo/answers.parquet",
        constant=f"{RESULTS}/evaluation/constant/answers.parquet",
        nearest=f"{RESULTS}/evaluation/nearest/answers.parquet",
        second_references=f"{RESULTS}/evaluation/second_references/answers.parquet",
        provenance=provenance_of("generate_baselines"),
    log:
        f"{LOGS}/generate_baselines.log",
    benchmark:
        f"{BENCHMARKS}/generate_baselines.tsv"
    conda:
        "../envs/data.yaml"
    threads: 1
    resources:
        **needs("generate_baselines", mem_mb=4000, runtime=60),
    params:
        code=code_fingerprint("workflow_scripts/generate_baselines.py"),
    message:
        "Answering the test questions without a model"
    shell:
        "python workflow_scripts/generate_baselines.py"
        " --train {input.train:q}"
        " --questions {input.questions:q}"
        " --echo {output.echo:q}"
        " --constant {output.constant:q}"
        " --nearest {output.nearest:q}"
        " --second-references {output.second_references:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"


rule score_answers:
    input:
        answers=f"{RESULTS}/evaluation/{{system}}/answers.parquet",
    output:
        scores=f"{RESULTS}/evaluation/{{system}}/scores.parquet",
        provenance=provenance_of("score_answers", "{system}"),
    log:
        f"{LOGS}/score_answers.{{system}}.log",
    benchmark:
        f"{BENCHMARKS}/score_answers.{{system}}.tsv"
    conda:
        "../envs/evaluation.yaml"
    threads: 1
    resources:
        **needs("score_answers", mem_mb=2000, runtime=60),
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


rule check_contamination:
    input:
        train=f"{RESULTS}/data/train.parquet",
        grpo_prompts=GRPO_PROMPTS,
        questions=QUESTIONS,
        answers=expand(f"{RESULTS}/evaluation/{{system}}/answers.parquet", system=SYSTEMS),
    output:
        records=f"{RESULTS}/evaluation/contamination.parquet",
        summary=report(
            f"{RESULTS}/evaluation/contamination.json",
            caption="../resources/captions/contamination.rst",
            category="1 Evaluation",
            labels={"result": "Contamination (JSON)"},
        ),
        provenance=provenance_of("check_contamination"),
    log:
        f"{LOGS}/check_contamination.log",
    benchmark:
        f"{BENCHMARKS}/check_contamination.tsv"
    conda:
        "../envs/evaluation.yaml"
    threads: 1
    resources:
        **needs("check_contamination", mem_mb=4000, runtime=60),
    params:
        code=code_fingerprint("workflow_scripts/check_contamination.py"),
    message:
        "Looking for test questions and answers in the training data"
    shell:
        "python workflow_scripts/check_contamination.py"
        " --train {input.train:q}"
        " --grpo-prompts {input.grpo_prompts:q}"
        " --questions {input.questions:q}"
        " --answers {input.answers:q}"
        " --records {output.records:q}"
        " --summary {output.summary:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"


rule compare_models:
    input:
        scores=score_tables(SYSTEMS),
        second_references=f"{RESULTS}/evaluation/second_references/scores.parquet",
        contamination=f"{RESULTS}/evaluation/contamination.parquet",
    output:
        comparison=report(
            f"{RESULTS}/evaluation/comparison.json",
            caption="../resources/captions/comparison.rst",
            category="1 Evaluation",
            labels={"result": "Comparison of the systems (JSON)"},
        ),
        provenance=provenance_of("compare_models"),
    log:
        f"{LOGS}/compare_models.log",
    benchmark:
        f"{BENCHMARKS}/compare_models.tsv"
    conda:
        "../envs/evaluation.yaml"
    threads: 1
    resources:
        **needs("compare_models", mem_mb=4000, runtime=60),
    params:
        settings=SETTINGS.evaluation.comparison.as_json(),
        rewards=" ".join(SETTINGS.reward.trained_on()),
        code=code_fingerprint("workflow_scripts/compare_models.py"),
    message:
        "Comparing base, SFT, GRPO and the baselines"
    shell:
        "python workflow_scripts/compare_models.py"
        " --scores {input.scores:q}"
        " --second-references {input.second_references:q}"
        " --contamination {input.contamination:q}"
        " --comparison {output.comparison:q}"
        " --rewards {params.rewards}"
        " --settings {params.settings:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"


rule check_requirements:
    input:
        comparison=f"{RESULTS}/evaluation/comparison.json",
        page=f"{RESULTS}/report/index.html",  # first the page that shows where it falls short
    output:
        requirements=report(
            f"{RESULTS}/evaluation/requirements.json",
            caption="../resources/captions/requirements.rst",
            category="1 Evaluation",
            labels={"result": "Requirements (JSON)"},
        ),
        provenance=provenance_of("check_requirements"),
    log:
        f"{LOGS}/check_requirements.log",
    benchmark:
        f"{BENCHMARKS}/check_requirements.tsv"
    conda:
        "../envs/evaluation.yaml"
    threads: 1
    resources:
        **needs("check_requirements", mem_mb=1000, runtime=10),
    params:
        require=rule_parameter(SETTINGS.evaluation.require),
        code=code_fingerprint("workflow_scripts/check_requirements.py"),
    message:
        "Judging what evaluation.require asks for"
    shell:
        "python workflow_scripts/check_requirements.py"
        " --comparison {input.comparison:q}"
        " --requirements {output.requirements:q}"
        " --require {params.require:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"
