#!/usr/bin/env bash
# A Slurm cluster of this one machine, with two GPUs that are only files, to test against the real thing:
#     tests/slurm/cluster.sh install        Debian's packages; needs root
#     tests/slurm/cluster.sh start FOLDER   munge, slurmctld and slurmd, with all that they write below FOLDER
#     tests/slurm/cluster.sh stop FOLDER    ends what `start` started
# It passes for two machines, test-one and test-two, with a slurmd each. The partitions cpu and gpu have the first, pair has both.
# /etc/slurm/slurm.conf becomes a link into FOLDER, since jobs look for it there whatever SLURM_CONF says, and /etc/hosts gets the two
# names; a machine that has a Slurm of its own is left alone.
set -euo pipefail

HOSTS="127.0.0.1 test-one test-two"
CLUSTER_NAME=ecg_grpo_tests

install_packages() {
    local install=(apt-get install -qq -y --no-install-recommends slurm-wlm slurm-client munge)
    "${install[@]}" >/dev/null 2>&1 || { apt-get update -qq && "${install[@]}" >/dev/null; } # a new machine has no list yet
}

configure() {
    local folder=$1 host cores memory
    host=$(hostname -s)
    mkdir -p "$folder"/state/{test-one,test-two}
    cores=$(nproc)
    memory=$(($(awk '/MemTotal/ {print $2}' /proc/meminfo) / 1024 - 1000))
    mkdir -p "$folder"/{state/controller,run,log,dev}
    for card in 0 1; do
        [[ -e $folder/dev/nvidia$card ]] || mknod "$folder/dev/nvidia$card" c 195 "$card"
    done
    cat >"$folder/slurm.conf" <<EOF
ClusterName=$CLUSTER_NAME
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
StateSaveLocation=$folder/state/controller
SlurmdSpoolDir=$folder/state/%n
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmdPidFile=$folder/run/slurmd.%n.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/none
GresTypes=gpu
NodeName=test-one NodeHostname=$host NodeAddr=127.0.0.1 Port=17101 CPUs=$cores Boards=1 SocketsPerBoard=1 CoresPerSocket=$cores ThreadsPerCore=1 RealMemory=$memory Gres=gpu:fake:2 State=UNKNOWN
NodeName=test-two NodeHostname=$host NodeAddr=127.0.0.1 Port=17102 CPUs=$cores Boards=1 SocketsPerBoard=1 CoresPerSocket=$cores ThreadsPerCore=1 RealMemory=$memory Gres=gpu:fake:2 State=UNKNOWN
PartitionName=cpu Nodes=test-one Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=test-one Default=NO MaxTime=INFINITE State=UP
PartitionName=pair Nodes=test-one,test-two Default=NO MaxTime=INFINITE State=UP
EOF
    echo "NodeName=test-one,test-two Name=gpu Type=fake File=$folder/dev/nvidia[0-1] Flags=nvidia_gpu_env" >"$folder/gres.conf"
}

start() {
    local folder
    mkdir -p "$1"
    folder=$(realpath "$1")
    if [[ -e /etc/slurm/slurm.conf ]]; then
        if ! grep -q "^ClusterName=$CLUSTER_NAME$" /etc/slurm/slurm.conf; then
            echo "/etc/slurm/slurm.conf: this machine has a Slurm of its own" >&2
            return 1
        fi
        stop "$(dirname "$(readlink /etc/slurm/slurm.conf)")" # of tests that were killed
    fi
    configure "$folder"
    mkdir -p /etc/slurm
    ln -sfn "$folder/slurm.conf" "$folder/gres.conf" /etc/slurm/
    # munged refuses a folder that others can write to, so it keeps its own places.
    install --directory --owner munge --group munge /run/munge
    [[ -e /etc/munge/munge.key ]] || runuser -u munge -- mungekey
    [[ -S /run/munge/munge.socket.2 ]] && munge --no-input >/dev/null 2>&1 ||
        { runuser -u munge -- munged --force && touch "$folder/run/started_munged"; }
    slurmctld
    sleep 1
    grep -q "$HOSTS" /etc/hosts || echo "$HOSTS" >>/etc/hosts
    slurmd -N test-one
    slurmd -N test-two
    for _ in $(seq 30); do
        [[ $(sinfo --noheader --format %t --partition pair 2>/dev/null) == idle ]] && return
        sleep 1
    done
    echo "the nodes did not become idle; see $folder/log" >&2
    return 1
}

stop() {
    local folder hosts
    folder=$(realpath "$1")
    scancel --user "$(id -un)" 2>/dev/null || true
    for daemon in slurmd.test-one slurmd.test-two slurmctld; do
        [[ -s $folder/run/$daemon.pid ]] && kill "$(<"$folder/run/$daemon.pid")" 2>/dev/null || true
    done
    [[ -e $folder/run/started_munged ]] && kill "$(</run/munge/munged.pid)" 2>/dev/null || true
    for _ in $(seq 30); do
        pgrep -x slurmd >/dev/null || pgrep -x slurmctld >/dev/null || break
        sleep 0.5
    done
    hosts=$(grep -v "$HOSTS" /etc/hosts) && echo "$hosts" >/etc/hosts
    for file in slurm.conf gres.conf; do
        [[ $(readlink "/etc/slurm/$file") == "$folder/$file" ]] && rm "/etc/slurm/$file" || true
    done
}

case ${1:-} in
install) install_packages ;;
start | stop) "$1" "${2:?a folder is missing}" ;;
*)
    sed -n '2,8s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
