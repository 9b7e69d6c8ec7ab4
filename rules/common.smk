"""The validated configuration, and the names that every rule file uses.

SETTINGS   the configuration, one model for each section
RESULTS    results/<run>
RAW_FILES  the raw files: those of data.raw_dir, or FETCHED_RAW_FILES if it is null
RAW_HASHES the former's contents: a file that came with an older date than the results (cp -p, unzip) is news all the same
OTHER_MODEL_FILES   files of those models of evaluation.models that are directories, by name
REASONING_MODEL_FILES   files of bootstrap_reasoning.model, if it names a directory
MEANING_MODEL_FILES, EMBEDDING_MODEL_FILES   files of evaluation.meaning.model and of the reward's embedding.model, if they are
           used and name directories
ENDPOINTS  those that a server answers for: their sections, by name
LOGS, BENCHMARKS, PROVENANCE, SCRATCH, TENSORBOARD   folders below it
STORE      results that runs have in common
score_tables        the tables that hold scores of some systems
partitions_in       the limits of a cluster's partitions
needs               a rule's memory, time and GPUs
machines            a training's resources for its machines
launch_command      what starts it on them
RULES_WITH_NEEDS    the rules that asked for them: all but the named targets
provenance_of       a stage's provenance file, which `snakemake --report` shows
"""

import sys
from functools import cache

if f"{workflow.basedir}/workflow_scripts" not in sys.path:
    sys.path.insert(0, f"{workflow.basedir}/workflow_scripts")

from ecg_grpo.attempts import at_attempt
from ecg_grpo.base_model import check_model_directory
from ecg_grpo.errors import InputError
from ecg_grpo.files import sha256_of
from ecg_grpo.fingerprint import code_fingerprint
from ecg_grpo.raw_files import BY_CODE, find_raw_files
from ecg_grpo.sentence_model import configured_files
from ecg_grpo.settings.run import load_settings, refuse_repeated_keys
from ecg_grpo.settings.section import rule_parameter

try:
    for file in workflow.configfiles:
        refuse_repeated_keys(str(file))
    SETTINGS = load_settings(config, [str(file) for file in workflow.configfiles])
    RESULTS = f"results/{SETTINGS.run}"
    FETCHED_RAW_FILES = [f"{RESULTS}/raw/{BY_CODE[code].name}" for code in SETTINGS.raw_data.files]
    RAW_FILES, RAW_HASHES = FETCHED_RAW_FILES, []
    if SETTINGS.data.raw_dir is not None:
        RAW_FILES = [str(file) for file in find_raw_files(SETTINGS.data.raw_dir)]
        RAW_HASHES = [sha256_of(Path(file)) for file in RAW_FILES]
    BASE_MODEL_FILES = []
    if SETTINGS.base_model.source == "path":
        folder = check_model_directory(Path(SETTINGS.base_model.path))
        BASE_MODEL_FILES = sorted(str(file) for file in folder.iterdir() if file.is_file())
    REASONING_MODEL_FILES = []
    if SETTINGS.reasoning and SETTINGS.bootstrap_reasoning.model is not None:
        folder = check_model_directory(Path(SETTINGS.bootstrap_reasoning.model), "bootstrap_reasoning.model")
        REASONING_MODEL_FILES = sorted(str(file) for file in folder.iterdir() if file.is_file())
    OTHER_MODEL_FILES = {}
    for name, path in SETTINGS.evaluation.model_directories().items():
        folder = check_model_directory(Path(path), f"evaluation.models.{name}")
        OTHER_MODEL_FILES[name] = sorted(str(file) for file in folder.iterdir() if file.is_file())
    MEANING_MODEL_FILES, EMBEDDING_MODEL_FILES = [], []
    if SETTINGS.evaluation.meaning is not None:
        MEANING_MODEL_FILES = configured_files(SETTINGS.evaluation.meaning.model, "evaluation.meaning.model")
    if "embedding" in SETTINGS.reward.parts():
        EMBEDDING_MODEL_FILES = configured_files(SETTINGS.reward.embedding.model, "reward.embedding.model")
    ENDPOINTS = SETTINGS.evaluation.endpoints()
    for key, file in SETTINGS.named_files():
        if not Path(file).is_file():
            raise InputError(
                key, f"no such file: {file}", "Mend the path; it starts from the folder in which snakemake runs."
            )
except InputError as error:
    sys.exit(f"configuration error: {error}")

LOGS = f"{RESULTS}/logs"
BENCHMARKS = f"{RESULTS}/benchmarks"
PROVENANCE = f"{RESULTS}/provenance"
SCRATCH = f"{RESULTS}/scratch"
TENSORBOARD = f"{RESULTS}/tensorboard"
STORE = "results/.store"

MODELS = ["base", "sft", "grpo", *SETTINGS.evaluation.models]
BASELINES = ["echo", "constant", "nearest"]
SYSTEMS = [*BASELINES, *MODELS]


# What asks models, judges and people writes tables of its own: which systems have one.
FURTHER_TABLES = {
    "meaning": SYSTEMS if SETTINGS.evaluation.meaning else [],
    "reference_loss": [model for model in MODELS if SETTINGS.evaluation.reference_loss and model not in ENDPOINTS],
    "judge": SYSTEMS if SETTINGS.evaluation.judge else [],
    "ratings": MODELS if SETTINGS.evaluation.ratings else [],
}


wildcard_constraints:
    model="|".join(MODELS),
    system="|".join([*SYSTEMS, "second_references"]),


def score_tables(systems):
    """Tables with scores of these systems, the one that every system has before further ones."""
    tables = [("scores", system) for system in systems]
    tables += [(table, system) for table, having in FURTHER_TABLES.items() for system in systems if system in having]
    return [f"{RESULTS}/evaluation/{system}/{table}.parquet" for table, system in tables]


def provenance_of(stage, system=""):
    """The provenance file of a stage, or of its job for one system (a wildcard)."""
    return report(
        f"{PROVENANCE}/{stage}.{system}.json" if system else f"{PROVENANCE}/{stage}.json",
        caption="../resources/captions/provenance.rst",
        category="4 Provenance",
        labels={"stage": stage, "system": system},
    )


RULES_WITH_NEEDS = set()


@cache
def partitions_in(file):
    """The limits of a cluster's partitions, as Slurm's plugin reads them."""
    from snakemake_executor_plugin_slurm.partitions import read_partition_file

    return [partition.limits for partition in read_partition_file(file)]


def needs(rule, **amounts):
    """A rule's resources: these, or what `resources:` in the configuration says instead. Memory and time grow with every attempt."""
    RULES_WITH_NEEDS.add(rule)
    asked = SETTINGS.resources_of(rule)
    if asked.keys() - amounts.keys():
        sys.exit(f"configuration error: resources.{rule}.gpu: this rule computes without a GPU")
    amounts |= asked
    # A job that asks for more than the limit of all jobs is given the limit by Snakemake, without a word.
    limit = workflow.global_resources.get("gpu").value if workflow.is_main_process else None
    if limit is not None and amounts.get("gpu", 0) > limit:
        sys.exit(
            f"configuration error: resources.{rule}.gpu: {amounts['gpu']} GPUs, and --resources gpu={limit} leaves no job so many. Ask"
            " for fewer or leave more."
        )

    def growing(name):
        def amount(wildcards, attempt):
            file = getattr(workflow.executor_settings, "partition_config", None)  # known once jobs run
            return at_attempt(attempt, amounts, partitions_in(file) if file else ())[name]

        return amount

    return amounts | {name: growing(name) for name in ("mem_mb", "runtime")}


def machines(launch):
    """A training's resources for its machines, which are those of one Slurm job.

    It starts a process on each of them itself. Slurm's plugin calls that MPI: it gives the job a task on each machine and starts
    Snakemake outside of any job step, which would be one of one machine. `tasks` it would take for tasks of each GPU.
    """
    if launch.machines == 1:
        return {"nodes": 1}
    return {"nodes": launch.machines, "tasks": launch.machines, "tasks_per_gpu": 0, "mpi": "srun"}


def launch_command(rule, launch):
    """What starts a training: it must know how many GPUs each of several machines has for it."""
    return launch.command(SETTINGS.resources_of(rule).get("gpu", 0) // launch.machines)
