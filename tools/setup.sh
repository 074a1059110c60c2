# Sets up what Cloudless needs on Debian 12; sourced by ./demo and ./test.
#
# Installs Debian packages that lack, and makes .venv in the checkout from the hashed
# lock file. Runs again without effect when nothing changed. Every failure names the
# step, the reason and the next command.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
LOG=$ROOT/.cache/setup.log

# Packages that serve a role at run time, and those that only tests need.
RUNTIME_PACKAGES=(containerd runc nftables libnftables1 iproute2 busybox-static ca-certificates python3-venv)
TEST_PACKAGES=(etcd-server etcd-client docker-registry crun tmux openssl)

step_started=0
step() { # step 1/5 name: begin a line that done_step ends
  step_started=$(date +%s%N)
  printf '[%s] %-10s ' "$1" "$2"
}
done_step() {
  local took=$(( ($(date +%s%N) - step_started) / 100000000 ))
  printf '%-58s %d.%ds\n' "$1" $((took / 10)) $((took % 10))
}
fail() { # fail "what happened" "what to try"
  printf '\nerror: %s\n' "$1" >&2
  [ -n "${2:-}" ] && printf '  try: %s\n' "$2" >&2
  exit 1
}

need_root() {
  [ "$(id -u)" = 0 ] || fail "this needs root: containers, network namespaces and mounts" "sudo $0 $*"
}

missing_packages() {
  local name
  for name in "$@"; do
    dpkg-query -W -f='${db:Status-Status}\n' "$name" 2>/dev/null | grep -qx installed || printf '%s ' "$name"
  done
}

install_packages() { # the rest of the words: package names; prints what it installed
  local missing
  missing=$(missing_packages "$@")
  installed_packages=$missing
  [ -z "$missing" ] && return 0
  command -v apt-get >/dev/null || fail "packages are missing ($missing) and there is no apt-get" "install them by hand"
  mkdir -p "$ROOT/.cache"
  # shellcheck disable=SC2086
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } \
    >"$LOG" 2>&1 </dev/null || fail "could not install: $missing (see $LOG: $(tail -n 1 "$LOG"))" "apt-get install $missing"
}

find_python() {
  local name
  for name in python3.11 python3 python3.12 python3.13; do
    if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      PYTHON=$(command -v "$name")
      return 0
    fi
  done
  fail "no Python 3.11 or newer with venv was found" "apt-get install python3 python3-venv"
}

make_venv() { # .venv holds exactly the lock file's versions, and Cloudless itself, editable
  local want
  want=$(cat "$ROOT/requirements.lock" "$ROOT/pyproject.toml" | sha256sum | cut -c1-16)
  if [ ! -x "$VENV/bin/cloudless" ] || [ "$(cat "$VENV/.lock" 2>/dev/null)" != "$want" ]; then
    find_python
    mkdir -p "$ROOT/.cache"
    [ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV" >"$LOG" 2>&1 \
      || fail "could not make $VENV (see $LOG)" "rm -rf $VENV and run again"
    "$VENV/bin/pip" install --disable-pip-version-check --require-hashes -q -r "$ROOT/requirements.lock" >"$LOG" 2>&1 \
      || fail "could not install Python packages (see $LOG: $(tail -n 1 "$LOG"))" "check the network, then run again"
    "$VENV/bin/pip" install --disable-pip-version-check --no-deps --no-build-isolation -q -e "$ROOT" >"$LOG" 2>&1 \
      || fail "could not install Cloudless into $VENV (see $LOG)" "rm -rf $VENV and run again"
    "$VENV/bin/python" -m compileall -q "$ROOT/src" >/dev/null 2>&1 || true
    echo "$want" >"$VENV/.lock"
  fi
  package_count=$("$VENV/bin/python" -c 'import importlib.metadata as m; print(sum(1 for _ in m.distributions()))')
  python_version=$("$VENV/bin/python" -c 'import platform; print(platform.python_version())')
}
