#!/usr/bin/env bash
# One host of a test: a real systemd as PID 1 on a throw-away copy of this machine's files. host.py drives it.
#
#   unshare --mount --propagation private host.sh NAME SIZE [NETNS]
#
# Reads commands from standard input, one a line, and answers each with one line:
#   bind SOURCE TARGET    shows a folder of this machine, read-only, at TARGET in the host; before it boots
#   boot                  starts systemd; answers its pid as this machine sees it
#   kill                  ends it as a power cut would; its disk stays
# The end of the input removes everything: whoever started this may die in any way and leaves nothing behind. All mounts
# lie in a mount namespace of their own, so that the machine's own table never sees one.
set -euo pipefail

controllers=(memory pids cpu cpuacct devices)

# Runs as PID 1 of the new namespaces, just before systemd does: the file systems that it expects to find.
prepare_and_boot() {
  local root=$1 controller device
  mount -t proc proc "$root/proc"
  mount --bind "$root/proc/sys" "$root/proc/sys"
  mount -o remount,bind,ro "$root/proc/sys"
  mount -t sysfs sysfs "$root/sys" -o ro
  mount -t tmpfs tmpfs "$root/run" -o mode=755
  mount -t tmpfs tmpfs "$root/tmp" -o mode=1777
  mount -t tmpfs tmpfs "$root/dev" -o mode=755
  for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
  done
  for device in autofs fuse; do # shared storage, where this machine has them
    [ ! -e "/dev/$device" ] || { touch "$root/dev/$device" && mount --bind "/dev/$device" "$root/dev/$device"; }
  done
  mkdir "$root/dev/pts" "$root/dev/shm"
  mount -t devpts devpts "$root/dev/pts" -o newinstance,ptmxmode=0666,mode=620
  mount -t tmpfs tmpfs "$root/dev/shm" -o mode=1777
  ln -s pts/ptmx "$root/dev/ptmx"
  ln -s /proc/self/fd "$root/dev/fd"
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
  else
    mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
    for controller in "${controllers[@]}"; do
      mkdir "$root/sys/fs/cgroup/$controller"
      mount -t cgroup -o "$controller" cgroup "$root/sys/fs/cgroup/$controller"
    done
    mkdir "$root/sys/fs/cgroup/systemd" "$root/sys/fs/cgroup/unified"
    mount -t cgroup -o none,name=systemd cgroup "$root/sys/fs/cgroup/systemd"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup/unified"
  fi
  hostname "$2"
  ip link set lo up
  cd "$root"
  mkdir -p .before
  pivot_root . .before
  umount -l /.before
  mount --make-rshared / # LoadCredential= needs it
  exec env -i container=test PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=multi-user.target --log-target=journal --show-status=0
}

if [ "${1:-}" = --init ]; then prepare_and_boot "$2" "$3"; fi

name=$1 size=$2 netns=${3:-}
self=$(realpath "$0")
base=$(mktemp -d "/tmp/nllbd-host-$name.XXXXXX")
root=$base/root
supervisor=
groups=()

make_disk() {
  mount -t tmpfs -o "size=$size,mode=755" tmpfs "$base"
  mkdir "$base/upper" "$base/work" "$root"
  mount -t overlay overlay -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" "$root"
  : >"$root/etc/machine-id"
  echo "$name" >"$root/etc/hostname"
  rm -rf "$root"/var/log/journal
  # Nothing that is enabled on this machine, and nothing that wants real hardware, starts in the host.
  rm -rf "$root"/etc/systemd/system/*.wants "$root"/etc/systemd/system/*.requires
  local unit
  for unit in getty.target systemd-logind.service systemd-udevd.service systemd-udev-trigger.service \
    systemd-binfmt.service systemd-sysctl.service systemd-modules-load.service dev-hugepages.mount \
    sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount \
    proc-sys-fs-binfmt_misc.automount systemd-update-utmp.service systemd-update-utmp-runlevel.service \
    systemd-firstboot.service systemd-remount-fs.service kmod-static-nodes.service e2scrub_reap.service \
    apt-daily.timer apt-daily-upgrade.timer; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
  done
}

# A group of the host's own in each hierarchy: limits apply, and no process of it is ever among the machine's.
make_groups() {
  local controller
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    # Where that is refused (a container's own group with processes in it), limits are not enforced in the host.
    echo "+memory +pids +cpu" >/sys/fs/cgroup/cgroup.subtree_control || true
    groups=("/sys/fs/cgroup/nllbd-$name-$$")
  else
    # Mounted anew, in this namespace: the machine need not have mounted all of them, nor at the usual places.
    mkdir "$base/cgroup"
    for controller in "${controllers[@]}" systemd unified; do
      mkdir "$base/cgroup/$controller"
      case $controller in
        systemd) mount -t cgroup -o none,name=systemd cgroup "$base/cgroup/$controller" ;;
        unified) mount -t cgroup2 cgroup2 "$base/cgroup/$controller" ;;
        *) mount -t cgroup -o "$controller" cgroup "$base/cgroup/$controller" ;;
      esac
      groups+=("$base/cgroup/$controller/nllbd-$name-$$")
    done
  fi
  mkdir "${groups[@]}"
}

bind() {
  mkdir -p "$root$2"
  mount --bind "$1" "$root$2"
  mount -o remount,bind,ro "$root$2"
  echo "$2"
}

boot() {
  (
    for group in "${groups[@]}"; do echo "$BASHPID" >"$group/cgroup.procs"; done
    join=() own=(--net)
    if [ -n "$netns" ]; then join=(nsenter "--net=/run/netns/$netns") own=(); fi
    exec "${join[@]}" unshare --pid --mount "${own[@]}" --ipc --uts --cgroup --fork --kill-child \
      --propagation private bash "$self" --init "$root" "$name"
  ) </dev/null >>"$base/console" 2>&1 &
  supervisor=$!
  local pid=
  while kill -0 "$supervisor" 2>/dev/null; do
    pid=$(pgrep -P "$supervisor" -x systemd || true)
    if [ -n "$pid" ]; then break; fi
    sleep 0.02
  done
  if [ -z "$pid" ]; then pid="failed: $(tr '\n' ' ' <"$base/console")"; fi
  echo "$pid"
}

cut_power() {
  if [ -z "$supervisor" ]; then return; fi
  pkill -KILL -P "$supervisor" || true # PID 1 of its namespace: the kernel ends all others with it
  wait "$supervisor" 2>/dev/null || true
  supervisor=
}

# Groups go once the last process in them is gone, the innermost first.
remove_groups() {
  local group attempt
  for attempt in $(seq 100); do
    for group in "${groups[@]}"; do
      find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
    if ! ls -d "${groups[@]}" >/dev/null 2>&1; then return; fi
    sleep 0.02
  done
  echo "control groups are still in use after $attempt attempts: ${groups[*]}" >&2
}

remove_all() {
  cut_power
  remove_groups
  umount -R "$base" 2>/dev/null || umount -Rl "$base" || true
  rmdir "$base"
}

trap '' INT HUP # a Ctrl-C in the terminal is for whoever started us; our input ends then
trap remove_all EXIT
make_disk
make_groups
echo "$root"
while read -r command source target; do
  case $command in
    bind) bind "$source" "$target" ;;
    boot) boot ;;
    kill) cut_power; echo off ;;
    *) echo "unknown command: $command" ;;
  esac
done
