"""The GRPO model as one file for llama.cpp and Ollama: `snakemake --cores all export_gguf`. No other target needs it.

Inputs:  grpo_model/manifest.json, data/validation.parquet for the system prompt, the templates below resources/gguf
Outputs: export/gguf/{model.gguf,Modelfile,README.md}
Steps:   refuse what a GGUF file cannot say; write weights, tokenizer and chat template; write the chat template for Ollama
"""


rule export_gguf:
    input:
        model=f"{RESULTS}/grpo_model/manifest.json",
        validation=f"{RESULTS}/data/validation.parquet",
        modelfile_template="resources/gguf/Modelfile.j2",
        readme_template="resources/gguf/README.md.j2",
    output:
        gguf=f"{RESULTS}/export/gguf/model.gguf",
        modelfile=f"{RESULTS}/export/gguf/Modelfile",
        readme=f"{RESULTS}/export/gguf/README.md",
        provenance=provenance_of("export_gguf"),
    log:
        f"{LOGS}/export_gguf.log",
    benchmark:
        f"{BENCHMARKS}/export_gguf.tsv"
    conda:
        "../envs/train.yaml"
    threads: 1
    resources:
        **needs("export_gguf", mem_mb=8000, runtime=60),
    params:
        name=f"{SETTINGS.run}-grpo",
        code=code_fingerprint("workflow_scripts/export_gguf.py"),
    message:
        "Writing the GRPO model for llama.cpp and Ollama"
    shell:
        "python workflow_scripts/export_gguf.py"
        " --name {params.name:q}"
        " --model {input.model:q}"
        " --validation {input.validation:q}"
        " --modelfile-template {input.modelfile_template:q}"
        " --readme-template {input.readme_template:q}"
        " --gguf {output.gguf:q}"
        " --modelfile {output.modelfile:q}"
        " --readme {output.readme:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"
