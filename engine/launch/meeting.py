"""Where the launchers of a run meet: torch's c10d rendezvous, and a few notes that they leave each other in its store."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from torch.distributed import DistError, Store, TCPStore  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.elastic.rendezvous import (
    RendezvousClosedError,
    RendezvousConnectionError,
    RendezvousHandler,
    RendezvousInfo,
    RendezvousStoreInfo,
    RendezvousTimeoutError,
)
from torch.distributed.elastic.rendezvous.c10d_rendezvous_backend import C10dRendezvousBackend
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import DynamicRendezvousHandler, RendezvousTimeout

from common.errors import UserError
from engine.launch.blame import Blame, Kind, first
from engine.launch.network import Endpoint, Route
from engine.launch.plan import Plan
from engine.launch.stopping import StopRequests

ANSWER = timedelta(seconds=60)
"""How long a note may take."""
NAME = "multigrain"
_LOOK_EVERY = 1.0
_SETTLE = 10.0
"""Seconds in which another node's account of a failure is waited for."""


class LaunchError(Exception):
    """The run cannot start or go on, for a reason outside this node's processes; the message is one line."""


class EndedElsewhere(LaunchError):
    """Another node ended the run."""

    def __init__(self, blame: Blame) -> None:
        super().__init__(blame.line())
        self.blame = blame


@dataclass(frozen=True)
class Attempt:
    """What all nodes know of the processes that are started now."""

    number: int
    """From 1; each restart, and each change of nodes, is one more."""
    start: str
    """When the run was started, as a folder name."""


class Meeting(RendezvousHandler):
    """The rendezvous of torch's agent.

    To the handler that torch has it adds: nodes that do not come are counted, all nodes agree on the number of the attempt, each attempt
    has a store of its own, so that it cannot read what an earlier one left there, and a node that ends the run tells the others why.

    Args:
        plan: nodes and patience.
        route: from this node to the place, where there are several.
        command: what is started; it must be the same on all nodes.
        stop: requests to stop are heard while waiting.

    Raises:
        LaunchError: the place does not answer in time.
        UserError: the nodes start different commands.
    """

    def __init__(self, plan: Plan, route: Route | None, command: str, stop: StopRequests) -> None:
        self._plan, self._stop = plan, stop
        self._address = route.address if route is not None else "localhost"  # a machine need not be able to look up its own name
        self._place = plan.rendezvous or Endpoint("localhost", 0)
        self.hosts = route is None or route.hosts
        self.several = plan.nodes[1] > 1
        self.node = socket.gethostname() + (f" ({self._address})" if self.several else "")
        stop.idle = True
        self._notes: Store = self._open()
        if (said := self._notes.compare_set("command", "", command).decode()) != command:
            raise UserError(f"{self._place}: this node starts `{command}`, the first one `{said}`. It must be the same command.")
        self._handler = DynamicRendezvousHandler.from_backend(
            NAME,
            self._notes,
            C10dRendezvousBackend(self._notes, NAME),
            *plan.nodes,
            local_addr=self._address,
            timeout=RendezvousTimeout(join=timedelta(seconds=plan.timeout)),
        )
        self._workers_store: Store | None = None
        self._looked = 0.0
        self.attempt = Attempt(0, "")
        self.present = 1
        """Nodes of the current attempt."""

    def get_backend(self) -> str:
        """See base class."""
        return self._handler.get_backend()

    @property
    def use_agent_store(self) -> bool:
        """See base class: the processes need not open one."""
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        """See base class.

        Raises:
            Stopped: there was a request to stop.
            LaunchError: nodes did not come, or left for good.
        """
        self._stop.idle = True
        self._stop.check()
        with self._needs_answer():
            came = f"came/{self._notes.add('attempts', 0) + 1}"
            self._notes.add(came, 1)
            try:
                info = self._agree(self._handler.next_rendezvous())
            except RendezvousTimeoutError as error:
                text = f"{self._notes.add(came, 0)} of {self._plan.nodes[0]} nodes came to {self._place} within {self._plan.timeout:g} s."
                raise LaunchError(text) from error
            except RendezvousClosedError as error:
                raise self._ended() or LaunchError(f"{self._place}: another node has ended the run.") from error
        self._stop.idle = False
        self._stop.check()
        return info

    def is_closed(self) -> bool:
        """See base class."""
        return self._handler.is_closed()

    def set_closed(self) -> None:
        """See base class."""
        self._handler.set_closed()

    def num_nodes_waiting(self) -> int:
        """See base class.

        Raises:
            LaunchError: the node where all meet is gone.
            EndedElsewhere: another node has ended the run.
        """
        with self._needs_answer():
            if self.several and self._plan.nodes[0] == self._plan.nodes[1] and time.monotonic() > self._looked + _LOOK_EVERY:
                self._looked = time.monotonic()
                if ended := self._ended():
                    raise ended
            return self._handler.num_nodes_waiting()

    def get_run_id(self) -> str:
        """See base class."""
        return self._handler.get_run_id()

    def shutdown(self) -> bool:
        """See base class."""
        return self._handler.shutdown()

    def settle(self, mine: Blame) -> Blame:
        """Tell the other nodes why this one ends, and find out whether one of them knows better. Waits some seconds at most.

        Returns:
            What explains the end of the run.
        """
        if not self.several:
            return mine
        try:
            self._notes.set(f"end/{self._notes.add('ends', 1)}", mine.encode())
            self._wait(lambda: first([mine, *self._ends()]).kind < Kind.LOST_PEER)
            told = first([mine, *self._ends()])
            self.leave()
            if self.hosts:  # the notes go with this process
                self._wait(lambda: self._notes.add("left", 0) >= self.present)
            return told
        except DistError:
            return mine  # the place is gone, and with it what others could have said

    def leave(self) -> None:
        """Tell the node that keeps the notes that this one has read them."""
        with suppress(DistError):
            self._notes.add("left", 1)

    @contextmanager
    def _needs_answer(self) -> Iterator[None]:
        try:
            yield
        except (RendezvousConnectionError, DistError) as error:
            raise LaunchError(f"lost {self._place}, where the nodes meet: that node ended, or the network did.") from error

    def _wait(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _SETTLE
        while not done() and time.monotonic() < deadline:
            time.sleep(0.1)

    def _ends(self) -> list[Blame]:
        return [Blame.decode(self._notes.get(f"end/{number + 1}").decode()) for number in range(self._notes.add("ends", 0))]

    def _ended(self) -> EndedElsewhere | None:
        ends = self._ends()
        return EndedElsewhere(first(ends)) if ends else None

    def _agree(self, info: RendezvousInfo) -> RendezvousInfo:
        """The first node of a round opens a store for its processes and says where; all learn which attempt this is."""
        if info.rank == 0:
            store = TCPStore(self._address, 0, is_master=True, wait_for_workers=False)
            start = self._notes.compare_set("start", "", datetime.now().strftime("%Y%m%d-%H%M%S")).decode()
            note = {"number": self._notes.add("attempts", 1), "start": start, "address": self._address, "port": store.port}
            self._workers_store = store
            info.store.set("attempt", json.dumps(note))
        told = json.loads(info.store.get("attempt"))
        self.attempt, self.present = Attempt(told["number"], told["start"]), info.world_size
        return RendezvousInfo(info.store, info.rank, info.world_size, RendezvousStoreInfo(told["address"], told["port"]))

    def _open(self) -> TCPStore:
        place, deadline = self._place, time.monotonic() + self._plan.timeout
        if self.hosts:
            try:
                return TCPStore(place.host, place.port, is_master=True, timeout=ANSWER, wait_for_workers=False, multi_tenant=True)
            except RuntimeError:
                self.hosts = False  # another launcher on this machine was faster
        while not _answers(place):  # in Python, so that signals are heard
            if time.monotonic() > deadline:
                raise LaunchError(
                    f"{place} does not answer within {self._plan.timeout:g} s: is the run started on {place.host}, and the port open?"
                )
            time.sleep(0.5)
        try:
            return TCPStore(place.host, place.port, is_master=False, timeout=ANSWER, wait_for_workers=False)
        except RuntimeError as error:
            raise LaunchError(f"{place} answers, but not as a place to meet: another program has the port.") from error


def _answers(place: Endpoint) -> bool:
    try:
        with socket.create_connection((place.host, place.port), timeout=5):
            return True
    except OSError:
        return False
