"""One run: the rules of all stages, and the targets by name.

REPORT  what a whole run makes: the report, the task for lm-evaluation-harness, what evaluation.require and reward_model
        ask for; and what of its way there is worth keeping, since Snakemake does not miss a deleted file of which only
        others were made
"""


include: "common.smk"
include: "base_model.smk"
include: "raw_data.smk"
include: "data.smk"
include: "reasoning.smk"
include: "sft.smk"
include: "merge.smk"
include: "reward_model.smk"
include: "difficulty_filter.smk"
include: "reward_audit.smk"
include: "grpo.smk"
include: "evaluation.smk"
include: "lm_eval.smk"
include: "endpoints.smk"
include: "judge.smk"
include: "samples.smk"
include: "further_scores.smk"
include: "export_ecg_bench.smk"
include: "export_gguf.smk"
include: "export_verl.smk"
include: "report.smk"


if unknown := SETTINGS.resources.keys() - RULES_WITH_NEEDS:
    sys.exit(f"configuration error: resources: no such rule: {', '.join(sorted(unknown))}")


REPORT = [
    f"{RESULTS}/report/index.html",
    f"{RESULTS}/lm_eval/ecg_expert_qa.yaml",
    *([f"{RESULTS}/evaluation/requirements.json"] if SETTINGS.evaluation.require else []),
    *(REWARD_MODEL if SETTINGS.trains_reward_model() else []),
    *[f"{RESULTS}/data/{table}.parquet" for table in ["train", "validation", "test", "quarantine", "dropped"]],
    *[f"{RESULTS}/{model}_model/manifest.json" for model in ["base", "sft", "grpo"]],
    *[f"{RESULTS}/{stage}/checkpoint/manifest.json" for stage in ["sft", "grpo"]],
    f"{RESULTS}/grpo/completions.parquet",
    *[f"{RESULTS}/evaluation/{system}/answers.parquet" for system in SYSTEMS],
    *score_tables(SYSTEMS),
    f"{RESULTS}/evaluation/comparison.json",
]


rule data:
    input:
        f"{RESULTS}/data/data_report.json",
        f"{RESULTS}/data/data_report.html",
    localrule: True
    message:
        "The prepared data, and the page about it"


rule sft:
    input:
        f"{RESULTS}/sft/checkpoint/manifest.json",
    localrule: True
    message:
        "The SFT adapter"


rule merged:
    input:
        f"{RESULTS}/sft_model/manifest.json",
    localrule: True
    message:
        "The merged SFT model"


rule reward_model:
    input:
        REWARD_MODEL,
    localrule: True
    message:
        "The reward model, and how often it is right"


rule grpo:
    input:
        f"{RESULTS}/grpo_model/manifest.json",
    localrule: True
    message:
        "The GRPO model"


rule evaluation:
    input:
        f"{RESULTS}/evaluation/comparison.json",
    localrule: True
    message:
        "The comparison of base, SFT and GRPO"
