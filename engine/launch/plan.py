"""What a start asks for: how many processes on how many nodes, and how patient to be. From flags, or from SLURM's environment."""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from common.errors import UserError
from engine.launch.entry import environment
from engine.launch.network import Endpoint, find_route, interface_settings, parse_endpoint
from engine.launch.slurm import Step, find_step

TIMEOUT, GRACE = 600.0, 600.0


@dataclass(frozen=True)
class Plan:
    """How a task is started on this node."""

    processes: int = 1
    """On this node."""
    nodes: tuple[int, int] = (1, 1)
    """Fewest and most that the run goes on with."""
    rendezvous: Endpoint | None = None
    """Where they meet; None on a single node."""
    restarts: int = 0
    timeout: float = TIMEOUT
    """Seconds to wait for the other nodes."""
    grace: float = GRACE
    """Seconds that the processes have to save and stop when they are asked to."""
    rank: Mapping[str, str] = field(default_factory=dict)
    """Where somebody else has started a process for every rank: the environment that tells this one which it is."""

    @property
    def alone(self) -> bool:
        """True where the task can run in this very process."""
        return bool(self.rank) or (self.nodes[1] == 1 and self.processes == 1 and self.restarts == 0)


def add_plan_options(parser: ArgumentParser) -> None:
    """The flags that `make_plan` reads. All of them default to None, so that what was given can be told from what was not."""
    parser.add_argument("--nproc", type=int, metavar="N", help="processes on this node (default: one a GPU)")
    parser.add_argument("--nnodes", metavar="N", help="nodes; start the same command on each. MIN:MAX goes on with fewer")
    parser.add_argument("--rdzv", metavar="HOST:PORT", help="where the nodes meet: one of them, and a free port there")
    parser.add_argument("--max-restarts", type=int, metavar="N", help="start failed processes again, this many times (default 0)")
    parser.add_argument("--rdzv-timeout", type=float, metavar="SECONDS", help=f"wait so long for the other nodes (default {TIMEOUT:g})")
    parser.add_argument("--grace", type=float, metavar="SECONDS", help=f"time to save in, when asked to stop (default {GRACE:g})")


def make_plan(options: Namespace, environment: Mapping[str, str] | None = None) -> Plan:
    """Combine the flags with the SLURM step that this process runs in, if any; explicit flags win.

    Args:
        options: `nnodes`, `nproc`, `rdzv`, `max_restarts`, `rdzv_timeout` and `grace`, None where not given.
        environment: None takes the process's own.

    Raises:
        UserError: for flags that do not go together, or ask for more than the machine has.
    """
    step = find_step(os.environ if environment is None else environment)
    nodes = None if options.nnodes is None else _parse_nodes(options.nnodes)
    rendezvous = None if options.rdzv is None else parse_endpoint(options.rdzv)
    for name in ("rdzv_timeout", "grace"):
        if getattr(options, name) is not None and not getattr(options, name) > 0:
            raise UserError(f"--{name.replace('_', '-')} {getattr(options, name):g}: must be more than 0 seconds.")
    if (options.max_restarts or 0) < 0:
        raise UserError(f"--max-restarts {options.max_restarts}: must not be negative.")
    if options.nproc is not None and options.nproc < 1:
        raise UserError(f"--nproc {options.nproc}: must be at least 1.")
    if step is not None and nodes is None and rendezvous is None:
        if step.process_per_rank:
            return _one_rank(step, options)
        nodes, rendezvous = (step.nodes, step.nodes), step.endpoint if step.nodes > 1 else None
    if nodes is None and rendezvous is not None:
        raise UserError(f"--rdzv {rendezvous}: is where several nodes meet; say how many with --nnodes.")
    nodes = nodes or (1, 1)
    if nodes[1] > 1 and rendezvous is None:
        raise UserError(f"--nnodes {options.nnodes}: needs --rdzv HOST:PORT, one of the nodes and a free port on it.")
    return Plan(
        processes=_processes(options.nproc, step, nodes[1] > 1),
        nodes=nodes,
        rendezvous=rendezvous if nodes[1] > 1 else None,
        restarts=options.max_restarts or 0,
        timeout=options.rdzv_timeout or TIMEOUT,
        grace=options.grace or GRACE,
    )


def _parse_nodes(text: str) -> tuple[int, int]:
    fewest, _, most = text.partition(":")
    if not fewest.isdecimal() or (":" in text and not most.isdecimal()):
        raise UserError(f"--nnodes {text}: must be a number of nodes, or MIN:MAX.")
    nodes = (int(fewest), int(most or fewest))
    if not 1 <= nodes[0] <= nodes[1]:
        raise UserError(f"--nnodes {text}: " + ("must be at least 1." if nodes[0] < 1 else "the smaller number comes first."))
    return nodes


def _one_rank(step: Step, options: Namespace) -> Plan:
    for name in ("nproc", "max_restarts"):
        if getattr(options, name):
            raise UserError(
                f"--{name.replace('_', '-')}: srun has started a process for every rank, and this one has nothing to start. "
                "Use srun with --ntasks-per-node=1, or --nnodes 1 to leave the other tasks alone."
            )
    interfaces: dict[str, str] = {}
    if step.nodes > 1:
        with suppress(UserError):  # where the way cannot be told, torch looks for it
            interfaces = interface_settings(find_route(step.endpoint))
    return Plan(rank={name: os.environ.get(name, value) for name, value in interfaces.items()} | step.rank_environment())


def _processes(given: int | None, step: Step | None, several_nodes: bool) -> int:
    # when a node is lost, torch's store warns with pages of stack frames; the launcher says it in a line
    with environment({"TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR")} if several_nodes else {}):
        import torch  # reads the variable now

    gpus = torch.cuda.device_count()
    if given is None:
        return gpus or (step.gpus if step is not None else 0) or 1
    if 0 < gpus < given:
        raise UserError(f"--nproc {given}: this machine has {gpus} GPU{'s' if gpus > 1 else ''}, and each process needs its own.")
    return given
