"""A language model judges the answers, if `evaluation.judge` names one.

Inputs:  all answers, the prompts of the judge
Outputs: evaluation/<system>/judge.parquet, evaluation/judge_{pairs,replies}.parquet, evaluation/judge.json
Steps:   grade single answers by a rubric; compare pairs of answers in both orders; count what went wrong
"""

from itertools import combinations

JUDGE = SETTINGS.evaluation.judge

# The later model of a pair is the one that claims to be better: (sft, base), (grpo, sft), …
JUDGED_PAIRS = [(later, earlier) for earlier, later in combinations(MODELS, 2)]
if JUDGE is not None and JUDGE.pairs is not None:
    JUDGED_PAIRS = JUDGE.pairs

BASE_MODEL_NAMES = {
    "wheel": lambda: Path(SETTINGS.base_model.wheel.file).stem,
    "hub": lambda: SETTINGS.base_model.hub.repository,
    "path": lambda: SETTINGS.base_model.path,
}
# What was trained from the base model is of its kind.
MODEL_NAMES = dict.fromkeys(["base", "sft", "grpo"], BASE_MODEL_NAMES[SETTINGS.base_model.source]())
MODEL_NAMES |= SETTINGS.evaluation.model_directories()
MODEL_NAMES |= {name: endpoint.model for name, endpoint in ENDPOINTS.items()}


rule judge_answers:
    input:
        answers=expand(f"{RESULTS}/evaluation/{{system}}/answers.parquet", system=SYSTEMS),
        rubric_prompt="resources/prompts/judge_rubric.txt",
        pair_prompt="resources/prompts/judge_pair.txt",
    output:
        grades=expand(f"{RESULTS}/evaluation/{{system}}/judge.parquet", system=SYSTEMS),
        pairs=f"{RESULTS}/evaluation/judge_pairs.parquet",
        replies=f"{RESULTS}/evaluation/judge_replies.parquet",
        summary=f"{RESULTS}/evaluation/judge.json",
        provenance=provenance_of("judge_answers"),
    log:
        f"{LOGS}/judge_answers.log",
    benchmark:
        f"{BENCHMARKS}/judge_answers.tsv"
    conda:
        "../envs/endpoint.yaml"
    threads: 1
    resources:
        **needs("judge_answers", mem_mb=2000, runtime=1440),
    params:
        scratch=SCRATCH,
        compared=" ".join(f"{system}:{other}" for system, other in JUDGED_PAIRS),
        model_names=rule_parameter(MODEL_NAMES),
        settings="null" if JUDGE is None else JUDGE.as_json(),
        code=code_fingerprint("workflow_scripts/judge_answers.py"),
    message:
        "A language model judges the answers"
    shell:
        "python workflow_scripts/judge_answers.py"
        " --answers {input.answers:q}"
        " --rubric-prompt {input.rubric_prompt:q}"
        " --pair-prompt {input.pair_prompt:q}"
        " --grades {output.grades:q}"
        " --pairs {output.pairs:q}"
        " --replies {output.replies:q}"
        " --summary {output.summary:q}"
        " --compared {params.compared}"
        " --model-names {params.model_names:q}"
        " --scratch {params.scratch:q}"
        " --settings {params.settings:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"
