"""A model that tells right answers from wrong ones, if reward_model.enabled or the target reward_model asks for it.

Inputs:  data/train.parquet, data/validation.parquet, the base model; the SFT model if `sft_sample` is among the pairs' kinds
Outputs: reward_model/{train,validation}_samples.parquet with the SFT model's completions,
         reward_model/{train,validation}_pairs.parquet with an account each, reward_model/model/manifest.json, which stands for
         the model, reward_model/accuracy.json, reward_model/training_log.jsonl
Steps:   sample the SFT model; make pairs of a better and a worse answer; train; resume from scratch/ after a death; judge
         held-out pairs
"""

REWARD_MODEL = [f"{RESULTS}/reward_model/model/manifest.json", f"{RESULTS}/reward_model/accuracy.json"]

# Its manifest where the reward uses it, else nothing.
REWARD_MODEL_USED = REWARD_MODEL[:1] if SETTINGS.reward.needs_reward_model() else []

REWARD_MODEL_STAGES = [
    *(
        [f"sample_for_reward_model.{split}" for split in ["train", "validation"]]
        if SETTINGS.reward_model.pairs.needs_samples()
        else []
    ),
    *[f"make_preference_pairs.{split}" for split in ["train", "validation"]],
    "train_reward_model",
]


rule sample_for_reward_model:
    input:
        model=f"{RESULTS}/sft_model/manifest.json",
        questions=f"{RESULTS}/data/{{split}}.parquet",
    output:
        answers=f"{RESULTS}/reward_model/{{split}}_samples.parquet",
        provenance=provenance_of("sample_for_reward_model", "{split}"),
    log:
        f"{LOGS}/sample_for_reward_model.{{split}}.log",
    benchmark:
        f"{BENCHMARKS}/sample_for_reward_model.{{split}}.tsv"
    wildcard_constraints:
        split="train|validation",
    conda:
        (
            "../envs/train.yaml"
            if SETTINGS.reward_model.samples.generation.engine == "transformers"
            else "../envs/train_vllm.yaml"
        )
    threads: 8
    resources:
        **needs("sample_for_reward_model", mem_mb=8000, runtime=480, gpu=0),
    params:
        scratch=SCRATCH,
        questions=SETTINGS.reward_model.samples.questions,
        sampling=SETTINGS.reward_model.samples.sampling.as_json(),
        settings=SETTINGS.reward_model.samples.generation.as_json(),
        code=code_fingerprint("workflow_scripts/sample_answers.py"),
    message:
        "Sampling the SFT model for the reward model: {wildcards.split}"
    shell:
        ". workflow_scripts/take_gpus.sh {resources.gpu}; "
        "python workflow_scripts/sample_answers.py"
        " --model {input.model:q}"
        " --questions {input.questions:q}"
        " --most-questions {params.questions}"
        " --answers {output.answers:q}"
        " --scratch {params.scratch:q}"
        " --sampling {params.sampling:q}"
        " --settings {params.settings:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"


rule make_preference_pairs:
    input:
        records=f"{RESULTS}/data/{{split}}.parquet",
        samples=(
            [f"{RESULTS}/reward_model/{{split}}_samples.parquet"]
            if SETTINGS.reward_model.pairs.needs_samples()
            else []
        ),
    output:
        pairs=f"{RESULTS}/reward_model/{{split}}_pairs.parquet",
        account=f"{RESULTS}/reward_model/{{split}}_pairs.json",
        provenance=provenance_of("make_preference_pairs", "{split}"),
    log:
        f"{LOGS}/make_preference_pairs.{{split}}.log",
    benchmark:
        f"{BENCHMARKS}/make_preference_pairs.{{split}}.tsv"
    wildcard_constraints:
        split="train|validation",
    conda:
        "../envs/evaluation.yaml"
    threads: 1
    resources:
        **needs("make_preference_pairs", mem_mb=4000, runtime=60),
    params:
        held_out=lambda wildcards: "--held-out" if wildcards.split == "validation" else "",
        settings=SETTINGS.reward_model.pairs.as_json(),
        code=code_fingerprint("workflow_scripts/make_preference_pairs.py"),
    message:
        "Making pairs of better and worse answers: {wildcards.split}"
    shell:
        "python workflow_scripts/make_preference_pairs.py"
        " --records {input.records:q}"
        " --samples {input.samples:q}"
        " --pairs {output.pairs:q}"
        " --account {output.account:q}"
        " {params.held_out}"
        " --settings {params.settings:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"


rule train_reward_model:
    input:
        train=f"{RESULTS}/reward_model/train_pairs.parquet",
        validation=f"{RESULTS}/reward_model/validation_pairs.parquet",
        base_model=f"{RESULTS}/base_model/manifest.json",
        launch_files=SETTINGS.reward_model.training.launch.files(),
    output:
        model=f"{RESULTS}/reward_model/model/manifest.json",
        accuracy=report(
            f"{RESULTS}/reward_model/accuracy.json",
            caption="../resources/captions/reward_model.rst",
            category="3 Training",
            labels={"result": "Reward model: accuracy on held-out pairs (JSON)"},
        ),
        training_log=f"{RESULTS}/reward_model/training_log.jsonl",
        provenance=provenance_of("train_reward_model"),
    log:
        f"{LOGS}/train_reward_model.log",
    benchmark:
        f"{BENCHMARKS}/train_reward_model.tsv"
    conda:
        "../envs/train_vllm.yaml" if SETTINGS.reward_model.training.needs_gpu_packages() else "../envs/train.yaml"
    threads: 8
    resources:
        **needs("train_reward_model", mem_mb=8000, runtime=1440, gpu=0),
        **machines(SETTINGS.reward_model.training.launch),
    params:
        launch=launch_command("train_reward_model", SETTINGS.reward_model.training.launch),
        launcher_log=SETTINGS.reward_model.training.launch.launcher_log(f"{LOGS}/train_reward_model.launcher.log"),
        settings=SETTINGS.reward_model.training.as_json(),
        code=code_fingerprint("workflow_scripts/train_reward_model.py"),
        scratch=SCRATCH,
        tensorboard=f"{TENSORBOARD}/train_reward_model",
    message:
        "Training the reward model"
    shell:
        ". workflow_scripts/take_gpus.sh {resources.gpu} {resources.nodes}; "
        "{params.launch} workflow_scripts/train_reward_model.py"
        " --train {input.train:q}"
        " --validation {input.validation:q}"
        " --base-model {input.base_model:q}"
        " --launch-files {input.launch_files:q}"
        " --model {output.model:q}"
        " --accuracy {output.accuracy:q}"
        " --training-log {output.training_log:q}"
        " --scratch {params.scratch:q}"
        " --tensorboard {params.tensorboard:q}"
        " --settings {params.settings:q}"
        " --threads {threads}"
        " --log {log:q}"
        " --provenance {output.provenance:q}"
        " {params.launcher_log}"
