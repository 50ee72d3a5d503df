"""What SLURM's environment says about the job step that this process belongs to; its own commands are not asked."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from common.errors import UserError
from engine.launch.network import Endpoint

_SPECIAL_STEPS = 0xFFFFFFF0
"""Step numbers from here on are SLURM's own: the batch script, the shell of an interactive allocation."""
_FIRST_PORT, _PORTS = 10000, 20000
"""Ports below those that systems hand out by themselves (from 32768 on)."""


@dataclass(frozen=True)
class Step:
    """One `srun`, seen by one of its tasks."""

    hosts: tuple[str, ...]
    tasks: int
    """Over all nodes."""
    task: int
    """This one's number."""
    task_of_node: int
    """This one's number among those of its node."""
    gpus: int
    """Of this node; 0 where SLURM does not say."""
    port: int
    """The same in all tasks of the step, another one in other steps."""
    one_visible_gpu: bool
    """True where SLURM shows each task its own GPU and no other."""

    @property
    def nodes(self) -> int:
        """How many there are."""
        return len(self.hosts)

    @property
    def endpoint(self) -> Endpoint:
        """Where the nodes meet: on the first of them."""
        return Endpoint(self.hosts[0], self.port)

    @property
    def process_per_rank(self) -> bool:
        """True where srun started more than one task a node."""
        return self.tasks > self.nodes

    def rank_environment(self) -> dict[str, str]:
        """What torch's process group reads."""
        return {
            "RANK": str(self.task),
            "WORLD_SIZE": str(self.tasks),
            "LOCAL_RANK": "0" if self.one_visible_gpu else str(self.task_of_node),
            "MASTER_ADDR": self.hosts[0],
            "MASTER_PORT": str(self.port),
        }


def find_step(environment: Mapping[str, str]) -> Step | None:
    """The step that this process is a task of; None outside SLURM and in the shell or the batch script of an allocation.

    Raises:
        UserError: the environment says too little or something that cannot be read.
    """
    number = environment.get("SLURM_STEP_ID", "")
    if not number.isdecimal() or int(number) >= _SPECIAL_STEPS:
        return None
    hosts = expand_hosts(_get(environment, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"))
    tasks = int(_get(environment, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"))
    if tasks < len(hosts):
        raise UserError(f"SLURM: {tasks} tasks on {len(hosts)} nodes leave nodes idle. Use srun with --ntasks-per-node=1.")
    job = int(_get(environment, "SLURM_JOB_ID"))
    return Step(
        hosts=hosts,
        tasks=tasks,
        task=int(_get(environment, "SLURM_PROCID")),
        task_of_node=int(_get(environment, "SLURM_LOCALID")),
        gpus=_count(environment.get("SLURM_GPUS_ON_NODE", "")),
        port=_FIRST_PORT + (job + 7919 * int(number)) % _PORTS,
        one_visible_gpu=len(environment.get("CUDA_VISIBLE_DEVICES", ",").split(",")) == 1,
    )


def expand_hosts(text: str) -> tuple[str, ...]:
    """Names in a node list, in its order: `node[001-003,007],gpu-a` -> node001, node002, node003, node007, gpu-a.

    Raises:
        UserError: the list cannot be read.
    """
    names = [name for part in re.findall(r"(?:[^,\[\]]|\[[^\[\]]*\])+", text) for name in _expand(part)]
    if not names or re.search(r"\[[^\[\]]*(?:$|\[)|^[^\[]*\]", text):
        raise UserError(f"SLURM: the node list {text!r} cannot be read. Give --nnodes, --nproc and --rdzv.")
    return tuple(names)


def _expand(part: str) -> list[str]:
    before, bracket, rest = part.partition("[")
    if not bracket:
        return [part]
    inside, _, after = rest.partition("]")
    numbers: list[str] = []
    for item in inside.split(","):
        first, dash, last = item.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UserError(f"SLURM: the node list {part!r} cannot be read. Give --nnodes, --nproc and --rdzv.")
        numbers += [f"{number:0{len(first)}d}" for number in range(int(first), int(last or first) + 1)]
    return [f"{before}{number}{name}" for number in numbers for name in (_expand(after) if after else [""])]


def _get(environment: Mapping[str, str], *names: str) -> str:
    for name in names:
        if value := environment.get(name):
            if name.endswith("NODELIST") or value.isdecimal():
                return value
            raise UserError(f"SLURM: {name}={value} is not a number. Give --nnodes, --nproc and --rdzv.")
    raise UserError(f"SLURM: {names[0]} is not set in this step. Give --nnodes, --nproc and --rdzv.")


def _count(text: str) -> int:
    """GPUs in `8`, `a100:8` or `a100:4,h100:2`."""
    return sum(int(part.rpartition(":")[2]) for part in text.split(",") if part.rpartition(":")[2].isdecimal())
