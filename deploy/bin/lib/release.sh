# shellcheck shell=bash
# A release: /opt/nllbd/releases/VERSION, nllbd alone, over /opt/nllbd/dependencies/HASH, which releases share.

# What decides which dependencies: the pins, and what was asked for.
dependencies_name() {
  if [ -n "$DEPENDENCIES" ]; then
    printf 'given-%s' "$(realpath -m "$DEPENDENCIES" | sha256sum | cut -c 1-16)"
  else
    { cat "$SOURCE/constraints.txt" && printf '%s\n' "$TORCH" "$EXTRAS" && "$(python_program)" -V; } | sha256sum | cut -c 1-16
  fi
}

# Where the packages of an environment lie: of a virtual environment, or the folder itself.
packages_of() {
  local folder
  for folder in "$1"/lib/python3*/site-packages "$1/site-packages" "$1"; do
    if [ -d "$folder/aiohttp" ]; then
      printf '%s' "$folder"
      return 0
    fi
  done
  fail "$1 has none of the packages that nllbd needs"
}

ready_dependencies() {
  local folder
  DEPENDENCIES_NAME=$(dependencies_name)
  folder=$NLLBD_HOME/dependencies/$DEPENDENCIES_NAME
  [ ! -e "$folder" ] || return 0
  if [ -n "$DEPENDENCIES" ]; then
    [ -n "$DRY_RUN" ] || packages_of "$DEPENDENCIES" >/dev/null
    change "take the dependencies from $DEPENDENCIES" link_dependencies "$folder"
  else
    change "install the dependencies${WHEELHOUSE:+ from $WHEELHOUSE} into $folder" install_dependencies "$folder"
  fi
}

link_dependencies() {
  mkdir -p "$1"
  ln -sfn "$(packages_of "$DEPENDENCIES")" "$1/site-packages"
}

install_dependencies() {
  local new=$1.new where=() pins pin
  rm -rf "$new"
  mkdir -p "$(dirname "$new")"
  "$(python_program)" -m venv "$new"
  if [ -n "$WHEELHOUSE" ]; then where=(--no-index --find-links "$(realpath "$WHEELHOUSE")"); fi
  if [ -n "$TORCH_INDEX" ]; then where+=(--extra-index-url "$TORCH_INDEX"); fi
  pins=$new/constraints.txt
  cp "$SOURCE/constraints.txt" "$pins"
  if [ "$TORCH" = cpu ]; then # the build without CUDA: a tenth of the size
    pin=$(grep '^torch==' "$pins")
    sed -i "s/^torch==.*/$pin+cpu/" "$pins"
  fi
  wanted_packages >"$new/requirements.txt"
  "$new/bin/python" -m pip install --quiet --no-input "${where[@]}" \
    -c "$pins" -r "$new/requirements.txt" setuptools
  mv -T "$new" "$1"
}

wanted_packages() {
  "$(python_program)" - "$SOURCE/pyproject.toml" "$EXTRAS" <<'PYTHON'
import sys
import tomllib

with open(sys.argv[1], "rb") as opened:
    project = tomllib.load(opened)["project"]
extras = [name for name in sys.argv[2].split(",") if name]
for name in [*project["dependencies"], *(row for extra in extras for row in project["optional-dependencies"][extra])]:
    print(name)
PYTHON
}

source_version() { sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$SOURCE/nllbd/__init__.py"; }

# Everything a release is made of.
source_hash() {
  (cd "$SOURCE" && find nllbd deploy systemd pyproject.toml constraints.txt -type f ! -name '*.pyc' ! -name '*.so' -print0 |
    LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c 1-64)
}

ready_release() { # ready_release VERSION
  local folder=$NLLBD_HOME/releases/$1 hash
  [[ $1 =~ ^[A-Za-z0-9][A-Za-z0-9.+_-]*$ ]] || fail "'$1' is no version"
  hash="$(source_hash) $DEPENDENCIES_NAME"
  if [ -e "$folder/RELEASE" ] && ! is_tools "$folder"; then
    [ "$(<"$folder/RELEASE")" != "$hash" ] || return 0
    fail "release $1 is there already and differs from $SOURCE: give the new one another version (nllbd/__init__.py)"
  fi
  change "make the release $1 of $SOURCE" make_release "$folder" "$hash"
}

# Without a daemon: the scripts and units alone.
ready_tools() {
  local folder=$NLLBD_HOME/releases/$1
  [ ! -x "$NLLBD_HOME/current/bin/nllbd" ] || fail "this host has a daemon: without --no-daemon, or install.sh upgrade"
  [ "$(cat "$folder/RELEASE" 2>/dev/null)" = "tools $(source_hash)" ] ||
    change "put the tools of $1 into $folder" make_tools "$folder"
  place "$NLLBD_HOME/current" "releases/$1"
  place "$LIBRARY/deploy" "$NLLBD_HOME/current/share/deploy"
}

is_tools() { grep -qs '^tools' "$1/RELEASE"; }

make_tools() {
  rm -rf "$1.new"
  mkdir -p "$1.new"
  copy_share "$1.new"
  printf 'tools %s\n' "$(source_hash)" >"$1.new/RELEASE"
  rm -rf "$1"
  mv -T "$1.new" "$1"
}

copy_share() { # what outlives the source: scripts, units, configurations
  mkdir -p "$1/share"
  cp -r "$SOURCE/deploy" "$SOURCE/systemd" "$SOURCE/constraints.txt" "$1/share/"
  find "$1/share" -name __pycache__ -prune -exec rm -rf {} +
  chmod -R go+rX,go-w "$1"
  chown -R root:root "$1"
}

# The interpreter itself: what is on PATH may be a script that looks for one, or belong to an environment.
real_python() {
  "$(python_program)" -c 'import os, sys; print(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))'
}

make_release() {
  local folder=$1 new=$1.new python dependencies site scratch
  python=$(real_python)
  dependencies=$(packages_of "$NLLBD_HOME/dependencies/$DEPENDENCIES_NAME")
  rm -rf "$new"
  site=$new/lib/python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')/site-packages
  mkdir -p "$new/bin" "$site"
  printf 'home = %s\ninclude-system-site-packages = false\n' "$(dirname "$python")" >"$new/pyvenv.cfg"
  ln -s "$python" "$new/bin/python"
  printf '%s\n' "$dependencies" >"$site/dependencies.pth"
  scratch=$(mktemp -d)
  build_wheel "$python" "$dependencies" "$scratch"
  "$python" -m zipfile -e "$scratch"/wheel/*.whl "$site" # a wheel is an archive of what lies in site-packages
  rm -rf "$scratch"
  # The command names the place where the release will lie.
  printf '#!%s/bin/python\nimport sys\nfrom nllbd.cli import main\nsys.exit(main())\n' "$folder" >"$new/bin/nllbd"
  chmod 755 "$new/bin/nllbd"
  "$python" -m compileall -q "$site/nllbd" >/dev/null
  copy_share "$new"
  printf '%s\n' "$2" >"$new/RELEASE"
  ! is_tools "$folder" || rm -rf "$folder"
  mv -T "$new" "$folder"
}

build_wheel() { # in a copy: the source is left as it is
  mkdir -p "$3/source" "$3/wheel"
  if [ -n "$WHEEL" ]; then
    cp "$WHEEL" "$3/wheel/"
    return
  fi
  (cd "$SOURCE" && cp -r nllbd pyproject.toml README.md LICENSE NOTICE "$3/source/")
  find "$3/source" \( -name __pycache__ -o -name '*.so' \) -prune -exec rm -rf {} +
  command -v c++ >/dev/null || say "no C++ compiler: the native CPU kernels are left out (slower on CPUs; g++ or --wheel brings them)"
  PYTHONPATH=$2 "$1" -m pip wheel --quiet --no-input --no-deps --no-build-isolation --no-index \
    -w "$3/wheel" "$3/source"
}

current_version() { basename "$(readlink "$NLLBD_HOME/current" 2>/dev/null || true)"; }

check_release() { # that VERSION is there and its command works
  local program=$NLLBD_HOME/releases/$1/bin/nllbd
  [ -x "$program" ] || fail "there is no release $1: $(ls -m "$NLLBD_HOME/releases" 2>/dev/null || echo none)"
  "$program" --version >/dev/null || fail "release $1 does not start"
}

# Releases and dependencies that nothing needs any more, but for the newest KEEP releases.
prune() {
  local keep=$1 used folder
  used=$(for folder in "$NLLBD_HOME"/current "$NLLBD_HOME"/previous "$NLLBD_HOME"/slots/*; do readlink -f "$folder"; done 2>/dev/null || true)
  while read -r folder; do
    grep -qxF -- "$folder" <<<"$used" || change "remove $folder" rm -rf "$folder"
  done < <(find "$NLLBD_HOME/releases" -mindepth 1 -maxdepth 1 -type d -printf '%T@ %p\n' | sort -rn | tail -n "+$((keep + 1))" | cut -d ' ' -f 2-)
  for folder in "$NLLBD_HOME"/sources/*; do # what rolling has sent
    [ ! -e "$folder" ] || [ -e "$NLLBD_HOME/releases/$(basename "$folder")" ] || change "remove $folder" rm -rf "$folder"
  done
  for folder in "$NLLBD_HOME"/dependencies/*; do
    [ -e "$folder" ] || continue
    grep -qs -- "^$folder/" "$NLLBD_HOME"/releases/*/lib/python3*/site-packages/dependencies.pth ||
      grep -qsxF -- "$(readlink -f "$folder/site-packages")" "$NLLBD_HOME"/releases/*/lib/python3*/site-packages/dependencies.pth ||
      change "remove $folder" rm -rf "$folder"
  done
}
