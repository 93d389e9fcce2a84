# shellcheck shell=bash
# What the scripts of deploy/postgres share; sourced, never run.
# shellcheck source=deploy/lib/common.sh
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../lib/common.sh"
SHARE=$(readlink -f "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/..")

VERSION=${VERSION:-$(find /usr/lib/postgresql -mindepth 1 -maxdepth 1 -printf '%f\n' 2>/dev/null | sort -V | tail -1)}
CLUSTER=${CLUSTER:-main}
PORT=${PORT:-5432}
ETC=/etc/postgresql/$VERSION/$CLUSTER
DATA=/var/lib/postgresql/$VERSION/$CLUSTER
BIN=/usr/lib/postgresql/$VERSION/bin
# shellcheck disable=SC2034  # those who source this use it
UNIT=postgresql@$VERSION-$CLUSTER.service
TLS=/etc/postgresql/tls
PASSFILE=/etc/postgresql/nllbd.pgpass
PEERS=/etc/postgresql/nllbd-peers
SECRETS=${SECRETS:-/etc/postgresql/secrets}

need_postgresql() {
  [ -n "$DRY_RUN" ] || [ -x "$BIN/initdb" ] || die "PostgreSQL is not installed: apt-get install postgresql"
}

as_postgres() { run setpriv --reuid=postgres --regid=postgres --init-groups --reset-env "$@"; }

# SQL from standard input, as the superuser over the local socket.
sql() {
  if [ -n "$DRY_RUN" ]; then
    cat >/dev/null
    say "would run SQL as postgres"
    return
  fi
  setpriv --reuid=postgres --regid=postgres --init-groups --reset-env \
    psql -XAtq -v ON_ERROR_STOP=1 -p "$PORT" -d postgres
}

query() { sql <<<"$1"; }

is_up() { query 'select 1' >/dev/null 2>&1; }

is_standby() { [ "$(query 'select pg_is_in_recovery()')" = t ]; }

# Name of this host among the standbys: synchronous_standby_names and slots call it that.
node_name() { hostname -s | tr 'A-Z-' 'a-z_' | tr -cd 'a-z0-9_'; }

slot_of() { printf 'nllbd_%s' "$1"; }

# install_settings BIND NETWORK…: configuration, certificates and access rules of this host
install_settings() {
  local tls=$1 bind=$2 file
  shift 2
  run install -d -o postgres -g postgres -m 0750 "$TLS"
  for file in server.crt server.key ca.crt; do
    run install -o postgres -g postgres -m 0600 "$tls/$file" "$TLS/$file"
  done
  run install -d -o postgres -g postgres -m 0755 "$ETC/conf.d"
  run install -o postgres -g postgres -m 0644 "$SHARE/conf.d/10-nllbd.conf" "$ETC/conf.d/10-nllbd.conf"
  install_text "$ETC/conf.d/20-host.conf" postgres:postgres 0644 <<X
# this host; written by ${0##*/}
listen_addresses = 'localhost, $bind'
port = $PORT
cluster_name = '$(node_name)'
X
  hba_for "$@" | install_text "$ETC/pg_hba.conf" postgres:postgres 0640
  run install -D -m 0755 "$SHARE/bin/pg-guard" /usr/local/lib/nllbd/pg-guard
  run install -D -m 0644 "$SHARE/systemd/postgresql@.service.conf" /etc/systemd/system/postgresql@.service.d/nllbd.conf
  run systemctl daemon-reload
}

hba_for() {
  local line network
  while IFS= read -r line; do
    if [[ $line != '#'* && $line == *@NETWORK@* ]]; then
      for network in "$@"; do printf '%s\n' "${line/@NETWORK@/$network}"; done
    else
      printf '%s\n' "$line"
    fi
  done <"$SHARE/pg_hba.conf"
}

# The other servers, which pg-guard asks before this one starts as a primary.
install_peers() {
  local peer
  for peer in "$@"; do
    printf '%s\n' "$(conninfo_of "$peer")"
  done | install_text "$PEERS" postgres:postgres 0640
}

# The replicator's password where libpq looks for it: never in a connection string, a process list or a log.
install_passfile() {
  local secret=''
  ensure_secret "$SECRETS/replicator"
  [ -n "$DRY_RUN" ] || secret=$(<"$SECRETS/replicator")
  install_text "$PASSFILE" postgres:postgres 0600 <<<"*:*:*:replicator:$secret"
}

# Connection string to another server, for replication and pg_rewind.
conninfo_of() {
  printf 'host=%s port=%s user=replicator dbname=postgres passfile=%s sslmode=verify-full sslrootcert=%s application_name=%s connect_timeout=5' \
    "$1" "$PORT" "$PASSFILE" "$TLS/ca.crt" "$(node_name)"
}

# One value from another server.
ask_server() {
  setpriv --reuid=postgres --regid=postgres --init-groups --reset-env psql -XAtq -d "$(conninfo_of "$1")" -c "$2"
}

# What differs on the standby after a copy: whom it follows, and that nobody waits for it in turn.
follow() {
  local primary=$1
  install_text "$DATA/postgresql.auto.conf" postgres:postgres 0600 <<X
# written by ${0##*/}; ALTER SYSTEM adds to it
primary_conninfo = '$(conninfo_of "$primary")'
primary_slot_name = '$(slot_of "$(node_name)")'
recovery_target_timeline = 'latest'
X
  run install -o postgres -g postgres -m 0600 /dev/null "$DATA/standby.signal"
}

# Slots are local to a server: each standby's must be there before it comes.
make_slot() {
  query "select pg_create_physical_replication_slot('$1', true) where not exists
    (select from pg_replication_slots where slot_name = '$1')" >/dev/null
}

streams_from() {
  [ "$(query "select status from pg_stat_wal_receiver")" = streaming ]
}
