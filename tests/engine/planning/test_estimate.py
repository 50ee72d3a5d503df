"""The arithmetic of a plan."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils.flop_counter import FlopCounterMode

from common.errors import UserError
from engine.blocks import recompute_blocks
from engine.cli import main
from engine.config.engine_settings import EngineSettings
from engine.config.loader import load_config
from engine.config.schema import PretrainConfig
from engine.config.vqa import VqaConfig
from engine.optimizer import build_optimizer, parameter_groups
from engine.planning import estimate
from engine.planning.cost import DAY, Speed, device_of
from engine.planning.estimate import Machine, Plan, make_plan, on_rung
from engine.planning.fake import FakeStep
from engine.planning.ladder import KEPT_FREE, memory_of
from engine.planning.shapes import TextLengths, share, step_shapes
from engine.planning.states import model_states
from engine.planning.text import plan_text
from engine.tasks import make_task
from small_run import ROOT, pretrain_settings, task_settings, write_config

GIB = 2**30
ENDS = (0.0, 1.0)
"""Of the ladder."""
SPEED = Speed(device_of("a100", None), mfu=0.5, gpus=2)


def config_of(steps: int = 10, **engine: Any) -> PretrainConfig:
    settings = pretrain_settings(Path("nowhere"), steps)
    return PretrainConfig.model_validate(settings | {"engine": settings["engine"] | engine})


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(config_of(precision="bf16"), Machine(SPEED, 2 * GIB), TextLengths(), shares=ENDS)


def test_weights_gradients_and_moments_are_exact() -> None:
    config = config_of()
    task = make_task(config)
    optimizer = build_optimizer(parameter_groups(task.named_parameters(), config.optimizer, frozenset()), config.optimizer)
    for parameter in task.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    states = model_states(FakeStep(config).task(), config.engine, world=1)
    tensors = [*task.parameters(), *task.buffers()]
    moments = [state[key] for state in optimizer.state.values() for key in ("exp_avg", "exp_avg_sq")]
    assert states["weights"] == sum(tensor.nbytes for tensor in tensors)
    assert states["gradients"] == sum(parameter.grad.nbytes for parameter in task.parameters() if parameter.grad is not None)
    assert states["AdamW moments"] == sum(tensor.nbytes for tensor in moments)


def test_memory_is_a_straight_line_in_the_batch(plan: Plan) -> None:
    step, longest = FakeStep(plan.config), step_shapes(plan.config, None)
    rung = plan.rungs[0].rung  # measured at two other sizes
    assert rung.peak(24) == pytest.approx(step.memory(share(longest, 24)).peak, rel=0.02)


def test_every_rung_takes_less_memory_and_more_operations_than_the_one_before(plan: Plan) -> None:
    assert [each.rung.share for each in plan.rungs] == list(ENDS)
    activations = [each.rung.per_text for each in plan.rungs]
    assert activations[0] > activations[-1]
    assert activations == sorted(activations, reverse=True)
    seconds = [each.seconds or 0.0 for each in plan.rungs]
    assert seconds == sorted(set(seconds))
    assert plan.best is plan.rungs[0]  # all fit, and what is not recomputed is fastest


def test_recomputed_operations_are_those_that_are_counted(plan: Plan) -> None:
    config, operations = config_of(), plan.operations
    shapes = step_shapes(config, TextLengths())
    batches = {name: shape.tensors(config.model.vision.image_size, "meta") for name, shape in shapes.items()}
    counts = []
    for recomputed in (False, True):
        torch.manual_seed(0)
        task = make_task(config).train()
        model = task.model
        recompute_blocks([model.vision.blocks(), model.text.blocks(), model.fusion.blocks()], recomputed)
        real = {name: {key: torch.zeros_like(value, device="cpu") for key, value in batch.items()} for name, batch in batches.items()}
        for batch in real.values():
            batch["text_mask"].fill_(True)
        with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            torch.stack(list(task(real).values())).sum().backward()
        counts.append(counter.get_total_flops())
    assert operations.step == pytest.approx(counts[0], rel=0.01)
    embedding = 2 * config.model.vision.patches * 3 * config.model.vision.stride**2 * config.model.vision.width
    outside = embedding * sum(shape.images for shape in shapes.values())  # of all blocks; one percent of a model of common size
    assert operations.recomputed(1.0) - outside == pytest.approx(counts[1] - counts[0], rel=0.01)


def test_the_largest_batch_fits_and_one_text_more_does_not(plan: Plan) -> None:
    available = plan.machine.available
    for each in plan.rungs:
        assert plan.memory.total(each.rung, each.largest) <= available < plan.memory.total(each.rung, each.largest + 1)


def test_a_batch_that_does_not_fit_is_cut_into_micro_batches_that_do(plan: Plan) -> None:
    settings = pretrain_settings(Path("nowhere"), 10)
    for stream in settings["streams"].values():
        stream |= {"batch_size": 64, "groups": None}
    settings["streams"]["regions"]["max_images"] = 64
    config, rung = PretrainConfig.model_validate(settings), plan.rungs[0].rung
    room = int(plan.memory.total(rung, 20) / (1 - KEPT_FREE)) + 1
    roomy, tight = (on_rung(config, Machine(SPEED, size), plan.memory, plan.operations, rung, 32, 128) for size in (4 * GIB, room))
    assert (roomy.largest > 32, roomy.accumulation) == (True, 1)
    assert (tight.largest, tight.accumulation) == (20, 2)  # 32 texts on each of two GPUs
    assert (tight.seconds or 0.0) > (roomy.seconds or 0.0)  # features are collected first


def test_shards_shrink_with_the_number_of_ranks() -> None:
    task = FakeStep(config_of()).task()
    for strategy, stage in (("fsdp", 2), ("deepspeed", 1), ("deepspeed", 2), ("deepspeed", 3)):
        settings = EngineSettings.model_validate({"strategy": strategy, "zero_stage": stage})
        sizes = [model_states(task, settings, world) for world in (1, 8)]
        assert sizes[1]["AdamW moments"] == pytest.approx(sizes[0]["AdamW moments"] / 8, rel=1e-3)
        assert (sizes[1]["weights"] < sizes[0]["weights"]) == (stage == 3 or strategy == "fsdp")
    settings = EngineSettings(streams="together")
    whole = [model_states(task, settings, world) for world in (1, 8)]
    assert whole[0] == whole[1]
    # gradients of the first stream wait outside of DDP's buckets for those of the second
    assert model_states(task, EngineSettings(), 8)["gradients"] == 2 * whole[1]["gradients"]


def test_gpu_days_are_steps_times_seconds_times_gpus() -> None:
    speed = Speed(device_of("anything", peak=1e12), mfu=0.25, gpus=4)
    assert speed.step_seconds(1e12) == 1.0
    assert speed.gpu_days(86_400, 1e12) == 4.0
    assert speed.gpu_days(1, 1e12) == pytest.approx(4.0 / DAY)


def test_contrast_grows_with_the_ranks_until_it_is_made_in_tiles() -> None:
    config = config_of()
    step = FakeStep(config)
    one, two, many = (memory_of(config, step, world) for world in (1, 2, 1_000_000))
    assert one.contrast(64) == 0 < two.contrast(64)
    assert many.contrast(4096) < 2 * memory_of(config, step, 10_000).contrast(4096) * 100


def test_a_model_that_does_not_fit_gets_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path / "config.yaml", pretrain_settings(Path("nowhere"), 10))
    assert main(["plan", "--config", str(config), "--memory", "1M"]) == 2
    said = capsys.readouterr().err
    assert "optimizer state and libraries alone need" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--memory", "80"], "--memory 80: is not a size"),
        (["--memory", "80G", "--device", "h10"], "Did you mean h100?"),
        (["--memory", "80G", "--mfu", "45"], "--mfu 45: must be a share"),
        (["--memory", "80G", "--gpus", "3"], "streams.images.groups = 2 cannot be split"),
        (["--memory", "80G", "--set", "schedule.steps=null", "schedule.epochs=2"], "add --records N"),
    ],
)
def test_mistakes_are_answered_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str) -> None:
    config = write_config(tmp_path / "config.yaml", pretrain_settings(Path("nowhere"), 10))
    assert main(["plan", "--config", str(config), *options]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_text_and_json_say_the_same(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path / "config.yaml", pretrain_settings(Path("nowhere"), 10))
    monkeypatch.setattr(estimate, "make_plan", lambda *_: replace(plan, records=40))
    out = tmp_path / "plan.json"
    assert main(["plan", "--config", str(config), "--memory", "2G", "--out", str(out)]) == 0
    said, numbers = capsys.readouterr().out, json.loads(out.read_text())
    assert f"{numbers['parameters']:,} parameters" in said
    assert numbers["epochs"] == 2.0
    assert "2.0 epochs of 40 records" in said
    assert [str(rung["largest_texts_per_gpu"]) in said for rung in numbers["ladder"]] == [True] * len(ENDS)
    assert "assumed, not measured" in said


def test_a_plan_says_when_the_batch_fits_on_no_rung(plan: Plan) -> None:
    none = [replace(each, largest=0, accumulation=None, bytes=None, seconds=None, texts_per_second=None) for each in plan.rungs]
    cramped = replace(plan, rungs=none)
    assert cramped.best is None
    assert "does not fit on any rung" in plan_text(cramped)


@pytest.mark.parametrize("name", ["x2vlm_base_4m", "x2vlm_large_4m", "xvlm_base_4m", "xvlm_base_16m"])
def test_published_recipes_are_planned_without_memory_for_the_model(name: str) -> None:
    config = load_config(ROOT / "configs" / "pretrain" / f"{name}.yaml").config
    before = _resident()
    task = FakeStep(config).task()
    assert all(isinstance(tensor, FakeTensor) for tensor in (*task.parameters(), *task.buffers()))
    parameters = sum(parameter.numel() for parameter in task.parameters())
    assert _resident() - before < 4 * parameters / 4  # bytes: a quarter of the weights would show
    expected = {"x2vlm_base": 254_758_401, "x2vlm_large": 592_949_057, "xvlm_base": 215_637_241}
    assert parameters == expected[name.rsplit("_", 1)[0]]


def _resident() -> int:
    """Bytes of this process in memory."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("no /proc")
    return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmRSS"))


def test_a_task_whose_batches_are_unknown_is_refused() -> None:
    settings = task_settings("vqa", Path("nowhere"), 10)
    with pytest.raises(UserError, match="There is no plan of the task vqa yet"):
        step_shapes(VqaConfig.model_validate(settings), None)
