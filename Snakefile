"""ECG-GRPO: raw ECG-Expert-QA JSON → SFT adapter → merged model → GRPO model → evaluation report.

raw JSON ─ prepare_data ─▶ train / validation / test ─┬─ train_sft ─▶ adapter ─ merge ─▶ SFT model ─ train_grpo ─ merge ─▶ GRPO model
base model ───────────────────────────────────────────┘                                                            │
                    answers of base, SFT, GRPO and three baselines ─▶ scores ─▶ comparison ─▶ report ◀───────────────┘

Everything is below results/<run>/. Targets by name: data, sft, merged, reward_model, grpo, evaluation, report
(the default); and export_ecg_bench, export_gguf, export_verl, which no other makes. With `sweep:` in the configuration
it is several runs, and a page that compares them.
"""

from snakemake.utils import min_version

min_version("9.27")


configfile: "config/config.yaml"


report: "resources/captions/workflow.rst"


if config.get("container"):

    containerized: config["container"]


if config.get("sweep"):

    include: "rules/sweep.smk"

else:

    include: "rules/one_run.smk"


rule report:
    default_target: True
    input:
        REPORT,
    localrule: True
    message:
        "The report and all that belongs to it"
