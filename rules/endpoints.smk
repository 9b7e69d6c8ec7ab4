"""Models behind OpenAI-compatible servers answer the test questions.

Inputs:  the evaluated split (`evaluation.split`)
Outputs: evaluation/<model>/answers.parquet
Steps:   ask for every question's answer, several at once; keep each as it arrives
"""


rule ask_endpoint:
    input:
        questions=QUESTIONS,
    output:
        answers=f"{RESULTS}/evaluation/{{endpoint}}/answers.parquet",
        provenance=provenance_of("ask_endpoint", "{endpoint}"),
    log:
        f"{LOGS}/ask_endpoint.{{endpoint}}.log",
    benchmark:
        f"{BENCHMARKS}/ask_endpoint.{{endpoint}}.tsv"
    wildcard_constraints:
        endpoint="|".join(ENDPOINTS) or "(?!)",
    conda:
        "../envs/endpoint.yaml"
    threads: 1
    resources:
        **needs("ask_endpoint", mem_mb=2000, runtime=720),
    params:
        scratch=SCRATCH,
        max_new_tokens=SETTINGS.evaluation.generation.max_new_tokens,
        settings=lambda wildcards: ENDPOINTS[wildcards.endpoint].as_json(),
        code=code_fingerprint("workflow_scripts/ask_endpoint.py"),
    message:
        "Asking an endpoint the test questions: {wildcards.endpoint}"
    shell:
        "python workflow_scripts/ask_endpoint.py"
        " --questions {input.questions:q}"
        " --answers {output.answers:q}"
        " --max-new-tokens {params.max_new_tokens}"
        " --scratch {params.scratch:q}"
        " --settings {params.settings:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"
