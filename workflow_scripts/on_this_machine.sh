#!/usr/bin/env bash
# Starts one machine's share of a training in a Slurm job of several machines:
#     srun --nodes 2 --ntasks-per-node 1 workflow_scripts/on_this_machine.sh accelerate launch ... program.py ...
# The first machine of the job is where the processes meet; the port follows from the job, so that jobs do not collide.
set -euo pipefail
launcher=("$1" "$2")
shift 2
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000))
exec "${launcher[@]}" --machine_rank "$SLURM_NODEID" --main_process_ip "$first" --main_process_port "$port" "$@"
