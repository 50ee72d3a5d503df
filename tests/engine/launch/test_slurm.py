"""SLURM's environment, read without SLURM."""

import pytest

from common.errors import UserError
from engine.launch.slurm import expand_hosts, find_step

STEP = {
    "SLURM_JOB_ID": "1234567",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "node[09-11],gpu-a",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_GPUS_ON_NODE": "8",
}


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("node1", "node1"),
        ("node[001-003,007],gpu-a", "node001 node002 node003 node007 gpu-a"),
        ("n[9-11]", "n9 n10 n11"),
        ("a,b-[1,3],c", "a b-1 b-3 c"),
        ("rack[1-2]n[01-02].x", "rack1n01.x rack1n02.x rack2n01.x rack2n02.x"),
    ],
)
def test_node_lists_are_expanded_in_their_order(text: str, hosts: str) -> None:
    assert expand_hosts(text) == tuple(hosts.split())


@pytest.mark.parametrize("text", ["", "node[1-", "node]1", "node[a-b]", "node[]"])
def test_node_list_that_cannot_be_read_is_named(text: str) -> None:
    with pytest.raises(UserError, match="SLURM: the node list"):
        expand_hosts(text)


def test_one_task_a_node_meets_at_the_first_node() -> None:
    step = find_step(STEP)
    assert step is not None
    assert (step.nodes, step.gpus, step.process_per_rank) == (4, 8, False)
    assert step.endpoint.host == "node09"
    assert 10000 <= step.endpoint.port < 30000


def test_steps_of_one_job_and_other_jobs_have_other_ports() -> None:
    others = [STEP, STEP | {"SLURM_STEP_ID": "1"}, STEP | {"SLURM_JOB_ID": "1234568"}]
    assert len({step.port for environment in others if (step := find_step(environment))}) == 3


@pytest.mark.parametrize("number", [None, "4294967290", "4294967291"])
def test_shell_of_an_allocation_is_not_a_step(number: str | None) -> None:
    environment = {name: value for name, value in STEP.items() if name != "SLURM_STEP_ID"}
    assert find_step(environment | ({} if number is None else {"SLURM_STEP_ID": number})) is None


def test_task_a_gpu_is_told_its_rank() -> None:
    step = find_step(STEP | {"SLURM_STEP_NUM_TASKS": "32", "SLURM_PROCID": "21", "SLURM_LOCALID": "5"})
    assert step is not None
    assert step.process_per_rank
    expected = {"RANK": "21", "WORLD_SIZE": "32", "LOCAL_RANK": "5", "MASTER_ADDR": "node09", "MASTER_PORT": str(step.port)}
    assert step.rank_environment() == expected


def test_task_that_sees_one_gpu_takes_it() -> None:
    step = find_step(STEP | {"SLURM_STEP_NUM_TASKS": "32", "SLURM_LOCALID": "5", "CUDA_VISIBLE_DEVICES": "5"})
    assert step is not None
    assert step.rank_environment()["LOCAL_RANK"] == "0"


def test_what_is_missing_is_named() -> None:
    environment = {name: value for name, value in STEP.items() if name != "SLURM_PROCID"}
    with pytest.raises(UserError, match="SLURM_PROCID is not set"):
        find_step(environment)
    with pytest.raises(UserError, match="SLURM_JOB_ID=x is not a number"):
        find_step(STEP | {"SLURM_JOB_ID": "x"})
    with pytest.raises(UserError, match="2 tasks on 4 nodes"):
        find_step(STEP | {"SLURM_STEP_NUM_TASKS": "2"})
