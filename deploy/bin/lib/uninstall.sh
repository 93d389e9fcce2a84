# shellcheck shell=bash
# Taking it all away again: the service, and with --purge what it knows.

uninstall() {
  [ -z "$PURGE" ] || leave_storage
  stop_units
  if [ -n "$PURGE" ]; then
    take_away_firewall
    take_away_edge
  fi
  take_away_files
  if [ -n "$PURGE" ]; then take_away_data; fi
  [ -n "$PURGE" ] || [ ! -e "$SETTINGS" ] || say "kept: $SETTINGS, /var/lib/nllbd and the account nllbd (--purge removes these)"
}

our_units() { # everything of ours that systemd knows, instances included
  { systemctl list-units --all --plain --no-legend 'nllbd*' | awk '{ print $1 }'
    systemctl list-unit-files --plain --no-legend 'nllbd*' | awk '{ print $1 }'; } 2>/dev/null | grep -v '@\.' | sort -u
}

stop_units() {
  local unit
  for unit in $(our_units); do
    case $unit in
      nllbd-firewall*) [ -n "$PURGE" ] || continue ;;
      *.slice) is_active "$unit" || continue ;;
    esac
    if is_active "$unit" || is_enabled "$unit"; then change "stop and disable $unit" stop_unit "$unit"; fi
  done
}

# The models on shared storage are everybody's: they are not of this host to remove.
leave_storage() {
  local setup=$NLLBD_HOME/current/share/deploy/storage/bin/setup-storage mounted
  if [ -e /etc/systemd/system/var-lib-nllbd-models.mount ] && [ -x "$setup" ]; then
    change "unmount the models' storage" "$setup" --remove
    [ -z "$DRY_RUN" ] || return 0
  fi
  mounted=$(findmnt -rno TARGET | grep -E '^/(var/lib|var/cache|etc)/nllbd(/|$)' || true)
  [ -z "$mounted" ] || fail "mounted, and would be emptied: ${mounted//$'\n'/, }; unmount it first"
}

stop_unit() {
  systemctl stop "$1" 2>/dev/null || true
  systemctl --quiet disable "$1" 2>/dev/null || true
  systemctl reset-failed "$1" 2>/dev/null || true
}

take_away_firewall() {
  local off=$LIBRARY/firewall/off
  [ -e /var/lib/nllbd-firewall ] || [ -e /run/nllbd-firewall ] || return 0
  [ ! -x "$off" ] || change "take the firewall off" "$off"
  change "remove /var/lib/nllbd-firewall" rm -rf /var/lib/nllbd-firewall /run/nllbd-firewall
}

take_away_edge() { # nginx itself stays: others may use it
  [ -e /etc/nginx/nllbd ] || return 0
  change "remove nllbd from nginx" remove_edge
}

remove_edge() {
  rm -rf /etc/nginx/nllbd /var/lib/nllbd-acme
  if [ -e /etc/nginx/nginx.conf.before-nllbd ]; then
    mv /etc/nginx/nginx.conf.before-nllbd /etc/nginx/nginx.conf
    if is_active nginx; then systemctl reload nginx || systemctl stop nginx; fi
  else
    systemctl stop nginx 2>/dev/null || true
    rm -f /etc/nginx/nginx.conf
  fi
}

take_away_files() {
  local file keep=''
  if [ -e "$INSTALLED" ]; then
    while read -r file; do
      if [ -z "$PURGE" ]; then
        case $file in *firewall* | /etc/sysctl.d/* | /etc/nginx/* | /etc/sysusers.d/* | /etc/tmpfiles.d/*) keep=yes && continue ;; esac
      fi
      if [ -e "$file" ] || [ -L "$file" ]; then change "remove $file" remove_file "$file"; fi
    done <"$INSTALLED"
    if [ -z "$DRY_RUN" ] && [ -z "$keep" ]; then rm -f "$INSTALLED"; fi
    systemctl daemon-reload
  fi
  for file in /etc/systemd/system/nllbd@*.service.d/numa.conf; do # nllbd-place's
    [ ! -e "$file" ] || change "remove $file" remove_file "$file"
  done
  for file in "$NLLBD_HOME"/{current,previous,slots,releases,dependencies,sources,edge}; do
    if [ -e "$file" ] || [ -L "$file" ]; then change "remove $file" rm -rf "$file"; fi
  done
  if [ -n "$PURGE" ] && [ -e "$NLLBD_HOME" ]; then change "remove $NLLBD_HOME" rm -rf "$NLLBD_HOME"; fi
}

remove_file() { # and the folders that were made for it; not Debian's, that may be empty
  local folder
  rm -rf "$1"
  folder=$(dirname "$1")
  until [[ $folder =~ ^/(etc|usr/local(/(bin|sbin|lib))?)?$ ]] || ! rmdir "$folder" 2>/dev/null; do
    folder=$(dirname "$folder")
  done
}

take_away_data() {
  local folder
  for folder in "$SETTINGS" /var/lib/nllbd /var/cache/nllbd /run/nllbd; do
    if [ -e "$folder" ]; then change "remove $folder" rm -rf "$folder"; fi
  done
  for folder in /var/lib/prometheus/node-exporter/nllbd*.prom /var/lib/systemd/timers/stamp-nllbd*; do
    if [ -e "$folder" ]; then change "remove $folder" rm -f "$folder"; fi
  done
  rmdir --ignore-fail-on-non-empty -p /var/lib/prometheus/node-exporter 2>/dev/null || true
  if id -u nllbd >/dev/null 2>&1; then change "remove the account nllbd" userdel nllbd; fi
  if getent group nllbd >/dev/null; then change "remove the group nllbd" groupdel nllbd; fi
}
