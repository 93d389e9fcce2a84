#!/usr/bin/env bash
# primary-init.sh: roles and database, once, when the volume is empty; the postgres image runs it (compose.yml)
#
# Passwords come from files (SECRETS, /run/secrets), go through a pipe and into no log.
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,4s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
SECRETS=${SECRETS:-/run/secrets}

role() {
  local secret
  secret=$(<"$SECRETS/$1")
  printf "create role %s login password '%s' %s;\n" "$1" "${secret//\'/\'\'}" "${2:-}"
}

{
  # nobody follows yet
  printf 'set synchronous_commit = local;\nset log_min_error_statement = panic;\nset log_min_duration_statement = -1;\n'
  role nllbd
  role replicator replication
  role backup
  role exporter
  cat <<'X'
alter role nllbd set statement_timeout = '10s';
create database nllbd owner nllbd encoding 'UTF8' template template0 locale 'C.UTF-8';
revoke connect on database nllbd from public;
grant connect on database nllbd to backup;
grant pg_read_all_data to backup;
grant pg_monitor to exporter;
-- holds from the next start, which is the real one: commits wait for the standby
alter system set synchronous_standby_names = 'ANY 1 (standby)';
X
} | psql -XAtq -v ON_ERROR_STOP=1 -U "${POSTGRES_USER:-postgres}" -d postgres
