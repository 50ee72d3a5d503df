"""Several processes on this node, alone or together with other nodes: torch's elastic agent, and what is said when they fail."""

import logging
import os
import shlex
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from torch.distributed import DistError
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from engine.launch.blame import Blame, Kind, blame_of, first, without_helped
from engine.launch.entry import Start, environment
from engine.launch.logs import RankLogs
from engine.launch.meeting import EndedElsewhere, LaunchError, Meeting
from engine.launch.network import Route, find_route, interface_settings
from engine.launch.outcome import LAUNCHER, REQUEUE, say
from engine.launch.plan import Plan
from engine.launch.stopping import AGENTS, Stopped, StopRequests

_EXIT_BARRIER = 1800.0
"""Seconds that nodes which are done wait for one that is not: rank 0 may be writing results."""


class Failed(Exception):
    """A process failed, and there is no further attempt."""

    def __init__(self, blame: Blame) -> None:
        super().__init__(blame.line())
        self.blame = blame


class Agent(LocalElasticAgent):
    """torch's agent, which says what failed at every attempt, and makes no further one where that is pointless."""

    def __init__(self, spec: WorkerSpec, logs: RankLogs, meeting: Meeting, stop: StopRequests) -> None:
        super().__init__(spec, logs, exit_barrier_timeout=_EXIT_BARRIER)
        self._logs, self._meeting, self._stop = logs, meeting, stop
        self._failures = 0
        stop.pids = self._pids

    def _pids(self) -> list[int]:
        group = self.get_worker_group()
        return [worker.id for worker in group.workers if worker.id] if group.state == WorkerState.HEALTHY else []

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, int]:  # pyright: ignore[reportIncompatibleVariableOverride]
        started: dict[int, int] = super()._start_workers(worker_group)  # pyright: ignore[reportCallIssue, reportAssignmentType]
        if self._meeting.several:
            first_rank, last_rank = worker_group.workers[0].global_rank, worker_group.workers[-1].global_rank
            mine = f"rank {first_rank}" if first_rank == last_rank else f"ranks {first_rank} to {last_rank}"
            say(f"{self._meeting.node}: {mine} of {worker_group.workers[0].world_size}; logs in {self._logs.folder}")
        if self._stop.requested is not None:  # while they started
            for pid in started.values():
                os.kill(pid, self._stop.requested)
        return started

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:  # pyright: ignore[reportIncompatibleVariableOverride]
        result: RunResult = super()._monitor_workers(worker_group)  # pyright: ignore[reportCallIssue, reportAssignmentType]
        if result.state == WorkerState.FAILED:
            self._failed(result.failures)
        return result

    def _failed(self, failures: Mapping[int, ProcessFailure]) -> None:
        self._logs.close()
        self._failures += 1
        attempts = self.get_worker_group().spec.max_restarts + 1
        blames = [blame_of(rank, failure, self._meeting.node, self._logs.files) for rank, failure in failures.items()]
        blame = first(without_helped(blames))
        if self._stop.requested is not None or blame.kind == Kind.BAD_INPUT or self._failures >= attempts:
            raise Failed(blame)
        say(f"{blame.line()}. Attempt {self._failures} of {attempts}: starting again from the latest checkpoint.")


def spawn(script: Path, start: Start, plan: Plan) -> int:
    """Run an entry script in the processes of this node; one that fails ends them all, on all nodes.

    Returns:
        0, `REQUEUE` where the run stopped because it was asked to, or the exit code of the process that failed first (128 + n where
        signal n killed it).

    Raises:
        UserError: bad input, found before any process starts.
        KeyboardInterrupt: Ctrl-C; the processes have ended.
    """
    _check_before(start)
    _quiet_agent()
    route = None if plan.rendezvous is None else find_route(plan.rendezvous)
    with TemporaryDirectory(prefix="multigrain-") as outcomes, environment(_settings(plan, route)), StopRequests(plan.grace) as stop:
        meeting: Meeting | None = None
        closes = True
        try:
            meeting = Meeting(plan, route, shlex.join([start.task, *start.arguments()]), stop)
            logs = RankLogs(start.output_dir, Path(outcomes), lambda: meeting.attempt)
            return _run(script, start, plan, meeting, logs, stop)
        except Stopped:
            closes = plan.nodes[0] == plan.nodes[1]
            return REQUEUE
        except LaunchError as error:
            closes = False  # the others have noticed, or notice by themselves
            say(str(error))
            if isinstance(error, EndedElsewhere) and meeting is not None:
                meeting.leave()
                return error.blame.code
            return 1
        except DistError as error:
            closes = False
            say(f"lost contact with the other nodes: {str(error).splitlines()[0]}")
            return 1
        except SignalException as error:
            closes = plan.nodes[0] == plan.nodes[1]
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from error
            return 128 + int(error.sigval)
        finally:
            if meeting is not None and closes:
                meeting.shutdown()


def _run(script: Path, start: Start, plan: Plan, meeting: Meeting, logs: RankLogs, stop: StopRequests) -> int:
    spec = WorkerSpec(
        role="rank",
        local_world_size=plan.processes,
        rdzv_handler=meeting,
        entrypoint=sys.executable,
        args=("-u", str(script), *start.arguments()),
        max_restarts=plan.restarts,
    )
    try:
        result: RunResult | None = Agent(spec, logs, meeting, stop).run()  # pyright: ignore[reportAssignmentType]
    except Failed as error:
        asked = stop.requested is not None and error.blame.code == 128 + stop.requested  # before it could answer signals
        if asked or (logs.stopped() and error.blame.kind >= Kind.LOST_PEER):
            meeting.settle(Blame(Kind.OWN, "asked to stop", REQUEUE, node=meeting.node))  # others may still wait for this node to begin
            return REQUEUE
        blame = meeting.settle(error.blame)
        if blame.traceback and blame == error.blame and blame.rank != 0:
            say(blame.traceback.rstrip())  # rank 0's is already there
        say(blame.line())
        return blame.code
    except SignalException as error:
        if logs.stopped():
            return REQUEUE  # all was saved, only the other nodes were still waited for
        meeting.settle(Blame(Kind.OWN, f"ended by {error.sigval.name}", 128 + int(error.sigval), node=meeting.node))
        raise
    finally:
        logs.close()
    if result is not None and result.state != WorkerState.SUCCEEDED:
        say(f"{meeting.node}: a process hangs in the kernel and cannot be ended.")
        return 1
    return REQUEUE if logs.stopped() else 0


def _settings(plan: Plan, route: Route | None) -> dict[str, str]:
    """Environment of the agent and its processes, where the user has not set it otherwise."""
    settings = {"OMP_NUM_THREADS": str(max(_cpus() // plan.processes, 1))} | interface_settings(route)
    settings = {name: os.environ.get(name, value) for name, value in settings.items()}
    return settings | {
        LAUNCHER: str(os.getpid()),
        # what was ignored before stays ignored: under nohup a terminal that closes must not end the run
        "TORCHELASTIC_SIGNALS_TO_HANDLE": ",".join(number.name for number in AGENTS if signal.getsignal(number) is not signal.SIG_IGN),
        # `Meeting` opens a store for every attempt; torch's own is announced once, and a node that comes later would wait for it
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }


def _cpus() -> int:
    """Processors that this process may use: a share of a node has fewer than the node."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_before(start: Start) -> None:
    """Find bad input before several processes do."""
    from engine.config.loader import load_config
    from engine.provenance import refuse_other_run

    refuse_other_run(start.output_dir, load_config(start.config, start.overrides, start.task).config)


def _quiet_agent() -> None:
    """The agent's own log repeats what is said here, in many lines."""
    for name in list(logging.root.manager.loggerDict):  # each of them may have a level of its own
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
