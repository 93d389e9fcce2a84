#!/usr/bin/env bash
# nllbd on a Debian host: see --help.
# shellcheck disable=SC2317 # functions are called by name, and by traps
set -euo pipefail
BIN=$(cd "$(dirname "$(realpath "${BASH_SOURCE[0]}")")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$BIN/lib/common.sh"
# shellcheck source-path=SCRIPTDIR source=lib/release.sh
. "$BIN/lib/release.sh"
# shellcheck source-path=SCRIPTDIR source=lib/host.sh
. "$BIN/lib/host.sh"
# shellcheck source-path=SCRIPTDIR source=lib/service.sh
. "$BIN/lib/service.sh"
# shellcheck source-path=SCRIPTDIR source=lib/extras.sh
. "$BIN/lib/extras.sh"
# shellcheck source-path=SCRIPTDIR source=lib/uninstall.sh
. "$BIN/lib/uninstall.sh"

usage() {
  cat <<'END'
usage: install.sh [install] [options]     from a bare Debian 12 to a running, hardened service
       install.sh upgrade [options]       another version in place; back to the former one if it does not translate
       install.sh release [options]       put a release on the disk, and use it nowhere yet (for blue-green)
       install.sh rollback                the release that was in use before
       install.sh prune [--keep N]        remove old releases (default: all but the newest 3 and those in use)
       install.sh uninstall [--purge]     remove the service; --purge: settings, secrets, data and account, too

Every command can be repeated: what is as it should be is left alone. Settings that are there are never overwritten.

  --dry-run             say what would be done, and do nothing
  --source DIR          a checkout of nllbd (default: the one that this script is in)
  --python PROGRAM      the interpreter that releases run on (default: python3; 3.11 or newer)
  --model MODEL         demo (default), a folder, or a hub id that was pulled
  --listen ADDRESS      serve on this address instead of 127.0.0.1, for load balancers on other hosts
  --proxies A,B         the load balancers' addresses (default: 127.0.0.1)
  --gpu                 the daemon uses an NVIDIA GPU (its driver must be there)
  --no-start            install only
  --no-daemon           none here: a host for nginx, databases or monitoring, that gets the firewall and the tools

Where the packages that nllbd needs come from (pinned in constraints.txt):
  (not given)           the package index of pip
  --wheelhouse DIR      a folder of wheels; nothing is downloaded then
  --dependencies DIR    an environment that has them already
  --torch cpu           the build of PyTorch without CUDA; --torch-index URL an index that has it
  --extras A,B          optional parts of nllbd (default: postgresql,hub)
  --wheel FILE          a built wheel of nllbd, instead of building the source

Besides, if asked for:
  --edge NAME           nginx in front, for this server name; --server HOST:PORT (repeat) which daemons, --cdn NAME
  --certbot EMAIL       a certificate of Let's Encrypt for NAME (without: self-signed)
  --firewall            load the firewall; somebody has to confirm it within 5 minutes. --firewall-confirmed: no question
  --roles A,B           what the firewall opens: edge, app, data, monitoring, swarm (default: edge,app)
  --backup              the timers of the backup, --exporters those of the figures for Prometheus

exit codes: 0 done or nothing to do, 1 failed (an upgrade that fails leaves the former version running), 2 wrong usage
END
}

COMMAND=install SOURCE=$(cd "$BIN/../.." && pwd) MODEL=demo GPU='' LISTEN='' PROXIES=127.0.0.1 NO_START='' NO_DAEMON='' PURGE='' KEEP=3
WHEELHOUSE='' DEPENDENCIES='' TORCH=any TORCH_INDEX='' EXTRAS=postgresql,hub WHEEL=''
EDGE='' SERVERS='' CDN='' CERTBOT='' FIREWALL='' ROLES=edge,app BACKUP='' EXPORTERS=''

parse() {
  case ${1:-} in
    install | upgrade | release | rollback | prune | uninstall) COMMAND=$1 && shift ;;
  esac
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) usage && exit 0 ;;
      --dry-run) DRY_RUN=yes ;;
      --no-start) NO_START=yes ;;
      --gpu) GPU=yes ;;
      --no-daemon) NO_DAEMON=yes ;;
      --purge) PURGE=yes ;;
      --firewall) FIREWALL=asked ;;
      --firewall-confirmed) FIREWALL=confirmed ;;
      --backup) BACKUP=yes ;;
      --exporters) EXPORTERS=yes ;;
      --*)
        [ $# -gt 1 ] || fail "$1 needs a value, or is unknown; see --help" 2
        parse_value "$1" "$2"
        shift
        ;;
      *) fail "unknown argument $1; see --help" 2 ;;
    esac
    shift
  done
  [ -z "$CERTBOT" ] || [ -n "$EDGE" ] || fail "--certbot needs --edge NAME" 2
  [ -e "$SOURCE/nllbd/__init__.py" ] || [ "$COMMAND" = rollback ] || [ "$COMMAND" = prune ] || [ "$COMMAND" = uninstall ] ||
    fail "$SOURCE is no checkout of nllbd: give --source" 2
}

parse_value() {
  case $1 in
    --source) SOURCE=$(realpath -e -- "$2") || fail "there is no $2" 2 ;;
    --python) PYTHON=$2 ;;
    --model) MODEL=$2 ;;
    --listen) LISTEN=$2 ;;
    --proxies) PROXIES=$2 ;;
    --keep) KEEP=$2 ;;
    --wheelhouse) WHEELHOUSE=$2 ;;
    --dependencies) DEPENDENCIES=$2 ;;
    --torch) TORCH=$2 ;;
    --torch-index) TORCH_INDEX=$2 ;;
    --extras) EXTRAS=$2 ;;
    --wheel) WHEEL=$2 ;;
    --edge) EDGE=$2 ;;
    --server) SERVERS="${SERVERS:+$SERVERS }$2" ;;
    --cdn) CDN=$2 ;;
    --certbot) CERTBOT=$2 ;;
    --roles) ROLES=$2 ;;
    *) fail "unknown option $1; see --help" 2 ;;
  esac
}

ready_python() {
  [ -n "${PYTHON:-}" ] || packages python3 python3-venv
  [ -n "$DRY_RUN" ] && ! command -v "${PYTHON:-python3}" >/dev/null && return 0
  "$(python_program)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "nllbd needs Python 3.11 or newer"
}

ready_version() { # VERSION on the disk
  ready_python
  ready_dependencies
  ready_release "$1"
}

install() {
  local version share
  version=$(source_version)
  if [ -n "$NO_DAEMON" ]; then ready_tools "$version"; else install_daemon "$version"; fi
  share=$(share "$version")
  [ -z "$EDGE" ] || ready_edge "$share"
  [ -z "$CERTBOT" ] || ready_certificate "$share"
  [ -z "$EXPORTERS" ] || ready_exporters
  [ -z "$BACKUP" ] || ready_backup
  [ -z "$FIREWALL" ] || ready_firewall "$share"
  if [ -z "$NO_START$NO_DAEMON$DRY_RUN" ]; then smoke "$(service_url nllbd.socket)" || fail "the daemon runs and does not translate"; fi
}

install_daemon() {
  local version=$1 share socket before
  ready_version "$version"
  [ -x "$NLLBD_HOME/current/bin/nllbd" ] || place "$NLLBD_HOME/current" "releases/$version"
  if [ -z "$DRY_RUN" ] && [ "$(current_version)" != "$version" ]; then
    say "release $(current_version) is in use and stays so: install.sh upgrade takes $version into use"
  fi
  share=$(share "$(current_version)")
  ready_account "$share"
  ready_settings
  socket=$(socket_hash) before=$CHANGES
  ready_units "$share"
  before=$((CHANGES - before))
  ready_commands
  if uses_slots; then
    NO_START=yes # blue-green runs the daemons of this host
  else
    enable nllbd.service
  fi
  if [ -z "$NO_START" ]; then
    [ -n "$DRY_RUN" ] || upgrade_database "$(current_version)"
    if [ "$before" != 0 ] && is_active nllbd.service; then
      change "restart nllbd.service: its units have changed" restart_for_units "$socket"
    fi
    start nllbd.service nllbd.target
  fi
}

upgrade() {
  local version former
  version=$(source_version)
  former=$(current_version)
  [ -n "$former" ] || fail "nothing is installed yet: install.sh install"
  [ -x "$NLLBD_HOME/current/bin/nllbd" ] || fail "this host has no daemon: install.sh --no-daemon brings its tools up to date"
  ready_version "$version"
  if [ "$former" = "$version" ]; then
    finish_upgrade "$version"
    return 0
  fi
  ! uses_slots || fail "this host runs in slots: blue-green $version"
  if [ -n "$DRY_RUN" ]; then
    change "take $version into use instead of $former" true
    return 0
  fi
  check_release "$version"
  upgrade_database "$version"
  if use "$version"; then
    place_now "$NLLBD_HOME/previous" "releases/$former"
    say "$version is in use"
    return 0
  fi
  say "$version does not work: back to $former"
  use "$former" || fail "$former does not work any more, either: see journalctl -u nllbd"
  fail "$version was taken back; $former is in use"
}

# The link says so, and the daemon is still the former one: somebody was interrupted in between.
finish_upgrade() {
  local running
  running=$(running_version)
  if [ -z "$running" ] || [ "$running" = "$1" ]; then return 0; fi
  change "take $1 into use: $running still runs" use "$1"
  [ -n "$DRY_RUN" ] || place_now "$NLLBD_HOME/previous" "releases/$running"
}

rollback() {
  local former current
  ! uses_slots || fail "this host runs in slots: blue-green with the former version"
  current=$(current_version)
  former=$(basename "$(readlink "$NLLBD_HOME/previous" 2>/dev/null || true)")
  if [ -z "$former" ] || [ "$former" = "$current" ]; then fail "there is no former release"; fi
  check_release "$former"
  if [ -n "$DRY_RUN" ]; then
    change "take $former into use instead of $current" true
  elif use "$former"; then
    place_now "$NLLBD_HOME/previous" "releases/$current"
    say "$former is in use"
  else
    say "$former does not work: $current again"
    use "$current" || fail "$current does not work any more, either: see journalctl -u nllbd"
    fail "$current stays in use"
  fi
}

# use VERSION: the link, the units, a restart behind the socket (connections wait), a translation.
use() {
  local share
  share=$(share_of "$1")
  place_now "$NLLBD_HOME/current" "releases/$1"
  ready_units "$share"
  ready_commands
  [ ! -d "$LIBRARY/firewall" ] || ready_firewall_scripts "$share"
  if is_enabled nllbd.service || is_active nllbd.service; then
    CHANGES=$((CHANGES + 1))
    restart nllbd.service && smoke "$(service_url nllbd.socket)" --version "$("$NLLBD_HOME/releases/$1/bin/nllbd" --version | cut -d ' ' -f 2)"
  fi
}

main() {
  parse "$@"
  need_root
  take_lock
  case $COMMAND in
    release) ready_version "$(source_version)" ;;
    prune) prune "$KEEP" ;;
    *) "$COMMAND" ;;
  esac
  summary
  exit 0
}

# Read to its end before it begins: an upgrade that changes this file does no harm.
main "$@"
