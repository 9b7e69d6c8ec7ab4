#!/bin/sh
# Trains with verl as verl.yaml beside this file says. What follows on the command line are Hydra's overrides:
#     ./launch.sh trainer.total_training_steps=2
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# verl imports batch_advantage.py in each of its processes, which Ray starts with this environment.
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" VERL_USE_EXTERNAL_MODULES=batch_advantage
export TENSORBOARD_DIR="${TENSORBOARD_DIR:-$here/tensorboard}"
python "$here/check_launch.py" "$@"
exec python -m verl.trainer.main_ppo --config-path "$here" --config-name verl "$@"
