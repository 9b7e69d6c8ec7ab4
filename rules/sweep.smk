"""Several runs that differ in the values of `sweep:`, and a page that compares them.

Inputs:  what each run needs; what two runs have in common is computed by the first of them
Outputs: results/<run>-<six letters of its values' hash>/ for each run, results/<run>/sweep/index.html,
         results/<run>/sweep/sweep.json
REPORT:  that page and all that each run makes
Steps:   every run is this workflow as a module, with its own values; compare the GRPO models on the validation split
"""

import sys

sys.path.insert(0, f"{workflow.basedir}/workflow_scripts")

from ecg_grpo.errors import InputError
from ecg_grpo.fingerprint import code_fingerprint
from ecg_grpo.settings.run import load_settings, refuse_repeated_keys
from ecg_grpo.settings.section import rule_parameter
from ecg_grpo.sweep import runs_of, shared

try:
    for file in workflow.configfiles:
        refuse_repeated_keys(str(file))
    RUNS = runs_of(config)
    first = next(iter(RUNS.values()))
    COMPARISON = load_settings(first.configuration, [str(file) for file in workflow.configfiles]).evaluation.comparison
    SHARED = shared(RUNS)
except InputError as error:
    sys.exit(f"configuration error: {error}")

SWEEP = f"results/{config['run']}/sweep"


for name, run in RUNS.items():

    module:
        name: name
        snakefile:
            f"{workflow.basedir}/Snakefile"
        config:
            run.configuration
        replace_prefix:
            SHARED[name].moved

    # What `use rule * from … exclude … as …` does; that statement cannot take the rules to leave out from a variable.
    workflow.modules[name].use_rules(["*"], name_modifier=f"{name}_*", exclude_rules=SHARED[name].left_out)


REPORT = [f"{SWEEP}/index.html", *(file for name in RUNS for file in workflow.get_rule(f"{name}_report").input)]


rule compare_runs:
    input:
        comparisons=expand("results/{run}/evaluation/comparison.json", run=RUNS),
        scores=expand("results/{run}/evaluation/grpo/scores.parquet", run=RUNS),
        template="resources/report/sweep.html.j2",
        style="resources/report/style.css",
        scripts=["resources/report/charts.js"],
    output:
        page=report(
            f"{SWEEP}/index.html",
            caption="../resources/captions/sweep.rst",
            category="1 Evaluation",
            labels={"result": "The runs of the sweep side by side"},
        ),
        summary=f"{SWEEP}/sweep.json",
        provenance=f"results/{config['run']}/provenance/compare_runs.json",
    log:
        f"results/{config['run']}/logs/compare_runs.log",
    benchmark:
        f"results/{config['run']}/benchmarks/compare_runs.tsv"
    conda:
        "../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        values=rule_parameter({name: run.values for name, run in RUNS.items()}),
        settings=COMPARISON.as_json(),
        code=code_fingerprint("workflow_scripts/compare_runs.py"),
    message:
        "Comparing the runs of the sweep"
    shell:
        "python workflow_scripts/compare_runs.py"
        " --comparisons {input.comparisons:q}"
        " --scores {input.scores:q}"
        " --values {params.values:q}"
        " --template {input.template:q}"
        " --style {input.style:q}"
        " --scripts {input.scripts:q}"
        " --page {output.page:q}"
        " --summary {output.summary:q}"
        " --settings {params.settings:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"
