#!/usr/bin/env bash
# Set up whatever is missing, then watch a small model learn: writes the embedded data, pre-trains, fine-tunes, evaluates.
# Arguments go to scripts/quickstart.py (--help shows them); relative paths start at the repository's root.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
cd "$ROOT"
exec "$VENV_PYTHON" scripts/quickstart.py "$@"
