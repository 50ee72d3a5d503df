#!/usr/bin/env bash
# All checks: set up whatever is missing, then ruff, pyright and pytest. Fails if any of them does.
#
#   bash scripts/test.sh                       everything
#   bash scripts/test.sh --fast                without the tests marked slow
#   bash scripts/test.sh tests/dataset -k box  other arguments go to pytest
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
cd "$ROOT"

pytest_args=()
for argument in "$@"; do
    if [[ "$argument" == --fast ]]; then
        pytest_args+=(-m "not slow")
    else
        pytest_args+=("$argument")
    fi
done

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"  # the tests run side by side, one thread each
export HF_HUB_OFFLINE=1                         # a test that wants the network is wrong everywhere, not only where there is none
export PYRIGHT_PYTHON_IGNORE_WARNINGS=1         # no request for the newest version
failed=()

"$VENV_PYTHON" -m ruff check || failed+=(ruff)
"$VENV_PYTHON" -m ruff format --check --quiet || failed+=("ruff format")
"$VENV_PYTHON" -m pyright --pythonpath "$VENV_PYTHON" || failed+=(pyright)
# one more than there are cores, since many tests of launched runs wait
workers="$("$VENV_PYTHON" -c 'import os; print(min((os.cpu_count() or 1) + 1, 4))')"
"$VENV_PYTHON" -m pytest -n "$workers" --dist worksteal ${pytest_args[@]+"${pytest_args[@]}"} || failed+=(pytest)

# When all is well the last line is pytest's own.
if ((${#failed[@]})); then
    echo "test.sh: failed: ${failed[*]}" >&2
    exit 1
fi
