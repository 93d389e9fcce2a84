#!/usr/bin/env bash
# standby.sh COMMAND…: copy the primary if the volume is empty, then run COMMAND, PostgreSQL, as its standby (compose.yml)
#
# PRIMARY is its name, SECRETS/replicator the password, TLS the folder with ca.crt. The slot is made with the copy: the
# primary keeps what this standby needs.
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
SECRETS=${SECRETS:-/run/secrets} TLS=${TLS:-/etc/postgresql/tls}
PGDATA=${PGDATA:-/var/lib/postgresql/data}
SLOT=nllbd_standby
PASSFILE=${PASSFILE:-/tmp/standby.pgpass}

(umask 077 && printf '*:*:*:replicator:%s\n' "$(<"$SECRETS/replicator")" >"$PASSFILE")
CONNINFO="host=$PRIMARY port=${PRIMARY_PORT:-5432} user=replicator dbname=postgres passfile=$PASSFILE
  sslmode=verify-full sslrootcert=$TLS/ca.crt application_name=standby connect_timeout=5"

clone() {
  # a slot of a copy that broke off; one in use is refused, as it must
  psql -Xq -d "$CONNINFO replication=true" -c "DROP_REPLICATION_SLOT $SLOT" >/dev/null 2>&1 || true
  rm -rf "${PGDATA:?}"/*
  pg_basebackup -d "$CONNINFO" -D "$PGDATA" -X stream --checkpoint=fast --create-slot --slot="$SLOT"
}

if [ ! -e "$PGDATA/standby.signal" ] && [ ! -e "$PGDATA/is-complete" ]; then
  until clone; do
    echo "the primary is not there yet; trying again" >&2
    sleep 2
  done
  # ALTER SYSTEM's file came along; only what makes a standby stays
  printf "primary_conninfo = '%s'\nprimary_slot_name = '%s'\n" "$(tr -s '[:space:]' ' ' <<<"$CONNINFO")" "$SLOT" \
    >"$PGDATA/postgresql.auto.conf"
  touch "$PGDATA/standby.signal" "$PGDATA/is-complete"
fi
exec "$@"
