#!/usr/bin/env bash
# A SLURM cluster on hosts of hosts.sh: the host `login` and nodes n1, n2, ...; needs slurm-wlm and munge.
#   slurm.sh FOLDER up NODES CPUS     hosts and daemons
#   slurm.sh FOLDER revive NODE       a node that has crashed comes back
#   slurm.sh FOLDER down
#   SLURM_CONF=FOLDER/slurm.conf FOLDER/on login sbatch ...
set -euo pipefail
folder=$(realpath -m "$1") action=$2
hosts=$(dirname "$(realpath "$0")")/hosts.sh

configure() { # nodes, cpus
  mkdir -p "$folder"/{munge,state,spool}
  chmod 700 "$folder/munge"
  head -c 128 /dev/urandom >"$folder/munge/key"
  chmod 400 "$folder/munge/key"
  # Short times, so that a crash is noticed in seconds. A requeued job waits for its credential to expire.
  cat >"$folder/slurm.conf" <<EOF
ClusterName=test
SlurmctldHost=login
SlurmUser=root
SlurmdUser=root
AuthInfo=socket=$folder/munge/socket,cred_expire=10
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/slurmctld.run
SlurmdPidFile=$folder/slurmd-%n.run
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc=$folder/jobcomp.log
SwitchType=switch/none
MpiDefault=none
SchedulerParameters=sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PropagateResourceLimits=NONE
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=30
SlurmdTimeout=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n[1-$1] CPUs=$2 State=UNKNOWN
PartitionName=normal Nodes=ALL Default=YES PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF
EOF
  echo "CgroupPlugin=cgroup/v1" >"$folder/cgroup.conf"
}

slurmd() { # node
  mkdir -p "$folder/spool/$1"
  SLURM_CONF=$folder/slurm.conf "$folder/on" "$1" slurmd -N "$1"
}

wait_for() { # nodes
  for ((tries = 0; tries < 150; tries++)); do
    idle=$(SLURM_CONF=$folder/slurm.conf "$folder/on" login sinfo -h -N -t idle -o %N 2>/dev/null | sort -u | wc -l)
    [ "$idle" = "$1" ] && return
    sleep 0.2
  done
  tail -n 20 "$folder"/slurm*.log >&2
  exit 1
}

case $action in
  up)
    mapfile -t nodes < <(seq -f 'n%g' "$3")
    "$hosts" "$folder" up login "${nodes[@]}"
    configure "$3" "$4"
    munge=$folder/munge
    "$folder/on" login munged --force --key-file="$munge/key" --socket="$munge/socket" --pid-file="$munge/run" \
      --log-file="$munge/log" --seed-file="$munge/seed" 2>"$folder/munged.log"
    SLURM_CONF=$folder/slurm.conf "$folder/on" login slurmctld
    for node in "${nodes[@]}"; do slurmd "$node"; done
    wait_for "$3" ;;
  revive) "$hosts" "$folder" start "$3"; slurmd "$3" ;;
  down) "$hosts" "$folder" down ;;
  *) echo "unknown action $action" >&2; exit 2 ;;
esac
