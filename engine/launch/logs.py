"""Where each process's words go: files under OUTPUT_DIR/logs, and what of them is shown while the run goes on.

OUTPUT_DIR/logs/20260131-120000/attempt-1/rank-3.{out,err,json}: standard output, standard error, and what ended the process.
All nodes write there, if they share the folder; ranks are the run's, so that names do not collide.
"""

import re
import shutil
import sys
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path

from torch.distributed.elastic.multiprocessing.api import LogsDest, LogsSpecs
from torch.distributed.elastic.multiprocessing.tail_log import TailLog

from common.errors import UserError
from engine.launch.meeting import Attempt
from engine.launch.outcome import ERROR_FILE, OUTCOME_FILE

LOGS = "logs"
KEPT_STARTS = 10
_START = re.compile(r"\d{8}-\d{6}")
"""Names of the folders of starts; the watchdog's files lie beside them."""
_TROUBLE = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b|^\w*(Warning|Error|Exception)\b|\w+Warning: ")
"""A log line above INFO, a Python warning, or the last line of a traceback."""


class RankLogs(LogsSpecs):
    """Gives the processes of each attempt their files; rank 0 is heard in full, the others where something is wrong.

    Args:
        output_dir: of the run.
        outcomes: a folder of this launcher's own, see `engine.launch.outcome.OUTCOME_FILE`.
        attempt: the attempt that starts now.
    """

    def __init__(self, output_dir: Path, outcomes: Path, attempt: Callable[[], Attempt]) -> None:
        super().__init__(str(output_dir / LOGS))
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True)  # lines appear as they come, also in a pipe
        self._root, self._outcomes, self._attempt = output_dir / LOGS, outcomes, attempt
        self._tails: list[TailLog] = []
        self.folder = self._root
        """Of the attempt."""
        self.files: dict[int, Path] = {}
        """Standard error of each process of the attempt, by rank."""

    @property
    def root_log_dir(self) -> str:
        """See base class."""
        return str(self._root)

    def reify(self, envs: dict[int, dict[str, str]]) -> LogsDest:
        """See base class: name the files of an attempt, by local rank, and tell the processes theirs.

        Raises:
            UserError: the folder cannot be made.
        """
        self.close()
        attempt, ranks = self._attempt(), {local: int(env["RANK"]) for local, env in envs.items()}
        self.folder = folder = self._make(attempt, 0 in ranks.values())
        for left in self._outcomes.iterdir():
            left.unlink()  # of processes that were stopped for a change of nodes
        for local, rank in ranks.items():
            envs[local][ERROR_FILE] = str(folder / f"rank-{rank}.json")
            envs[local][OUTCOME_FILE] = str(self._outcomes / str(rank))
            envs[local]["TORCHELASTIC_RESTART_COUNT"] = str(attempt.number - 1)  # agents count for themselves, nodes may come later
        outs, errs = ({local: str(folder / f"rank-{rank}.{kind}") for local, rank in ranks.items()} for kind in ("out", "err"))
        self.files = {rank: Path(errs[local]) for local, rank in ranks.items()}
        for local, rank in ranks.items():
            if rank == 0 and sys.stderr.isatty():
                errs[local] = ""  # the terminal itself, for its progress bar; log.txt has the lines too
                self.files.pop(0)
        self._tail(ranks, outs, errs)
        return LogsDest(outs, errs, {}, {}, {local: envs[local][ERROR_FILE] for local in envs})

    def stopped(self) -> bool:
        """True where a process of the last attempt ended as it was asked to."""
        return any(self._outcomes.iterdir())

    def close(self) -> None:
        """Show what is left to show."""
        for tail in self._tails:
            tail.stop()
        self._tails = []

    def _make(self, attempt: Attempt, prune: bool) -> Path:
        folder = self._root / attempt.start / f"attempt-{attempt.number}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be made: {error.strerror}.") from error
        if prune:
            starts = [entry for entry in self._root.iterdir() if _START.fullmatch(entry.name)]  # others write here too
            for old in sorted(starts, reverse=True)[KEPT_STARTS:]:
                shutil.rmtree(old, ignore_errors=True)
        return folder

    def _tail(self, ranks: dict[int, int], outs: dict[int, str], errs: dict[int, str]) -> None:
        main = {local for local, rank in ranks.items() if rank == 0}
        for files, stream in ((outs, sys.stdout), (errs, sys.stderr)):
            heard = {local: file for local, file in files.items() if file and local in main}
            self._tails.append(TailLog("main", heard, stream, dict.fromkeys(heard, "")).start())
        others = {local: file for local, file in errs.items() if local not in main}
        prefixes = {local: f"[rank {ranks[local]}] " for local in others}
        self._tails.append(TailLog("others", others, sys.stderr, prefixes, log_line_filter=_is_trouble).start())


def _is_trouble(line: str) -> bool:
    return _TROUBLE.search(line) is not None
