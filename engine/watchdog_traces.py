"""What a rank leaves behind when it hangs: the stacks of its threads and the flight recorder's list of collectives."""

import faulthandler
import json
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import torch.distributed as dist

from engine.launch.outcome import ERROR_FILE

logger = logging.getLogger(__name__)

LOGS = "logs"  # in the folder of a run
FLIGHT_RECORDER = "flight-recorder"  # in LOGS
EXIT_STALLED = 124
"""Exit code of a process that its watchdog ended, as that of the command `timeout`."""
RECORDED = 2000
"""Collectives that the flight recorder remembers."""


def record_collectives(output_dir: Path) -> None:
    """Switch the flight recorder on, and let NCCL write it under OUTPUT_DIR/logs when a collective times out.

    Call it on every rank before the process group is made. What the environment says already stays as it is.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    folder = output_dir / LOGS / FLIGHT_RECORDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        logger.warning("%s cannot be made (%s): no flight recorder", folder, error.strerror)
        return
    # each has two names, the older one last
    _default(("TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE"), str(RECORDED))
    _default(("TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE"), str(folder.resolve() / "nccl-rank-"))
    _default(("TORCH_NCCL_DUMP_ON_TIMEOUT",), "1")


def _default(names: tuple[str, ...], value: str) -> None:
    if not any(name in os.environ for name in names):
        os.environ[names[0]] = value


def dump_collectives(logs: Path, rank: int) -> None:
    """Write the flight recorder of this process, pickled as NCCL writes it itself, if there is a process group that keeps one."""
    if not (dist.is_available() and dist.is_initialized()):
        return
    from torch._C import _distributed_c10d as c10d

    for backend, function in (("gloo", "_dump_fr_trace"), ("nccl", "_dump_nccl_trace")):
        if backend in dist.get_backend_config() and hasattr(c10d, function):
            try:
                (logs / FLIGHT_RECORDER).mkdir(parents=True, exist_ok=True)
                (logs / FLIGHT_RECORDER / f"{backend}-rank-{rank}").write_bytes(getattr(c10d, function)())
            except (OSError, RuntimeError) as error:
                logger.warning("the flight recorder could not be written: %s", error)


def dump_stacks(logs: Path, rank: int, title: str) -> Path:
    """Add the stacks of all threads of this process to a file; returns the file."""
    path = stacks_file(logs, rank)
    try:
        logs.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(f"=== {time.strftime('%Y-%m-%d %H:%M:%S')} {title}\n")
            file.flush()  # the stacks go past Python's buffer
            faulthandler.dump_traceback(file, all_threads=True)
            file.write("\n")
    except OSError as error:
        logger.warning("%s cannot be written: %s", path, error.strerror)
    return path


def stacks_file(logs: Path, rank: int) -> Path:
    """Where a rank's stacks are."""
    return logs / f"stacks-rank-{rank:05d}.txt"


def leave_last_words(logs: Path, rank: int, text: str) -> None:
    """Write why a rank ended to OUTPUT_DIR/logs, and to the file in which a launcher looks for it."""
    try:
        logs.mkdir(parents=True, exist_ok=True)
        (logs / f"stalled-rank-{rank:05d}.txt").write_text(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        if file := os.environ.get(ERROR_FILE):
            Path(file).write_text(json.dumps({"message": text, "timestamp": int(time.time())}))
    except OSError as error:
        logger.warning("%s cannot be written: %s", logs, error.strerror)


def bounded(call: Callable[[], object], seconds: float) -> bool:
    """Do something that may itself hang, such as writing to a file system that is gone; False if it was not done in time."""
    thread = threading.Thread(target=call, name="watchdog-writer", daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def end_process(code: int) -> NoReturn:
    """End this process whatever its other threads are at, and its loader workers, which might wait for ever where it did."""
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(code)
