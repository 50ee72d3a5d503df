#!/usr/bin/env bash
# Make the project's virtual environment complete. The one place for set-up: sourced by test.sh and quickstart.sh, or run by itself.
#
#   VENV=DIR      where the environment is (default: .venv in the repository)
#   PYTHON=EXE    the Python (3.10 or newer) it is made with (default: the first suitable one on PATH)
#
# Sets ROOT, VENV and VENV_PYTHON for the script that sources it. A complete environment is recognised by a stamp and costs a
# fraction of a second; an interrupted installation is made anew; two set-ups at once wait for each other. The torch that comes
# is the registry's (on Linux: with its CUDA packages) unless pip is pointed elsewhere, for example on a machine without a GPU:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu bash scripts/test.sh
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${VENV:-$ROOT/.venv}"
case "$VENV" in /*) ;; *) VENV="$PWD/$VENV" ;; esac
VENV_PYTHON="$VENV/bin/python"
SETUP_STATE="$VENV/multigrain-setup"    # "installing", or the fingerprint of a finished installation
SETUP_OWNED="$VENV/multigrain-owned"    # there when this script made the directory and so may empty it
SETUP_LOG="$VENV/multigrain-setup.log"
SETUP_START=$SECONDS

setup_say() { printf '[setup %3d s] %s\n' "$((SECONDS - SETUP_START))" "$*" >&2; }

setup_fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

# Prints what an installation depends on as one hash; fails where the environment's Python does not start.
setup_fingerprint() {
    "$VENV_PYTHON" - "$ROOT" 2>/dev/null <<'PY'
import hashlib, pathlib, sys
root = pathlib.Path(sys.argv[1])
parts = [sys.version, sys.prefix, str(root), *((root / name).read_text() for name in ("requirements.lock", "setup.py"))]
print(hashlib.sha256("\0".join(parts).encode()).hexdigest())
PY
}

setup_is_complete() {
    local fingerprint
    [[ -f "$SETUP_STATE" ]] && fingerprint="$(setup_fingerprint)" && [[ "$(<"$SETUP_STATE")" == "$fingerprint" ]]
}

setup_find_python() {
    local candidate
    local candidates=(python3 python3.13 python3.12 python3.11 python3.10 python)
    [[ -z "${PYTHON:-}" ]] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 </dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    setup_fail "no Python 3.10 or newer among: ${candidates[*]}. Install one, or name it: PYTHON=/path/to/python3 bash $0"
}

# Leaves a working, possibly empty environment. Only a directory that this script made is ever emptied.
setup_make_venv() {
    local python="$1" state=""
    [[ ! -f "$SETUP_STATE" ]] || state="$(<"$SETUP_STATE")"
    if [[ -f "$SETUP_OWNED" ]] && { [[ -z "$state" || "$state" == installing ]] || ! "$VENV_PYTHON" -c '' 2>/dev/null; }; then
        setup_say "$VENV is unfinished or broken: making it anew"
        find "$VENV" -mindepth 1 ! -path "$SETUP_OWNED" -delete
    fi
    if [[ ! -x "$VENV_PYTHON" ]]; then
        if [[ -d "$VENV" && ! -f "$SETUP_OWNED" && -n "$(ls -A "$VENV")" ]]; then
            setup_fail "VENV=$VENV holds other files and is no virtual environment: remove it or name another directory"
        fi
        setup_say "making a virtual environment in $VENV with $("$python" --version)"
        mkdir -p "$VENV"
        : >"$SETUP_OWNED"
        echo installing >"$SETUP_STATE"
        "$python" -m venv "$VENV" >&2 ||
            setup_fail "'$python -m venv' failed (on Debian and Ubuntu: apt-get install python3-venv)"
    fi
    echo installing >"$SETUP_STATE"
    : >"$SETUP_LOG"
}

# pip, quietly: everything goes to the log, large downloads and the long unpacking step are shown.
setup_pip() {
    local line
    if ! "$VENV_PYTHON" -m pip --disable-pip-version-check --no-input install "$@" 2>&1 </dev/null | while IFS= read -r line; do
        printf '%s\n' "$line" >>"$SETUP_LOG"
        case "$line" in
            *Downloading*"("[0-9][0-9]*" MB)"* | *Downloading*" GB)"*) setup_say "  ${line#"${line%%[![:space:]]*}"}" ;;
            "Installing collected packages"*,*) setup_say "  unpacking $(tr ',' '\n' <<<"$line" | wc -l | tr -d ' ') packages" ;;
        esac
    done; then
        tail -n 15 "$SETUP_LOG" >&2
        setup_fail "pip failed (its last lines are above, all of them in $SETUP_LOG). Run the same command again to repair."
    fi
}

setup_install() {
    local lock="$ROOT/requirements.lock" torch python
    python="$(setup_find_python)"
    setup_make_venv "$python"
    torch="$(sed -n 's/^\(torch==[0-9.]*\).*/\1/p' "$lock")"
    # torch first: every later requirement on it is then already satisfied, also where only a particular build of it can be had.
    setup_say "installing $torch"
    setup_pip "$torch" --constraint "$lock"
    setup_say "installing the other packages of requirements.lock"
    setup_pip --requirement "$lock"
    setup_say "installing the project itself"
    setup_pip --no-deps --no-build-isolation --editable "$ROOT"
    setup_fingerprint >"$SETUP_STATE.new"
    mv "$SETUP_STATE.new" "$SETUP_STATE"
    setup_say "done"
}

setup_main() {
    setup_is_complete && return
    local python
    python="$(setup_find_python)"
    mkdir -p "$(dirname "$VENV")"
    # The lock belongs to file descriptor 9, so it ends with this shell however that ends; Python takes it because `flock` is not everywhere.
    exec 9>"$VENV.lock"
    "$python" -c 'import fcntl, sys
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("setup: waiting for another set-up of the same environment", file=sys.stderr, flush=True)
    fcntl.flock(9, fcntl.LOCK_EX)'
    setup_is_complete || setup_install
    exec 9>&-
}

setup_main
