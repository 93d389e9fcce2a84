# shellcheck shell=bash
# What a host needs beside the release: account, folders, settings, secrets, units.

share_of() { printf '%s/releases/%s/share' "$NLLBD_HOME" "$1"; }

# share VERSION: where its units and scripts lie; before the release is made (--dry-run), the source.
share() {
  local folder
  folder=$(share_of "$1")
  if [ -d "$folder" ]; then printf '%s' "$folder"; else printf '%s' "$SOURCE"; fi
}

ready_account() {
  put /etc/sysusers.d/nllbd.conf 644 <"$1/systemd/sysusers.d/nllbd.conf"
  put /etc/tmpfiles.d/nllbd.conf 644 <"$1/systemd/tmpfiles.d/nllbd.conf"
  id -u nllbd >/dev/null 2>&1 || change "make the account nllbd" systemd-sysusers nllbd.conf
  if [ ! -d "$SETTINGS/credentials" ] || [ ! -d /var/lib/nllbd ]; then change "make the folders" make_folders; fi
}

make_folders() { systemd-tmpfiles --create nllbd.conf; }

ready_settings() {
  if [ ! -e "$SETTINGS/nllbd.toml" ]; then
    put "$SETTINGS/nllbd.toml" 644 < <(sed "s|@MODEL@|$MODEL|; s|@METRICS_HOST@|${LISTEN:-127.0.0.1}|
      s|@PROXIES@|$(quoted_list "$PROXIES")|" "$(dirname "${BASH_SOURCE[0]}")/../settings.toml")
  fi
  local name
  for name in api_key jwt_secret cache_secret; do
    [ -e "$SETTINGS/credentials/$name" ] || change "make a secret: $SETTINGS/credentials/$name" make_secret "$name"
  done
}

quoted_list() { # 10.0.0.1,10.0.0.2 → "10.0.0.1", "10.0.0.2"
  [ -z "$1" ] || printf '"%s"' "${1//,/\", \"}"
}

make_secret() { # never on a command line, never readable to others
  (umask 077 && head -c 48 /dev/urandom | base64 -w 0 | tr '+/' '-_' >"$SETTINGS/credentials/$1.new")
  mv "$SETTINGS/credentials/$1.new" "$SETTINGS/credentials/$1"
}

# The units of a release. Those of another one are replaced, and systemd reads them anew.
ready_units() {
  local name before=$CHANGES
  for name in $(cd "$1/systemd" && ls -d nllbd*.*); do
    put "/etc/systemd/system/$name" 644 <"$1/systemd/$name"
  done
  if [ -n "$LISTEN" ]; then listen_on "$LISTEN"; fi
  if [ -n "$GPU" ]; then
    for name in nllbd nllbd@; do
      put "/etc/systemd/system/$name.service.d/gpu.conf" 644 <"$1/systemd/drop-ins/gpu.conf"
    done
  fi
  [ "$CHANGES" = "$before" ] || change "have systemd read its units" systemctl daemon-reload
}

listen_on() {
  put /etc/systemd/system/nllbd.socket.d/listen.conf 644 <<END
# Written by install.sh --listen.
[Socket]
ListenStream=
ListenStream=$(bracketed "$1"):8000
END
}

bracketed() { # an address as it stands before a port
  case $1 in *:*) printf '[%s]' "$1" ;; *) printf '%s' "$1" ;; esac
}

# Commands and scripts follow the release in use.
ready_commands() {
  put /usr/local/bin/nllbd 755 <<'SCRIPT'
#!/bin/sh
# Written by install.sh. Root's commands look at what the daemon looks at: its database and its secrets. Without this
# `nllbd keys create` would make a key in a database of root's own.
if [ "$(id -u)" = 0 ]; then
  export STATE_DIRECTORY="${STATE_DIRECTORY:-/var/lib/nllbd}" CREDENTIALS_DIRECTORY="${CREDENTIALS_DIRECTORY:-/etc/nllbd/credentials}"
fi
exec /opt/nllbd/current/bin/nllbd "$@"
SCRIPT
  place /usr/local/sbin/nllbd-place "$NLLBD_HOME/current/share/systemd/nllbd-place"
  place "$LIBRARY/deploy" "$NLLBD_HOME/current/share/deploy"
  local name
  for name in backup backup-verify restore; do
    place "$LIBRARY/$name" "$NLLBD_HOME/current/share/deploy/backup/$name"
  done
}
