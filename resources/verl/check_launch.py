"""Finds before the launch what verl would say late or never: keys that it does not know, files and packages that are missing.

verl takes a misspelt key and says nothing. Here every key of verl.yaml is looked for in verl's own configuration.

    python check_launch.py [Hydra overrides]
"""

import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

HERE = Path(__file__).resolve().parent
VERSION = "0.9.1"
OPEN = ("actor_rollout_ref.model.override_config.", "reward.custom_reward_function.reward_kwargs.")
"""What stands below these is handed on as it is."""


def end(problem):
    """One line, and exit status 1."""
    sys.exit(f"check_launch: error: {problem}")


def keys(tree, above=""):
    """The dotted names of all values of nested mappings."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from keys(value, f"{above}{name}.")
        else:
            yield above + name


def known(tree, key):
    """Whether nested mappings have a dotted name."""
    for name in key.split("."):
        if not isinstance(tree, dict) or name not in tree:
            return False
        tree = tree[name]
    return True


def load(file, name):
    """A function of a Python file, as verl loads it."""
    spec = spec_from_file_location("exported_reward", file)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def main():
    """Checks the version, the keys, the files, and the reward of the first validation row's own reference."""
    try:
        if (found := version("verl")) != VERSION:
            end(f"verl {found} is installed, the export is for verl {VERSION}. Install that one.")
    except PackageNotFoundError:
        end(f"verl is not installed here. Install verl=={VERSION} (README.md).")
    import yaml
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(str(HERE), version_base=None):
            config = compose("verl", overrides=sys.argv[1:])
        (package,) = find_spec("verl").submodule_search_locations
        with initialize_config_dir(f"{package}/trainer/config", version_base=None):
            own = OmegaConf.to_container(compose("ppo_trainer"))
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        end(f"verl.yaml: {' '.join(str(error).split())}. Mend the file or the overrides.")
    written = yaml.safe_load((HERE / "verl.yaml").read_text(encoding="utf-8"))
    written = {name: part for name, part in written.items() if name not in ("hydra", "defaults")}
    if unknown := [key for key in keys(written) if not key.startswith(OPEN) and not known(own, key)]:
        end(f"verl.yaml: verl {VERSION} has no key {', '.join(unknown)}, and would say nothing of it. Mend the name.")

    reward = config.reward.custom_reward_function
    files = [config.data.train_files, config.data.val_files, config.actor_rollout_ref.model.path]
    for file in (*files, reward.path, reward.reward_kwargs.scripts):
        if not Path(file).exists():
            end(f"{file}: does not exist. If the project was moved, export again: snakemake --cores all --force export_verl.")
    import pyarrow.parquet as pq

    row = pq.read_table(config.data.val_files).slice(0, 1).to_pylist()[0]
    truth = row["reward_model"]["ground_truth"]
    try:
        score = load(reward.path, reward.name)(
            data_source=row["data_source"],
            solution_str=truth,
            ground_truth=truth,
            extra_info=row["extra_info"],
            **OmegaConf.to_container(reward.reward_kwargs),
        )["score"]
    except ImportError as error:
        end(f"the reward needs a package that is not installed here: {error}. README.md lists them.")
    if not 0 <= score <= 1:
        end(f"{reward.path}: a reward of {score}, which is not from 0 to 1. Export again.")
    print(f"check_launch: {len(list(keys(written)))} keys are verl's own, the files are there, the reward can be computed")


if __name__ == "__main__":
    main()
