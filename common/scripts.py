"""How the scripts under scripts/ end: bad input is one line on stderr and its exit code, never a traceback."""

import logging
import sys
from collections.abc import Callable

from common.errors import UserError


def run_script(call: Callable[[], object]) -> int:
    """Do a script's work with its log on the terminal; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        call()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0
