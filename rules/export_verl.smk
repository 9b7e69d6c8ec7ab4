"""The run's GRPO for verl: `snakemake --cores all export_verl`. No other rule needs it.

Inputs:  data/train.parquet or the prompts that the difficulty filter kept, data/validation.parquet, the SFT model,
         the templates and programs below resources/verl
Outputs: export/verl/{train.parquet,validation.parquet,verl.yaml,reward_function.py,batch_advantage.py,check_launch.py,
         launch.sh,README.md}
Steps:   refuse what verl cannot do; write rows, configuration and README; copy the programs
"""

VERL_PROGRAMS = ["reward_function.py", "batch_advantage.py", "check_launch.py", "launch.sh"]


rule export_verl:
    input:
        train=GRPO_PROMPTS,
        validation=f"{RESULTS}/data/validation.parquet",
        sft_model=f"{RESULTS}/sft_model/manifest.json",
        launch_files=SETTINGS.grpo.launch.files(),
        programs=[f"resources/verl/{name}" for name in VERL_PROGRAMS],
        readme_template="resources/verl/README.md.j2",
    output:
        train=f"{RESULTS}/export/verl/train.parquet",
        validation=f"{RESULTS}/export/verl/validation.parquet",
        configuration=f"{RESULTS}/export/verl/verl.yaml",
        copies=[f"{RESULTS}/export/verl/{name}" for name in VERL_PROGRAMS],
        readme=f"{RESULTS}/export/verl/README.md",
        provenance=provenance_of("export_verl"),
    log:
        f"{LOGS}/export_verl.log",
    benchmark:
        f"{BENCHMARKS}/export_verl.tsv"
    conda:
        "../envs/evaluation.yaml"
    threads: 1
    resources:
        **needs("export_verl", mem_mb=2000, runtime=30),
    params:
        run=SETTINGS.run,
        settings=rule_parameter(SETTINGS.grpo.model_dump(mode="json")),
        reward=SETTINGS.reward_in_use.as_json(),
        code=code_fingerprint("workflow_scripts/export_verl.py"),
    message:
        f"Writing {RESULTS}/export/verl"
    shell:
        "python workflow_scripts/export_verl.py"
        " --run {params.run:q}"
        " --train {input.train:q}"
        " --validation {input.validation:q}"
        " --sft-model {input.sft_model:q}"
        " --launch-files {input.launch_files:q}"
        " --programs {input.programs:q}"
        " --readme-template {input.readme_template:q}"
        " --verl-train {output.train:q}"
        " --verl-validation {output.validation:q}"
        " --configuration {output.configuration:q}"
        " --copies {output.copies:q}"
        " --readme {output.readme:q}"
        " --settings {params.settings:q}"
        " --reward {params.reward:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"
