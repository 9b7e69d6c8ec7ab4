# Read by a rule's shell before its program starts:
#     . workflow_scripts/take_gpus.sh 2      # or, with as many on each of four machines: take_gpus.sh 8 4
# Takes that many GPUs of this machine for the job and shows it these alone (CUDA_VISIBLE_DEVICES). Snakemake counts the resource
# `gpu` but hands no device out, so that two jobs would both work on the first one. A GPU is taken by a lock on a file, which
# the shell and all that it starts hold for as long as one of them lives, however they end. While too few are free it waits.
# In a Slurm job of its own it has what Slurm gave it; jobs side by side in one allocation share that out in the same way.
take_gpus() {
    local wanted=$(($1 / ${2:-1})) gpus=() locks=() taken=() folder gpu lock gate said=""
    if ((wanted == 0)); then
        return
    fi
    if [[ -n ${CUDA_VISIBLE_DEVICES+set} ]]; then
        IFS=, read -ra gpus <<<"$CUDA_VISIBLE_DEVICES"
    else
        # What is wrong with a driver it prints where the numbers would stand.
        mapfile -t gpus < <(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | grep --extended-regexp '^[0-9]+$')
    fi
    if ((${#gpus[@]} < wanted)); then
        echo "error: resource gpu: the rule asks for $wanted GPUs and this machine has ${#gpus[@]}." \
            "Ask for fewer (resources: in the configuration) or run where there are more." >&2
        return 1
    fi
    folder=${TMPDIR:-/tmp}/ecg-grpo-gpus-$UID/${SLURM_JOB_ID:-here} # every allocation may number its GPUs from 0
    mkdir -p "$folder"
    while true; do
        exec {gate}>"$folder/gate" # one job chooses at a time, or two that want two each hold one and wait for ever
        flock "$gate"
        for gpu in "${gpus[@]}"; do
            ((${#taken[@]} < wanted)) || break
            exec {lock}>"$folder/${gpu//\//_}" # a slice of a GPU may have slashes in its name
            if flock --nonblock "$lock"; then
                taken+=("$gpu")
                locks+=("$lock")
            else
                exec {lock}>&-
            fi
        done
        if ((${#taken[@]} == wanted)); then
            exec {gate}>&-
            break
        fi
        for lock in "${locks[@]}"; do
            exec {lock}>&-
        done
        exec {gate}>&-
        locks=() taken=()
        [[ -n $said ]] || echo "waiting for $wanted free GPUs of ${#gpus[@]}" >&2
        said=yes
        sleep 1
    done
    CUDA_VISIBLE_DEVICES=$(IFS=,; echo "${taken[*]}")
    export CUDA_VISIBLE_DEVICES
}

take_gpus "$@"
