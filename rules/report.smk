"""One self-contained page about the whole run.

Inputs:  the comparison, all answers and scores, both training logs, GRPO's completions, every stage's provenance
Outputs: report/index.html, and report/summary.md with its figures alone
"""


rule make_report:
    input:
        template="resources/report/template.html.j2",
        summary_template="resources/report/summary.md.j2",
        summary_macros="resources/report/figures.md.j2",
        style="resources/report/style.css",
        scripts=["resources/report/charts.js", "resources/report/browser.js"],
        comparison=f"{RESULTS}/evaluation/comparison.json",
        contamination=f"{RESULTS}/evaluation/contamination.json",
        data_report=f"{RESULTS}/data/data_report.json",
        answers=expand(f"{RESULTS}/evaluation/{{model}}/answers.parquet", model=MODELS),
        scores=score_tables(MODELS),
        ecg_bench=f"{RESULTS}/evaluation/ecg_bench.json",
        samples=[f"{RESULTS}/evaluation/samples.json"] if SETTINGS.evaluation.sampling else [],
        judge=[f"{RESULTS}/evaluation/judge.json"] if SETTINGS.evaluation.judge else [],
        audit=f"{RESULTS}/reward_audit/audit.json",
        reward_accuracy=REWARD_MODEL[1:] if SETTINGS.trains_reward_model() else [],
        reasonings=REASONING_ACCOUNTS,
        sft_log=f"{RESULTS}/sft/training_log.jsonl",
        grpo_log=f"{RESULTS}/grpo/training_log.jsonl",
        completions=f"{RESULTS}/grpo/completions.parquet",
        stages=[
            f"{PROVENANCE}/{stage}.json"
            for stage in [
                "fetch_base_model",
                *([] if SETTINGS.data.raw_dir else ["fetch_raw_data"]),
                "prepare_data",
                "make_data_report",
                *([f"bootstrap_reasoning.{split}" for split in ("train", "validation")] if SETTINGS.reasoning else []),
                "train_sft",
                "merge_sft_adapter",
                *(REWARD_MODEL_STAGES if SETTINGS.trains_reward_model() else []),
                *["sample_for_audit", "audit_reward", "require_sound_reward"],
                *(["filter_prompts"] if SETTINGS.difficulty_filter.enabled else []),
                "train_grpo",
                "merge_grpo_checkpoint",
                *[f"{'ask_endpoint' if model in ENDPOINTS else 'generate_answers'}.{model}" for model in MODELS],
                "generate_baselines",
                *[f"score_answers.{system}" for system in [*SYSTEMS, "second_references"]],
                "score_as_ecg_bench",
                *(["score_meaning"] if FURTHER_TABLES["meaning"] else []),
                *[f"score_references.{model}" for model in FURTHER_TABLES["reference_loss"]],
                *([f"sample_answers.{model}" for model in SAMPLED] if SETTINGS.evaluation.sampling else []),
                *(["compare_samples"] if SETTINGS.evaluation.sampling else []),
                *(["judge_answers"] if FURTHER_TABLES["judge"] else []),
                *(["read_ratings"] if FURTHER_TABLES["ratings"] else []),
                "check_contamination",
                "compare_models",
            ]
        ],
    output:
        page=report(
            f"{RESULTS}/report/index.html",
            caption="../resources/captions/report.rst",
            category="1 Evaluation",
            labels={"result": "All on one page: the report of the run"},
        ),
        summary=report(
            f"{RESULTS}/report/summary.md",
            caption="../resources/captions/summary.rst",
            category="1 Evaluation",
            labels={"result": "Figures of the report (Markdown)"},
        ),
        provenance=provenance_of("make_report"),
    log:
        f"{LOGS}/make_report.log",
    benchmark:
        f"{BENCHMARKS}/make_report.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        **needs("make_report", mem_mb=4000, runtime=60),
    params:
        run=SETTINGS.run,
        split=SETTINGS.evaluation.split,
        settings=SETTINGS.report.as_json(),
        code=code_fingerprint("workflow_scripts/make_report.py"),
    message:
        f"Writing {RESULTS}/report/index.html"
    shell:
        "python workflow_scripts/make_report.py"
        " --run {params.run:q}"
        " --split {params.split}"
        " --template {input.template:q}"
        " --summary-template {input.summary_template:q}"
        " --summary-macros {input.summary_macros:q}"
        " --style {input.style:q}"
        " --scripts {input.scripts:q}"
        " --comparison {input.comparison:q}"
        " --contamination {input.contamination:q}"
        " --data-report {input.data_report:q}"
        " --ecg-bench {input.ecg_bench:q}"
        " --judge {input.judge:q}"
        " --samples {input.samples:q}"
        " --answers {input.answers:q}"
        " --scores {input.scores:q}"
        " --audit {input.audit:q}"
        " --reward-accuracy {input.reward_accuracy:q}"
        " --reasonings {input.reasonings:q}"
        " --sft-log {input.sft_log:q}"
        " --grpo-log {input.grpo_log:q}"
        " --completions {input.completions:q}"
        " --stages {input.stages:q}"
        " --page {output.page:q}"
        " --summary {output.summary:q}"
        " --settings {params.settings:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"
