"""Several optimizer updates in one step: each group of streams with its own, in order."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from common.errors import UserError
from dataset.batches import MixedBatches, StreamBatch
from dataset.shapeworld_corpus import write_corpus
from engine.bench.batches import Fill
from engine.bench.synthetic import synthetic_streams
from engine.config.engine_settings import EngineSettings
from engine.config.loader import load_config
from engine.config.schema import RunConfig
from engine.faults import FaultCounter
from engine.meters import Clock
from engine.planning.shapes import step_shapes
from engine.step import Stepper
from engine.strategies.replicated import Replicated
from engine.tasks import make_task
from models.tasks.pretrain import Pretraining
from small_run import curve, forget_after, pretrain_settings, run, saved, write_config
from task_batches import ALL, pair_batch, pretraining, split

TEXT_KEYS = ("text_ids", "text_mask", "text_ids_masked", "masked_positions", "mlm_labels")
STREAMS = {"images": ALL, "regions": {**ALL, "box": 1.0}, "texts": {"text_mlm": 1.0}}
UPDATES = [["texts"], ["regions"], ["images"]]


def batches(rows: int = 8) -> dict[str, dict[str, Tensor]]:
    texts = {key: tensor for key, tensor in pair_batch(rows, 3).items() if key in TEXT_KEYS}
    return {"images": pair_batch(rows, 1), "regions": pair_batch(rows, 2, regions=True), "texts": texts}


def steps(
    task: Pretraining, whole: list[Mapping[str, Mapping[str, Tensor]]], updates: list[list[str]] | None, accumulation: int = 1
) -> list[dict[str, float]]:
    """Numbers of steps over these batches; Adam keeps what a parameter has no gradient for as it is."""
    strategy = Replicated(EngineSettings(updates=updates), clip_norm=1.0, timeout=None)
    strategy.prepare(task, torch.optim.AdamW(task.parameters(), lr=0.01, weight_decay=0.1, fused=True))
    stepper = Stepper(strategy, accumulation)
    loaded = iter(
        {name: StreamBatch(part, name, 8) for name, part in micro.items()} for batch in whole for micro in split(batch, accumulation)
    )
    numbers = []
    for number, _ in enumerate(whole):
        torch.manual_seed(number)
        numbers.append({name: float(value) for name, value in stepper.step(loaded, Clock(), FaultCounter(Path("unused"), 1.0)).items()})
    return numbers


def test_updates_are_the_steps_of_each_group_one_after_the_other() -> None:
    task, alone, whole = pretraining(STREAMS), pretraining(STREAMS), batches()
    found = steps(task, [whole], UPDATES)[0]
    expected = steps(alone, [{name: whole[name]} for (name,) in UPDATES], None)  # three steps of one optimizer
    for (name,), numbers in zip(UPDATES, expected, strict=True):
        assert found[f"gradient_norm/{name}"] == pytest.approx(numbers["gradient_norm"], rel=1e-6)
        losses = {key: value for key, value in numbers.items() if "/" in key}
        assert {key: found[key] for key in losses} == pytest.approx(losses, rel=1e-6)
    assert found["loss"] == pytest.approx(sum(numbers["loss"] for numbers in expected), rel=1e-6)
    assert found["gradient_norm"] == max(numbers["gradient_norm"] for numbers in expected)
    for (name, value), other in zip(task.named_parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(value, other, msg=lambda text: f"{name}: {text}")  # noqa: B023


def test_accumulated_updates_contrast_under_the_weights_that_the_update_before_left() -> None:
    whole, (task, one) = batches(), (pretraining(STREAMS), pretraining(STREAMS))
    found, expected = steps(task, [whole], UPDATES, accumulation=4)[0], steps(one, [whole], UPDATES)[0]
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_text_update_moves_the_text_encoder_and_its_head_alone() -> None:
    task = pretraining(STREAMS)
    before = {name: value.detach().clone() for name, value in task.model.named_parameters()}
    steps(task, [batches()], [["texts"]])
    moved = {name.split(".")[0] for name, value in task.model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {"text", "text_mlm_head"}


def test_an_update_that_is_not_finite_is_left_out_by_itself() -> None:
    task, whole = pretraining(STREAMS), batches()
    before = {name: value.detach().clone() for name, value in task.model.named_parameters()}
    broken = dict(whole["images"])
    broken["image"] = torch.full(broken["image"].shape, float("nan"))
    numbers = steps(task, [whole | {"images": broken}], [["texts"], ["images"]])[0]
    assert not torch.tensor(numbers["gradient_norm"]).isfinite()
    assert torch.tensor(numbers["gradient_norm/texts"]).isfinite()
    moved = {name.split(".")[0] for name, value in task.model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {"text", "text_mlm_head"}


@pytest.fixture(scope="module")
def config_file(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """X-FM in small: all four kinds of streams, three updates, dropout and stochastic depth on."""
    folder = tmp_path_factory.mktemp("updates")
    write_corpus(folder, seed=3, count=24, size=32)
    settings = pretrain_settings(small_data, 4)
    settings["model"] = settings["model"] | {"tied_mlm": False}
    settings["stop_gradient"] = True
    unpaired = folder / "unpaired"
    streams = settings["streams"]
    streams["images"] |= {"objectives": {"itc": 1, "itm": 1, "mlm": 1, "mim": 1}, "patch_masking": {"patches": 6, "min_block": 2}}
    streams["photographs"] = {"kind": "image", "shards": str(unpaired / "images-*.tar"), "batch_size": 4, "groups": 2}
    streams["photographs"]["patch_masking"] = {"patches": 6, "min_block": 2}
    streams["texts"] = {"kind": "text", "shards": str(unpaired / "texts.txt"), "batch_size": 4, "groups": 2, "max_tokens": 32}
    settings["engine"] |= {"updates": [["texts"], ["regions", "photographs"], ["images"]], "checkpoint_every": 2}
    return write_config(folder / "config.yaml", settings)


def loaded(file: Path, *changes: str) -> RunConfig:
    return load_config(file, changes).config


def test_switches_and_streams_become_the_task(config_file: Path) -> None:
    task = make_task(loaded(config_file))
    assert isinstance(task, Pretraining)
    assert {name: set(stream.objectives) for name, stream in task.streams.items()} == {
        "images": {"itc", "itm", "mlm", "mim"},
        "regions": {"itc", "itm", "mlm", "box"},
        "photographs": {"mim"},
        "texts": {"text_mlm"},
    }
    assert task.streams["regions"].variants.stop_text_gradient == {"itm", "mlm", "box"}
    off = make_task(loaded(config_file, "stop_gradient=false", "vl_guided_mim=false"))
    assert isinstance(off, Pretraining)
    assert "photographs" not in off.streams
    assert "mim" not in off.streams["images"].objectives
    assert off.streams["regions"].variants.stop_text_gradient == frozenset()
    tokenizer = "model.visual_tokenizer={width: 16, depth: 1, heads: 2, codes: 6, code_width: 4}"
    codes = make_task(loaded(config_file, "vl_guided_mim=false", tokenizer))
    assert isinstance(codes, Pretraining)
    assert codes.model.visual_tokenizer is not None
    assert codes.streams["photographs"].objectives == {"mim": 1.0}


def test_synthetic_batches_and_planned_ones_are_those_of_the_streams(config_file: Path) -> None:
    config = loaded(config_file)
    task, side = make_task(config), config.model.vision.image_size
    synthetic = MixedBatches(synthetic_streams(config), seed=1)[0]
    losses = task({name: batch.tensors for name, batch in synthetic.items()})
    assert set(losses) == set(task.weights)
    fill = Fill()
    fill.add(synthetic["photographs"].tensors)
    assert (fill.rows, fill.images, fill.numbers()) == (4, 4, {})
    for name, shape in step_shapes(config, None).items():
        planned = {key: tensor.shape for key, tensor in shape.tensors(side, "meta").items() if key.startswith(("image", "patch"))}
        assert planned == {key: tensor.shape for key, tensor in synthetic[name].tensors.items() if key.startswith(("image", "patch"))}
    assert step_shapes(config, None)["texts"].tensors(side, "meta")["text_ids"].shape == synthetic["texts"].tensors["text_ids"].shape


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("engine.updates=[[texts], [images]]", "engine.updates names stream (regions|photographs) 0 times"),
        ("engine.updates=[[texts, texts], [regions, photographs], [images]]", "names stream texts 2 times"),
        ("engine.updates=[[words], [texts], [regions, photographs], [images]]", "names words, which is no stream"),
        ("engine.strategy=deepspeed", "engine.updates needs engine.strategy ddp or fsdp"),
        ("streams.images.patch_masking.patches=75", "patches is 75, but an image has 16 patches"),
        ("streams.texts.max_tokens=64", "streams.texts.max_tokens is 64, but model.text.max_positions: 48 has room for texts of 48"),
        ("streams.texts.objectives={mlm: 1}", "mlm is not an objective of this stream; it has text_mlm"),
        ("model.visual_tokenizer={width: 16, heads: 2}", "vl_guided_mim is true, but model.visual_tokenizer is set"),
    ],
)
def test_settings_that_contradict_each_other_are_named(config_file: Path, change: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        loaded(config_file, change)


def test_a_text_encoder_that_nothing_teaches_is_refused(config_file: Path) -> None:
    changes = ("engine.updates=null", "streams.texts=null", "streams.photographs=null", "streams.regions=null")
    with pytest.raises(UserError, match="stop_gradient leaves the text encoder without any gradient"):
        loaded(config_file, *changes, "streams.images.objectives={itc: 0, itm: 1, mlm: 1, mim: 0}")


@pytest.mark.slow
def test_an_interrupted_run_of_several_updates_goes_on_bit_for_bit(config_file: Path, tmp_path: Path) -> None:
    done = run("pretrain", config_file, tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    forget_after(tmp_path / "parts", 2)
    (tmp_path / "parts" / "metrics.jsonl").unlink()
    assert run("pretrain", config_file, tmp_path / "parts").returncode == 0
    whole, parts = (curve(tmp_path / name) for name in ("whole", "parts"))
    assert set(parts) == {3, 4}
    assert all(parts[step] == whole[step] for step in parts)
    assert {"texts/text_mlm", "photographs/mim", "images/mim", "regions/box_l1", "gradient_norm/regions+photographs"} <= set(whole[4])
    expected, found = (saved(tmp_path / name, 4, "model") for name in ("whole", "parts"))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_take_the_updates_of_one(config_file: Path, tmp_path: Path, strategy: str) -> None:
    still = ["model.text.dropout=0", "model.vision.drop_path=0", "optimizer.lr=1e-4"]
    assert run("pretrain", config_file, tmp_path / "alone", "--set", *still).returncode == 0
    done = run("pretrain", config_file, tmp_path / "two", "--nproc", "2", "--set", *still, f"engine.strategy={strategy}")
    assert done.returncode == 0, done.stderr
    for step, numbers in curve(tmp_path / "alone").items():
        assert curve(tmp_path / "two")[step] == pytest.approx(numbers, rel=2e-5 if step == 1 else 1e-3, abs=1e-5), step
