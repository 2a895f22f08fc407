#!/usr/bin/env bash
# A SLURM of one node on the loopback address, for tests: `cluster.sh start FOLDER`, `stop FOLDER`.
#
# Needs root and Debian's slurm-wlm and munge. Its keys, logs and sockets are in FOLDER; outside it
# stands one link, /etc/slurm/slurm.conf, by which clients find it (the executor plugin takes
# SLURM_CONF from the environment of its jobs). Where that file exists, nothing is started, unless it
# belongs to a test that was killed: one whose process is no longer there is stopped first.
# The node has two GPUs, which exist by name only.
set -euo pipefail

action=$1
folder=$(realpath -m "$2")
configuration=$folder/slurm.conf
link=/etc/slurm/slurm.conf
node=$(hostname -s)

write_configuration() {
  cat >"$configuration" <<END
ClusterName=test
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CryptoType=crypto/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
# No cgroups: they can't be counted on in a container.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
# Memory and time limits are enforced: a job over its memory is killed, after at most 3 seconds.
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=3
JobAcctGatherParams=OverMemoryKill
KillWait=30
# No accounting, as on many small clusters: finished jobs can be seen for MinJobAge seconds.
AccountingStorageType=accounting_storage/none
MinJobAge=3600
SchedulerParameters=batch_sched_delay=0,sched_min_interval=200000
ReturnToService=2
# The node counts as large enough for what the rules ask, whatever this machine has.
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=32000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=$node Default=YES MaxTime=INFINITE State=UP
END
  printf 'Name=gpu File=/dev/%s\n' null zero >"$folder/gres.conf"
}

# A process, told from a later one of the same number by when it began.
process() { echo "$1 $(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20)"; }

# Stop the cluster that the link belongs to, if the process that started it is gone.
stop_abandoned() {
  local other owner
  other=$(dirname "$(readlink "$link")")
  [ -e "$other/owner" ] || return 0
  owner=$(cat "$other/owner")
  [ "$(process "${owner%% *}")" = "$owner" ] || "$0" stop "$other"
}

start() {
  [ ! -L "$link" ] || stop_abandoned
  if [ -e "$link" ]; then
    echo "cluster.sh: $link exists, so this machine has a SLURM already; one of these tests is" \
      "ended by: $0 stop $(dirname "$(readlink -f "$link")")" >&2
    return 1
  fi
  mkdir -p "$folder"/{state,spool}
  chmod 0755 "$folder"
  process "$PPID" >"$folder/owner"
  head --bytes 128 /dev/urandom >"$folder/munge.key"
  chmod 0400 "$folder/munge.key"
  write_configuration
  ln --symbolic --force "$configuration" "$link"
  munged --force --key-file "$folder/munge.key" --socket "$folder/munge.socket" \
    --pid-file "$folder/munged.pid" --log-file "$folder/munged.log" \
    --seed-file "$folder/munged.seed" --num-threads 2
  slurmctld -f "$configuration"
  slurmd -f "$configuration"
  for _ in $(seq 60); do
    [ "$(sinfo --noheader --format %T 2>/dev/null)" = idle ] && return
    sleep 0.5
  done
  echo "cluster.sh: no idle node after 30 seconds; see the logs in $folder" >&2
  tail -n 5 "$folder"/*.log >&2
  stop
  return 1
}

stop() {
  if [ ! -e "$configuration" ]; then
    echo "cluster.sh: no cluster in $folder" >&2
    return 1
  fi
  if [ -s "$folder/slurmctld.pid" ]; then
    scancel --user root --quiet 2>/dev/null || true
    for _ in $(seq 80); do
      [ -n "$(squeue --noheader 2>/dev/null)" ] || break
      sleep 0.5
    done
  fi
  for daemon in slurmd slurmctld munged; do
    end "$folder/$daemon.pid"
  done
  [ "$(readlink "$link")" != "$configuration" ] || rm "$link"
  rm -rf "$folder"
}

# End the process of a PID file, and wait until it is gone.
end() {
  [ -s "$1" ] || return 0
  local pid
  pid=$(cat "$1")
  kill "$pid" 2>/dev/null || return 0
  for _ in $(seq 40); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.25
  done
  kill -9 "$pid"
}

case $action in
  start | stop) "$action" ;;
  *) echo "usage: cluster.sh start|stop FOLDER" >&2; exit 2 ;;
esac
