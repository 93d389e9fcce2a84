# shellcheck shell=bash
# How install.sh and the deployments speak, and how they change things: each change is announced and counted, made only
# where it is due, and with --dry-run not at all.

NLLBD_HOME=/opt/nllbd
SETTINGS=/etc/nllbd
# shellcheck disable=SC2034 # those who read this file use it
LIBRARY=/usr/local/lib/nllbd
# What was put outside NLLBD_HOME, a path a line: what uninstall takes away.
INSTALLED=$NLLBD_HOME/installed-files
DRY_RUN=${DRY_RUN:-}
CHANGES=0
export PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1
PATH=$PATH:/usr/sbin:/sbin
umask 022 # root's own may be 077: the service reads what is installed; secrets have modes of their own

say() { printf '%s\n' "$*" >&2; }
fail() {
  say "$(basename "$0"): $1"
  exit "${2:-1}"
}
need_root() { [ "$(id -u)" = 0 ] || [ -n "$DRY_RUN" ] || fail "must be root"; }

# One at a time on a host. What a command that was killed has begun holds the lock until it ends: a moment.
take_lock() {
  [ -z "$DRY_RUN" ] || return 0
  exec 7>/run/nllbd-deploy.lock
  flock -w "${NLLBD_LOCK_WAIT_S:-10}" 7 || fail "another installation or deployment runs on this host"
}

# change "what it does" COMMAND…: something that is due.
change() {
  CHANGES=$((CHANGES + 1))
  if [ -n "$DRY_RUN" ]; then
    say "would: $1"
  else
    say "$1"
    "${@:2}"
  fi
}

# put FILE MODE: make standard input the content of FILE, unless it is. Not behind a pipe: what it counts were lost.
put() {
  local content
  content=$(cat && printf x)
  if [ -f "$1" ] && [ ! -L "$1" ] && cmp -s "$1" <(printf '%s' "${content%x}") && [ "$(stat -c %a "$1")" = "${2#0}" ]; then
    return 0
  fi
  change "write $1" put_now "$1" "$2" "${content%x}"
}

put_now() { # whole or not at all, and never readable to more than it shall be
  local new=$1.nllbd-new
  mkdir -p "$(dirname "$1")"
  (umask 077 && printf '%s' "$3" >"$new")
  chmod "$2" "$new"
  mv -T "$new" "$1"
  record "$1"
}

# place LINK TARGET: a symbolic link, switched in one step.
place() {
  if [ "$(readlink "$1" 2>/dev/null)" = "$2" ]; then return 0; fi
  change "link $1 to $2" place_now "$1" "$2"
}

place_now() {
  mkdir -p "$(dirname "$1")"
  ln -sfn "$2" "$1.nllbd-new"
  mv -T "$1.nllbd-new" "$1"
  record "$1"
}

record() {
  case $1 in "$NLLBD_HOME"/* | "$SETTINGS"/*) return 0 ;; esac
  mkdir -p "$NLLBD_HOME"
  grep -qxF -- "$1" "$INSTALLED" 2>/dev/null || printf '%s\n' "$1" >>"$INSTALLED"
}

# packages NAME…: Debian packages, those that are missing.
packages() {
  local missing=() name
  for name in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  change "install the Debian packages ${missing[*]}" install_packages "${missing[@]}"
}

# Lists that are months old name packages that the mirror has no more: then they are fetched, and it is tried again.
install_packages() {
  if [ -n "$(ls /var/lib/apt/lists/*Packages* 2>/dev/null)" ] && apt_install "$@" 2>/dev/null; then return 0; fi
  apt-get update -qq || fail "apt-get update fails: is the network there?"
  apt_install "$@" || fail "the Debian packages $* cannot be installed"
}

apt_install() { DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null; }

is_active() { systemctl is-active --quiet "$1"; }
is_enabled() { systemctl is-enabled --quiet "$1" 2>/dev/null; }

enable() { # enable UNIT…
  local unit
  for unit in "$@"; do
    is_enabled "$unit" || change "enable $unit" systemctl --quiet enable "$unit"
  done
}

start() { # start UNIT…
  local unit
  for unit in "$@"; do
    is_active "$unit" || change "start $unit" systemctl start "$unit"
  done
}

summary() {
  if [ "$CHANGES" = 0 ]; then
    say "nothing to do: everything is as it should be"
  elif [ -n "$DRY_RUN" ]; then
    say "$CHANGES changes would be made; nothing was changed"
  else
    say "done: $CHANGES changes"
  fi
}

# Whoever needs an interpreter takes the one that releases run on.
python_program() { command -v "${PYTHON:-python3}" || fail "there is no ${PYTHON:-python3}"; }
