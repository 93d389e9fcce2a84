# shellcheck shell=bash
# What the scripts of deploy/redis and deploy/postgres share; sourced, never run.
# shellcheck disable=SC2034  # DRY_RUN is read by those who source this

DRY_RUN=${DRY_RUN:-}

say() { printf '%s\n' "$*" >&2; }

die() {
  say "${0##*/}: $*"
  exit 1
}

# The comment at the top of the script is its help.
show_help() { sed -n '2,/^[^#]/{/^#/!q;s/^# \{0,1\}//;p}' "$0"; }

# Run a command that changes something; with --dry-run only say it.
run() {
  if [ -n "$DRY_RUN" ]; then
    printf 'would run:' >&2
    printf ' %q' "$@" >&2
    printf '\n' >&2
  else
    "$@"
  fi
}

need_root() { [ -n "$DRY_RUN" ] || [ "$(id -u)" = 0 ] || die "must be run as root"; }

need_value() { [ "$#" -ge 2 ] || die "$1 takes a value"; }

# A file put in place whole, with its owner and mode from its first byte: install_text PATH OWNER:GROUP MODE <TEXT
install_text() {
  local path=$1 owner=$2 mode=$3 draft
  if [ -n "$DRY_RUN" ]; then
    cat >/dev/null
    say "would write $path ($owner, $mode)"
    return
  fi
  draft=$(mktemp "$path.XXXXXX")
  chown "$owner" "$draft"
  chmod "$mode" "$draft"
  cat >"$draft"
  mv -f "$draft" "$path"
}

# The secret in FILE, made first if there is none: 256 bits, only root reads them.
ensure_secret() {
  local file=$1
  [ -s "$file" ] && return
  if [ -n "$DRY_RUN" ]; then
    say "would make a secret in $file"
    return
  fi
  (umask 077 && mkdir -p "$(dirname "$file")" && openssl rand -hex 32 >"$file")
}

# wait_until SECONDS WHAT COMMAND...: until the command succeeds
wait_until() {
  local seconds=$1 what=$2 end
  shift 2
  end=$((SECONDS + seconds))
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || die "$what: not within $seconds s"
    sleep 0.2
  done
}
