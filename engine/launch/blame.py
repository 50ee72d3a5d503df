"""Which process failed first, among many that fail because one did; and the line that says so."""

import json
import re
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from common.errors import UserError
from engine.launch.outcome import USER_ERROR

_LOST_PEER = re.compile(
    r"(RuntimeError|Dist\w+Error): .*(connection (was )?(closed|reset|refused)|broken pipe|socket closed|pair closure"
    r"|remote process exited|network error|failed to recv|recvBytes|sendBytes)",
    re.IGNORECASE | re.DOTALL,
)
"""As gloo, NCCL and torch's store put it; a data source that resets a connection raises other errors."""

PATIENCE = 25.0
"""Seconds after the first failure from which on a SIGKILL is the agent's own: it gives processes 30 to end by themselves."""


class Kind(IntEnum):
    """What a failure tells, the most telling first."""

    BAD_INPUT = 0
    OWN = 1
    LOST_PEER = 2
    """Another process ended first, this one noticed."""
    TERMINATED = 3
    """By its launcher, because of another one."""


@dataclass(frozen=True)
class Blame:
    """One process's end."""

    kind: Kind
    cause: str
    """One line."""
    code: int
    """Exit code that the launcher takes over."""
    at: float = 0.0
    """Seconds since the epoch, by its own node's clock."""
    rank: int | None = None
    node: str = ""
    log: str = ""
    traceback: str = ""

    def line(self) -> str:
        """What the user reads."""
        if self.kind == Kind.BAD_INPUT:
            return self.cause
        if self.rank is None:
            return f"{self.node}: {self.cause} (exit code {self.code})"
        where = f"exit code {self.code}" + (f"; full log: {self.log}" if self.log else "")
        if self.kind == Kind.LOST_PEER:
            return f"rank {self.rank} on {self.node} lost a peer, which ended first: {self.cause} ({where})"
        return f"rank {self.rank} on {self.node} failed first: {self.cause} ({where})"

    def encode(self) -> str:
        """For other nodes."""
        return json.dumps(asdict(self))

    @staticmethod
    def decode(text: str) -> "Blame":
        """The same on another node."""
        values = json.loads(text)
        return Blame(**values | {"kind": Kind(values["kind"])})


def first(blames: Iterable[Blame]) -> Blame:
    """The one that explains the others."""
    return min(blames, key=lambda blame: (blame.kind, blame.at, -1 if blame.rank is None else blame.rank))


def without_helped(blames: Sequence[Blame]) -> list[Blame]:
    """The same, where processes that the launcher had to kill, because they did not heed its SIGTERM, count as terminated by it."""
    begun = min(blame.at for blame in blames)
    killed = 128 + signal.SIGKILL
    return [replace(blame, kind=Kind.TERMINATED) if blame.code == killed and blame.at >= begun + PATIENCE else blame for blame in blames]


def blame_of(rank: int, failure: ProcessFailure, node: str, logs: Mapping[int, Path]) -> Blame:
    """Read what torch's agent noted about one process.

    Args:
        rank: global rank of the process.
        failure: how it ended.
        node: name of this node.
        logs: the file that holds each process's standard error, by global rank.
    """
    words, code = failure.error_file_data, failure.exitcode
    log, message = str(logs.get(rank, "")), _one_line(str(words.get("message", "")))
    if words.get(USER_ERROR):  # one line for the user; but for bad input another attempt may help
        kind = Kind.BAD_INPUT if code == UserError.exit_code else Kind.OWN
        return Blame(kind, str(words["message"]), code, failure.timestamp, rank, node, log)
    if code < 0:
        # the agent notes whole seconds, rounded down; an abort usually follows another process's end, so it is taken as later
        late = code == -signal.SIGABRT
        kind = Kind.TERMINATED if code == -signal.SIGTERM else Kind.OWN
        cause = f"killed by signal {-code} ({failure.signal_name()})" + (_MEMORY if code == -signal.SIGKILL else "")
        return Blame(kind, cause, 128 - code, failure.timestamp + late, rank, node, log)
    if "timestamp" not in words:
        return Blame(Kind.OWN, "left by itself", code, failure.timestamp + 1, rank, node, log)
    kind = Kind.LOST_PEER if _LOST_PEER.match(str(words["message"])) else Kind.OWN
    return Blame(kind, message, code, float(words["timestamp"]), rank, node, log, str(words.get("traceback") or ""))


_MEMORY = ", as the kernel does when memory runs out"


def _one_line(text: str) -> str:
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    line = line.partition(" This is typically caused by")[0]  # gloo's advice
    return line if len(line) <= 300 else f"{line[:300]}..."
