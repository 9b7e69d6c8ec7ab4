"""The evaluated questions as a task of lm-evaluation-harness, to ask a model again with the field's usual tool.

Inputs:  the evaluated split, the templates and the code below resources/lm_eval
Outputs: lm_eval/{ecg_expert_qa.yaml,ecg_expert_qa.parquet,ecg_expert_qa.py,README.md}
Steps:   keep what is asked and its reference; write the task with the settings of evaluation.generation
"""


rule write_lm_eval_task:
    input:
        questions=QUESTIONS,
        task_template="resources/lm_eval/ecg_expert_qa.yaml.j2",
        readme_template="resources/lm_eval/README.md.j2",
        code="resources/lm_eval/ecg_expert_qa.py",
    output:
        task=f"{RESULTS}/lm_eval/ecg_expert_qa.yaml",
        questions=f"{RESULTS}/lm_eval/ecg_expert_qa.parquet",
        code=f"{RESULTS}/lm_eval/ecg_expert_qa.py",
        readme=report(
            f"{RESULTS}/lm_eval/README.md",
            caption="../resources/captions/lm_eval.rst",
            category="1 Evaluation",
            labels={"result": "Task for lm-evaluation-harness (README)"},
        ),
        provenance=provenance_of("write_lm_eval_task"),
    log:
        f"{LOGS}/write_lm_eval_task.log",
    benchmark:
        f"{BENCHMARKS}/write_lm_eval_task.tsv"
    conda:
        "../envs/evaluation.yaml"
    threads: 1
    resources:
        **needs("write_lm_eval_task", mem_mb=1000, runtime=10),
    params:
        run=SETTINGS.run,
        split=SETTINGS.evaluation.split,
        settings=SETTINGS.evaluation.generation.as_json(),
        code=code_fingerprint("workflow_scripts/write_lm_eval_task.py"),
    message:
        "Writing the questions as a task of lm-evaluation-harness"
    shell:
        "python workflow_scripts/write_lm_eval_task.py"
        " --run {params.run:q}"
        " --split {params.split}"
        " --questions {input.questions:q}"
        " --task-template {input.task_template:q}"
        " --readme-template {input.readme_template:q}"
        " --code {input.code:q}"
        " --task {output.task:q}"
        " --task-questions {output.questions:q}"
        " --task-code {output.code:q}"
        " --readme {output.readme:q}"
        " --settings {params.settings:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"
