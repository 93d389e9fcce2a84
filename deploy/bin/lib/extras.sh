# shellcheck shell=bash
# What a host may have besides: nginx and its certificate, the firewall, backups, exporters. Each by its flag.

ready_edge() { # ready_edge SHARE: nginx before the daemon of this host (or before others: --server)
  packages nginx openssl
  local arguments=(--server-name "$EDGE") server
  for server in ${SERVERS:-$(bracketed "${LISTEN:-127.0.0.1}"):8000}; do arguments+=(--server "$server"); done
  if [ -n "$CDN" ]; then arguments+=(--cdn "$CDN"); fi
  if ! is_edge_ready "$1"; then
    change "set up nginx for $EDGE" "$1/deploy/nginx/bin/nginx-install" "${arguments[@]}"
    if [ -z "$DRY_RUN" ]; then note_edge "$1"; fi
    if is_active nginx; then change "have nginx read its configuration" systemctl reload nginx; fi
  fi
  enable nginx.service
  start nginx.service
}

# nginx-install writes many files; what it wrote last is remembered by what it was made of.
edge_hash() { { find "$1/deploy/nginx" "$1/deploy/waf" -type f -print0 | LC_ALL=C sort -z | xargs -0 cat && printf '%s' "$EDGE $SERVERS $CDN"; } | sha256sum; }
is_edge_ready() { [ "$(cat "$NLLBD_HOME/edge" 2>/dev/null)" = "$(edge_hash "$1")" ]; }
note_edge() {
  edge_hash "$1" >"$NLLBD_HOME/edge"
  record /etc/nginx/nllbd
}

ready_certificate() { # a real certificate in place of the self-signed one, renewed by certbot's own timer
  packages certbot
  local script=$1/deploy/certificates/bin/certificate-issue
  [ -x "$script" ] || fail "this release has no $script"
  [ -e "/etc/letsencrypt/live/$EDGE/fullchain.pem" ] ||
    change "ask for a certificate of $EDGE" "$script" --domain "$EDGE" --email "$CERTBOT"
  enable certbot.timer
  start certbot.timer
}

ready_firewall() {
  packages nftables
  local name folder=$SETTINGS/firewall
  if [ ! -e "$folder/firewall.toml" ]; then
    put "$folder/firewall.toml" 644 < <(firewall_settings "$1/deploy/firewall/firewall.toml")
  fi
  for name in admin internal proxies blocked; do
    [ -e "$folder/networks/$name" ] || put "$folder/networks/$name" 644 <"$1/deploy/firewall/networks/$name"
  done
  put /etc/sysctl.d/90-nllbd-network.conf 644 <"$1/deploy/firewall/sysctl.conf"
  ready_firewall_scripts "$1"
  put /etc/systemd/system/nllbd-firewall.service 644 <"$1/deploy/firewall/nllbd-firewall.service"
  is_enabled nllbd-firewall.service || change "load the firewall at boot" enable_firewall
  if [ -n "$DRY_RUN" ]; then
    [ -e /var/lib/nllbd-firewall/confirmed ] || change "load the firewall" true
  elif ! "$LIBRARY/firewall/apply" --dry-run 2>&1 | grep -q 'nothing to do'; then
    change "load the firewall; it goes again in 5 minutes unless $LIBRARY/firewall/confirm is called" \
      "$LIBRARY/firewall/apply" --within 300
    if [ "$FIREWALL" = confirmed ]; then change "confirm the firewall" "$LIBRARY/firewall/confirm"; fi
  fi
}

firewall_settings() { # Docker forwards for its containers: a second chain must not drop that
  local forward=drop
  case ,$ROLES, in *,swarm,*) forward=leave ;; esac
  sed "s/^roles = .*/roles = [$(quoted_list "$ROLES")]/; s/^forward = .*/forward = \"$forward\"/" "$1"
}

# Copies, not links into a release: the firewall outlives the service.
ready_firewall_scripts() {
  local name mode
  for name in apply confirm rollback off network render lib.sh source.py nftables.py iptables.py README.md; do
    mode=$(stat -c %a "$1/deploy/firewall/$name")
    put "$LIBRARY/firewall/$name" "$mode" <"$1/deploy/firewall/$name"
  done
}

enable_firewall() {
  systemctl daemon-reload
  systemctl --quiet enable nllbd-firewall.service
  sysctl --quiet --load /etc/sysctl.d/90-nllbd-network.conf || say "some of the kernel's settings could not be set here"
}

ready_backup() { # the timers; /etc/nllbd/backup.toml says what and where to
  packages restic
  if grep -qs '^postgres' "$SETTINGS/credentials/database_url"; then ready_postgresql_programs; fi
  [ -e "$SETTINGS/backup.toml" ] || [ -n "$DRY_RUN" ] || say "write $SETTINGS/backup.toml (deploy/backup/README.md): until then no backup is made"
  enable nllbd-backup.timer nllbd-backup-verify.timer
  start nllbd-backup.timer nllbd-backup-verify.timer
}

# To dump a database, and to load the dump into a scratch server when it is verified. No other server starts here.
ready_postgresql_programs() {
  local file=/etc/postgresql-common/createcluster.conf
  [ -e "$file" ] || put "$file" 644 <<<'create_main_cluster = false'
  packages postgresql
}

ready_exporters() { # figures of the host, and of what else runs on it
  local names=(prometheus-node-exporter) name
  if [ -n "$EDGE" ]; then names+=(prometheus-nginx-exporter); fi
  packages "${names[@]}"
  if [ -n "$EDGE" ]; then
    # Debian's unit reads its arguments here; nginx tells its figures on the status port of our configuration.
    grep -qs 'Written by setup-monitoring' /etc/default/prometheus-nginx-exporter ||
      put /etc/default/prometheus-nginx-exporter 644 <<<'ARGS="-nginx.scrape-uri http://127.0.0.1:8089/stub_status"'
  fi
  for name in "${names[@]}"; do
    enable "$name.service"
    start "$name.service"
  done
  enable nllbd-check.timer
  start nllbd-check.timer
}
