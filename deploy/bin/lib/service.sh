# shellcheck shell=bash
# The daemon as a service: its database, its start, whether it translates.

SMOKE=$(dirname "${BASH_SOURCE[0]}")/../smoke

# as_service VERSION ARGUMENT…: a command of that release as the service's user, with its secrets and settings.
as_service() {
  local version=$1 options=() file
  shift
  for file in "$SETTINGS"/credentials/*; do
    [ -f "$file" ] && options+=(-p "LoadCredential=$(basename "$file"):$file")
  done
  systemd-run --quiet --pipe --wait --collect -p User=nllbd -p Group=nllbd -p StateDirectory=nllbd -p StateDirectoryMode=0750 \
    -p UMask=0077 "${options[@]}" "$NLLBD_HOME/releases/$version/bin/nllbd" "$@" --config "$SETTINGS/nllbd.toml"
}

# The database, brought to what VERSION needs. Under a lock: of several hosts that do this at a time, one does it.
upgrade_database() {
  as_service "$1" db check >/dev/null 2>&1 || change "upgrade the database for $1" as_service "$1" db upgrade
}

# smoke URL [ARGUMENT…]: whether a daemon is ready and translates.
smoke() {
  "$(python_program)" "$SMOKE" --key-file "$SETTINGS/credentials/api_key" "$@"
}

# Where nllbd.socket listens, as a URL of this host.
service_url() { # service_url SOCKET-UNIT
  local address
  address=$(systemctl show -p Listen --value "$1" | sed -n 's/ (Stream)$//p' | head -n 1)
  case $address in
    0.0.0.0:* | '[::]:'*) address=127.0.0.1:${address##*:} ;;
  esac
  printf 'http://%s' "$address"
}

# Whether blue-green has taken this host over from nllbd.service.
uses_slots() { is_enabled nllbd@8.service || is_enabled nllbd@9.service; }

last_words() { # what a unit said before it failed
  journalctl --no-pager --quiet -o cat -n "${2:-8}" -u "$1" >&2 || true
}

# The release that nllbd.service runs, whatever the link says by now; nothing if it does not run.
running_version() {
  local pid
  pid=$(systemctl show -p MainPID --value nllbd.service)
  tr '\0' '\n' <"/proc/${pid:-0}/cmdline" 2>/dev/null | sed -n "s|^$NLLBD_HOME/releases/\([^/]*\)/bin/.*|\1|p" | head -n 1
}

socket_hash() { { systemctl cat nllbd.socket 2>/dev/null || true; } | sha256sum; }

# With the socket if its address is another one: else it stays, and connections wait in it.
restart_for_units() { # restart_for_units FORMER-HASH
  if [ "$(socket_hash)" = "$1" ]; then restart nllbd.service; else systemctl restart nllbd.socket nllbd.service; fi
}

# restart UNIT: (re)start, and wait until it is ready (Type=notify).
restart() {
  systemctl reset-failed "$1" 2>/dev/null || true
  systemctl restart "$1" && return 0
  say "$1 does not start:"
  last_words "$1"
  return 1
}
