# shellcheck shell=bash
# Several hosts, from one place: the inventory, and how to reach them.

INVENTORY=${NLLBD_INVENTORY:-/etc/nllbd/hosts}
# Reaches a host: is called with its name and a command for its shell, as ssh is. One connection for many commands: the
# firewall counts new ones.
TRANSPORT=${NLLBD_TRANSPORT:-ssh -o BatchMode=yes -o ConnectTimeout=10 -o ControlMaster=auto -o ControlPersist=60 -o ControlPath=~/.ssh/nllbd-%C}
PORT=8000

# on HOST COMMAND…: run it there, as root; standard input goes there, too.
on() {
  local host=$1
  shift
  # shellcheck disable=SC2086 # the transport is a command with its options
  $TRANSPORT "$host" "$(quoted "$@")"
}

quoted() { # as one line for a shell; sudo where it is not root's
  # shellcheck disable=SC2016 # the other host's shell expands it
  printf 'if [ "$(id -u)" = 0 ]; then exec %s; else exec sudo -n %s; fi' "${*@Q}" "${*@Q}"
}

# The inventory: NAME ADDRESS ROLES a line; # begins a comment.
inventory() { sed 's/#.*//' "$INVENTORY" | awk 'NF >= 3 { print $1, $2, $3 }'; }
hosts_with() { inventory | awk -v role="$1" '{ n = split($3, roles, ","); for (i = 1; i <= n; i++) if (roles[i] == role) print $1 }'; }
address_in_inventory() { inventory | awk -v name="$1" '$1 == name { print $2 }'; }

check_inventory() {
  [ -r "$INVENTORY" ] || fail "there is no inventory $INVENTORY: one host a line, NAME ADDRESS ROLES (app, edge, data, monitoring)"
  local twice
  twice=$(inventory | awk '{ print $1; print $2 }' | sort | uniq -d)
  [ -z "$twice" ] || fail "$INVENTORY has these twice: $twice"
}

socket_address() { # HOST:PORT as nginx writes it
  case $1 in *:*) printf '[%s]:%s' "$1" "$PORT" ;; *) printf '%s:%s' "$1" "$PORT" ;; esac
}

# on_edges ARGUMENT…: the same change on every load balancer.
on_edges() {
  local edge
  for edge in $(hosts_with edge); do
    on "$edge" /etc/nginx/nllbd/bin/nginx-upstream "$@" || return
  done
}
