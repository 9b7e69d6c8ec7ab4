"""ECG-GRPO: raw ECG-Expert-QA JSON → SFT adapter → merged model → GRPO model → evaluation report.

raw JSON ─ prepare_data ─▶ train / validation / test ─┬─ train_sft ─▶ adapter ─ merge ─▶ SFT model ─ train_grpo ─ merge ─▶ GRPO model
base model ───────────────────────────────────────────┘                                                            │
                    answers of base, SFT, GRPO and two baselines ─▶ scores ─▶ comparison ─▶ report ◀───────────────┘

Everything is below results/<run>/. Targets by name: data, sft, merged, reward_model, grpo, evaluation, report
(the default).
"""

from snakemake.utils import min_version

min_version("9.27")


configfile: "config/config.yaml"


report: "resources/captions/workflow.rst"


include: "rules/common.smk"
include: "rules/base_model.smk"
include: "rules/raw_data.smk"
include: "rules/data.smk"
include: "rules/reasoning.smk"
include: "rules/sft.smk"
include: "rules/merge.smk"
include: "rules/reward_model.smk"
include: "rules/difficulty_filter.smk"
include: "rules/reward_audit.smk"
include: "rules/grpo.smk"
include: "rules/evaluation.smk"
include: "rules/lm_eval.smk"
include: "rules/endpoints.smk"
include: "rules/judge.smk"
include: "rules/samples.smk"
include: "rules/further_scores.smk"
include: "rules/report.smk"


if unknown := SETTINGS.resources.keys() - {rule.name for rule in workflow.rules}:
    sys.exit(f"configuration error: resources: no such rule: {', '.join(sorted(unknown))}")


localrules:
    report,
    data,
    sft,
    merged,
    reward_model,
    grpo,
    evaluation,


rule report:
    input:
        f"{RESULTS}/report/index.html",
        f"{RESULTS}/lm_eval/ecg_expert_qa.yaml",
        *([f"{RESULTS}/evaluation/requirements.json"] if SETTINGS.evaluation.require else []),
        *(REWARD_MODEL if SETTINGS.trains_reward_model() else []),
    message:
        "The report, the task for lm-evaluation-harness, and what evaluation.require and reward_model ask for"


rule data:
    input:
        f"{RESULTS}/data/data_report.json",
        f"{RESULTS}/data/data_report.html",
    message:
        "The prepared data, and the page about it"


rule sft:
    input:
        f"{RESULTS}/sft/checkpoint/manifest.json",
    message:
        "The SFT adapter"


rule merged:
    input:
        f"{RESULTS}/sft_model/manifest.json",
    message:
        "The merged SFT model"


rule reward_model:
    input:
        REWARD_MODEL,
    message:
        "The reward model, and how often it is right"


rule grpo:
    input:
        f"{RESULTS}/grpo_model/manifest.json",
    message:
        "The GRPO model"


rule evaluation:
    input:
        f"{RESULTS}/evaluation/comparison.json",
    message:
        "The comparison of base, SFT and GRPO"
