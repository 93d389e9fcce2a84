#!/usr/bin/env bash
# Namespaces in which containers are built and run: processes, mounts, network and control groups of their own, on this
# machine's files. sandbox.py drives it.
#
#   unshare --mount --propagation private sandbox.sh NETNS
#
# Prints the pid of the namespaces' first process. The end of the input ends everything in them and removes it: whoever
# started this may die in any way and leaves nothing behind.
set -euo pipefail

prepare() {
  mount -t proc proc /proc
  mount -t tmpfs tmpfs /run -o mode=755
  mkdir /run/docker
  mount -t tmpfs tmpfs /sys/fs/cgroup -o mode=755
  local controller
  for controller in "$@"; do
    mkdir "/sys/fs/cgroup/$controller"
    mount_group "$controller" "/sys/fs/cgroup/$controller"
  done
  ip link set lo up
  sysctl -qw net.ipv4.ip_forward=1
  # a machine in a network: Swarm wants an address to advertise, and a route to choose it by
  ip link add outside type bridge
  ip address add 10.77.0.1/24 dev outside
  ip link set outside up
  ip route add default via 10.77.0.254
  echo ready >&3
  exec 3>&-
  exec sleep infinity
}

mount_group() {
  case $1 in
    systemd) mount -t cgroup -o none,name=systemd cgroup "$2" ;;
    unified) mount -t cgroup2 cgroup2 "$2" ;;
    *) mount -t cgroup -o "$1" cgroup "$2" ;;
  esac
}

if [ "${1:-}" = --init ]; then prepare "${@:2}"; fi

netns=$1
self=$(realpath "$0")
base=$(mktemp -d /tmp/nllbd-sandbox.XXXXXX)
controllers=() groups=() supervisor=

# Controllers of version 1, as the kernel names them; where there is version 2 alone, that.
find_controllers() {
  mapfile -t controllers < <(awk 'NR > 1 && $2 != 0 && $4 == 1 {print $1}' /proc/cgroups)
  controllers+=(systemd unified)
}

make_groups() {
  local controller
  for controller in "${controllers[@]}"; do
    mkdir "$base/$controller"
    mount_group "$controller" "$base/$controller"
    mkdir "$base/$controller/nllbd-sandbox-$$"
    if [ "$controller" = cpuset ]; then # empty ones take no process
      cat "$base/cpuset/cpuset.cpus" >"$base/cpuset/nllbd-sandbox-$$/cpuset.cpus"
      cat "$base/cpuset/cpuset.mems" >"$base/cpuset/nllbd-sandbox-$$/cpuset.mems"
    fi
    groups+=("$base/$controller/nllbd-sandbox-$$")
  done
}

start() {
  exec 3> >(cat >"$base/ready")
  (
    for group in "${groups[@]}"; do echo "$BASHPID" >"$group/cgroup.procs"; done
    exec nsenter "--net=/run/netns/$netns" unshare --pid --mount --ipc --uts --cgroup --fork --kill-child \
      --propagation private bash "$self" --init "${controllers[@]}"
  ) </dev/null >>"$base/console" 2>&1 &
  supervisor=$!
  exec 3>&-
  while kill -0 "$supervisor" 2>/dev/null && ! grep -q ready "$base/ready" 2>/dev/null; do sleep 0.02; done
  pgrep -P "$supervisor" || { echo "failed: $(tr '\n' ' ' <"$base/console")"; }
}

remove_all() {
  if [ -n "$supervisor" ]; then
    pkill -KILL -P "$supervisor" || true # PID 1 of its namespace: the kernel ends all others with it
    wait "$supervisor" 2>/dev/null || true
  fi
  local group attempt
  for attempt in $(seq 200); do
    for group in "${groups[@]}"; do find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true; done
    if ! ls -d "${groups[@]}" >/dev/null 2>&1; then break; fi
    if [ "$attempt" = 200 ]; then echo "control groups are still in use: ${groups[*]}" >&2; fi
    sleep 0.02
  done
  umount "$base"/* 2>/dev/null || true
  rm -rf "$base"
}

trap '' INT HUP # a Ctrl-C in the terminal is for whoever started us; our input ends then
trap remove_all EXIT
find_controllers
make_groups
start
cat >/dev/null
