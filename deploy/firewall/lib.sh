# shellcheck shell=bash
# What apply, confirm, rollback, network and off share: where things are, and how a form of the firewall is loaded.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# The source: the host's own where it is installed, else the one beside this file.
source_dir=${NLLBD_FIREWALL_SOURCE:-/etc/nllbd/firewall}
if [ ! -e "$source_dir/firewall.toml" ]; then source_dir=$here; fi
state_dir=${NLLBD_FIREWALL_STATE:-/run/nllbd-firewall}      # until the next boot: what is loaded, what waits
kept_dir=${NLLBD_FIREWALL_KEPT:-/var/lib/nllbd-firewall}    # what was confirmed: loaded at boot
# shellcheck disable=SC2034 # those who read this file use it
pending=$state_dir/pending
timer=nllbd-firewall-rollback
PATH=$PATH:/usr/sbin:/sbin

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }
fail() {
  say "$*"
  exit 1
}

# One at a time: a confirmation and the rollback's timer may come at the same moment.
lock() {
  [ "$(id -u)" = 0 ] || fail "must be root"
  (umask 077 && mkdir -p "$state_dir" "$kept_dir")
  exec 8>"$state_dir/lock"
  flock -w 20 8 || fail "another apply, confirm or rollback holds $state_dir/lock"
}

# render_into FOLDER FORM: the rules as files, checked by the program that will load them.
render_into() {
  mkdir -p "$1"
  printf '%s\n' "$2" >"$1/form"
  case $2 in
    nft)
      "$here/render" nft --source "$source_dir" >"$1/rules.nft" || return
      nft -c -f "$1/rules.nft"
      ;;
    iptables)
      "$here/render" iptables --source "$source_dir" >"$1/rules.v4" || return
      "$here/render" ip6tables --source "$source_dir" >"$1/rules.v6" || return
      iptables-restore --test <"$1/rules.v4" && ip6tables-restore --test <"$1/rules.v6"
      ;;
  esac
}

# load FOLDER: make the rules there those of the kernel, each family in one go.
load() {
  case $(<"$1/form") in
    nft) nft -f "$1/rules.nft" ;;
    iptables) iptables-restore -w 10 <"$1/rules.v4" && ip6tables-restore -w 10 <"$1/rules.v6" ;;
  esac
}

same_rules() { # same_rules FOLDER FOLDER: whether both hold the same form and rules
  diff -rq "$1" "$2" >/dev/null 2>&1
}

replace() { # replace FOLDER WITH: there is always a whole folder of that name, or none
  rm -rf "$1.old"
  if [ -e "$1" ]; then mv "$1" "$1.old"; fi
  mv "$2" "$1"
  rm -rf "$1.old"
}

# capture FOLDER FORM: what the kernel has now, so that it can be loaded again.
capture() {
  mkdir -p "$1"
  if [ -e "$state_dir/loaded" ] && [ "$(<"$state_dir/loaded/form")" = "$2" ]; then
    cp "$state_dir/loaded/"* "$1/"
    return
  fi
  printf '%s\n' "$2" >"$1/form"
  case $2 in
    nft)
      printf 'table inet nllbd\ndelete table inet nllbd\n' >"$1/rules.nft"
      nft -s list table inet nllbd >>"$1/rules.nft" 2>/dev/null || true
      ;;
    iptables)
      save_table iptables-save >"$1/rules.v4"
      save_table ip6tables-save >"$1/rules.v6"
      ;;
  esac
}

save_table() { # a family without any rules prints nothing: that is "accept everything"
  local rules
  rules=$("$1" -t filter)
  if [ -z "$rules" ]; then rules=$(printf '%s\n' '*filter' ':INPUT ACCEPT [0:0]' ':FORWARD ACCEPT [0:0]' ':OUTPUT ACCEPT [0:0]' COMMIT); fi
  printf '%s\n' "$rules"
}

stop_timer() {
  if [ -d /run/systemd/system ]; then systemctl stop "$timer.timer" >/dev/null 2>&1 || true; fi
}

# The address from which whoever runs this came in by ssh; nothing on a console. sudo takes the variable away and gives a
# terminal that `who` does not know: the processes above have it, as far as they are in this network.
ssh_client() {
  local pid=$$ network address
  network=$(readlink "/proc/$pid/ns/net")
  while [ "${pid:-0}" -gt 1 ] && [ "$(readlink "/proc/$pid/ns/net" 2>/dev/null)" = "$network" ]; do
    address=$(tr '\0' '\n' 2>/dev/null <"/proc/$pid/environ" | sed -n 's/^SSH_CONNECTION=\([^ ]*\) .*/\1/p') || true
    if [ -n "$address" ]; then
      printf '%s\n' "$address"
      return
    fi
    pid=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$pid/status" 2>/dev/null) || true
  done
}

check_own_way_in() {
  local client
  client=$(ssh_client)
  if [ -n "$client" ] && ! "$here/render" is-in ssh "$client" --source "$source_dir"; then
    fail "you are logged in from $client, which ssh would not let in (networks/admin, networks/blocked): you would lock yourself out (--force applies it all the same)"
  fi
}
