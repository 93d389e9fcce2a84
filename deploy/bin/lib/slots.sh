# shellcheck shell=bash
# The two slots of a host: instances 8 (blue) and 9 (green) of nllbd@.service, each following a link of its own.

UPSTREAM=${NLLBD_UPSTREAM:-}
# The nginx of this host, by EDGE's command: what is installed, else what this release has.
upstream() {
  local program=$UPSTREAM
  if [ -z "$program" ]; then
    program=/etc/nginx/nllbd/bin/nginx-upstream
    [ -x "$program" ] || program=$(dirname "${BASH_SOURCE[0]}")/../../nginx/bin/nginx-upstream
  fi
  "$program" ${NGINX_FOLDER:+--folder "$NGINX_FOLDER"} "$@"
}

instance_of() { case $1 in blue) echo 8 ;; green) echo 9 ;; esac; }
other_than() { case $1 in blue) echo green ;; green) echo blue ;; esac; }
unit_of() { echo "nllbd@$(instance_of "$1").service"; }
address_of() { echo "127.0.0.1:800$(instance_of "$1")"; }

active_pool() { upstream show --json | "$(python_program)" -c 'import json, sys; print(json.load(sys.stdin)["active"])'; }

# servers_in POOL: its daemons, a HOST:PORT a line.
servers_in() {
  upstream show --json | "$(python_program)" -c '
import json, sys
for server in json.load(sys.stdin)["pools"][sys.argv[1]]:
    print(server["address"])' "$1"
}

slot_version() { basename "$(readlink "$NLLBD_HOME/slots/$(instance_of "$1")" || echo -)"; }

# The unit that serves now: a slot, or the nllbd.service that was there before there were slots.
serving_unit() {
  local pool=$1
  if is_active "$(unit_of "$pool")"; then unit_of "$pool"; else echo nllbd.service; fi
}

ready_slot() { # ready_slot SLOT VERSION: its files, and its link to the release
  local instance
  instance=$(instance_of "$1")
  put "/etc/systemd/system/nllbd@$instance.service.d/slot.conf" 644 < <(slot_drop_in "$1" "$2")
  place "$SETTINGS/instances/$instance.toml" ../nllbd.toml
  place "$NLLBD_HOME/slots/$instance" "../releases/$2"
  slot_units "$2"
}

slot_units() { # slot_units VERSION: the units are those of the version that starts next
  # shellcheck disable=SC2034 # of ready_units; blue-green's --gpu is another
  local GPU='' LISTEN=''
  ready_units "$(share_of "$1")"
  systemctl daemon-reload
}

slot_drop_in() { # which GPU is this host's affair, not the slot's number's
  sed '/^#/d; /^UnsetEnvironment=/d' "$(share_of "$2")/systemd/drop-ins/slot.conf"
  printf 'Environment=CUDA_VISIBLE_DEVICES=%s\n[Unit]\nDescription=nllbd, translation with NLLB-200, slot %s\n' "$GPU" "$1"
}

# fill_pool POOL ADDRESS: exactly this daemon.
fill_pool() {
  local server
  upstream --pool "$1" add "$2"
  while read -r server; do
    [ "$server" = "$2" ] || upstream --pool "$1" --force remove "$server"
  done < <(servers_in "$1")
}

# Requests that an instance could not answer for a reason of its own (500), by its figures.
failures_of() { "$(python_program)" "$(dirname "${BASH_SOURCE[0]}")/../failures" "http://127.0.0.1:900$(instance_of "$1")/metrics"; }
