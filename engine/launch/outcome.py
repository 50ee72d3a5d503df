"""Ways out of a process: its exit code, its last line, and what it leaves behind for its launcher.

0 done, 1 crash, 2 bad input (one line on stderr), 75 asked to stop, saved, start me again, 124 no progress (see
`engine.watchdog_traces`), 128 + n killed by signal n (130: Ctrl-C).
"""

import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.errors import Requeue, UserError

REQUEUE = Requeue.exit_code
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
"""torchrun's name for the variable that tells a process where to leave its last words."""
LAUNCHER = "MULTIGRAIN_LAUNCHER"
"""Process number of the launcher, set by `spawn` for its processes: it prints bad input once, so they need not."""
OUTCOME_FILE = "MULTIGRAIN_OUTCOME_FILE"
"""Set by `spawn` for each process: a file to write when it stops as it was asked to. Such a process exits with 0, because the agent
restarts processes that do not."""
USER_ERROR = "user_error"


def guard(call: Callable[[], int | None]) -> int:
    """Call, and turn what ends it into an exit code. Only bugs are left to show a traceback."""
    try:
        return call() or 0
    except UserError as error:
        _report(error)
        return error.exit_code
    except Requeue as error:
        return _requeue(error)
    except KeyboardInterrupt:
        if not os.environ.get(LAUNCHER):
            say("Interrupted.")
        return 128 + signal.SIGINT
    except Exception as error:
        _leave(f"{type(error).__name__}: {error}", step=getattr(error, "step", None), traceback=traceback.format_exc())
        raise


def say(text: str) -> None:
    """A line for the user."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _report(error: UserError) -> None:
    left = _leave(str(error), **{USER_ERROR: True})
    if os.environ.get("RANK", "0") == "0" and not (left and os.environ.get(LAUNCHER)):
        say(str(error))


def _requeue(error: Requeue) -> int:
    if os.environ.get("RANK", "0") == "0":
        say(str(error))
    if file := os.environ.get(OUTCOME_FILE):
        Path(file).write_text(str(error))
        return 0
    return error.exit_code


def _leave(message: str, **more: Any) -> bool:
    """Write the error file that a launcher asked for; `message` and `timestamp` are what torch's own agent reads."""
    file = os.environ.get(ERROR_FILE)
    if not file:
        return False
    words = {"message": message, "timestamp": time.time(), "rank": int(os.environ.get("RANK", "0")), "host": socket.gethostname(), **more}
    try:
        Path(file).write_text(json.dumps(words, indent=1) + "\n")
    except OSError:
        return False  # the disk may be what is wrong; the exit code and the log still tell
    return True
