"""What flags and SLURM's environment make together."""

from collections.abc import Mapping

import pytest
import torch

from common.errors import UserError
from engine.launch.entry import Parser
from engine.launch.network import Endpoint
from engine.launch.plan import Plan, add_plan_options, make_plan
from tests.engine.launch.test_slurm import STEP


def plan(*words: str, gpus: int = 0, slurm: Mapping[str, str] | None = None) -> Plan:
    parser = Parser(prog="run.py")
    add_plan_options(parser)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "device_count", lambda: gpus)
        return make_plan(parser.parse(list(words)), slurm or {})


def test_one_process_a_gpu_or_one_in_all() -> None:
    assert plan() == Plan()
    assert plan().alone
    assert plan(gpus=8).processes == 8
    assert plan("--nproc", "2", gpus=8).processes == 2
    assert not plan("--max-restarts", "1").alone  # somebody has to start it again


def test_several_nodes_meet_where_they_are_told_to() -> None:
    asked = plan("--nnodes", "2:4", "--nproc", "8", "--rdzv", "[fe80::1]:29500", "--rdzv-timeout", "60", "--grace", "5")
    assert asked == Plan(8, (2, 4), Endpoint("fe80::1", 29500), timeout=60, grace=5)
    assert not asked.alone
    assert str(asked.rendezvous) == "[fe80::1]:29500"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--nnodes 4", "--nnodes 4: needs --rdzv HOST:PORT"),
        ("--nnodes 2:1 --rdzv a:1", "the smaller number comes first"),
        ("--nnodes 0", "--nnodes 0: must be at least 1"),
        ("--nnodes two", "must be a number of nodes, or MIN:MAX"),
        ("--nnodes 1:", "must be a number of nodes, or MIN:MAX"),
        ("--rdzv a:1", "say how many with --nnodes"),
        ("--nnodes 2 --rdzv a", "must be HOST:PORT"),
        ("--nnodes 2 --rdzv a:http", "the port must be a number from 1 to 65535, not http"),
        ("--nnodes 2 --rdzv a:70000", "not 70000"),
        ("--nproc 0", "--nproc 0: must be at least 1"),
        ("--nproc 3", "--nproc 3: this machine has 2 GPUs"),
        ("--max-restarts -1", "--max-restarts -1: must not be negative"),
        ("--rdzv-timeout 0", "--rdzv-timeout 0: must be more than 0 seconds"),
        ("--grace -2", "--grace -2: must be more than 0 seconds"),
    ],
)
def test_flags_that_cannot_be_are_answered_with_what_is_wrong(words: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        plan(*words.split(), gpus=2)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_slurm_step_with_a_task_a_node_needs_no_flags() -> None:
    found = plan(slurm=STEP)
    assert (found.processes, found.nodes) == (8, (4, 4))
    assert found.rendezvous is not None
    assert found.rendezvous.host == "node09"


def test_explicit_flags_win_over_slurm() -> None:
    assert plan("--nproc", "2", slurm=STEP).processes == 2
    assert plan("--nnodes", "1", "--nproc", "1", slurm=STEP) == Plan()
    assert plan("--nnodes", "2", "--rdzv", "other:1", slurm=STEP).rendezvous == Endpoint("other", 1)


def test_slurm_step_of_one_task_starts_a_process_a_gpu() -> None:
    found = plan(slurm=STEP | {"SLURM_STEP_NODELIST": "gpu-a", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"})
    assert (found.processes, found.nodes, found.rendezvous) == (8, (1, 1), None)


def test_slurm_task_a_gpu_runs_in_its_own_process() -> None:
    ranks = STEP | {"SLURM_STEP_NUM_TASKS": "32", "SLURM_PROCID": "21", "SLURM_LOCALID": "5"}
    found = plan(slurm=ranks)
    assert found.alone
    assert (found.rank["RANK"], found.rank["WORLD_SIZE"], found.rank["LOCAL_RANK"]) == ("21", "32", "5")
    with pytest.raises(UserError, match="--nproc: srun has started a process for every rank"):
        plan("--nproc", "8", slurm=ranks)
