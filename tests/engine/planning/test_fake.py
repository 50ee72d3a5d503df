"""What fake tensors say of memory is what real ones take."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from dataset.batches import MixedBatches
from engine.bench.synthetic import synthetic_streams
from engine.blocks import recompute_blocks
from engine.config.schema import PretrainConfig, RunConfig
from engine.planning.fake import FakeStep, LiveBytes, gpu_kernels
from engine.planning.shapes import StreamShape, TextLengths, step_shapes
from engine.tasks import make_task
from small_run import pretrain_settings

LENGTH = 12


def small_config(**engine: Any) -> PretrainConfig:
    """The small run, with two blocks in each encoder so that half of them can be recomputed."""
    settings = pretrain_settings(Path("nowhere"), 10)
    model = settings["model"]
    deep = {"vision": model["vision"] | {"depth": 2}, "text": model["text"] | {"layers": 2}, "fusion": {"layers": 2}}
    texts = settings["tokenizer"] | {"padding": "batch"}  # all texts of a plan are of one length
    return PretrainConfig.model_validate(settings | {"model": model | deep, "tokenizer": texts, "engine": settings["engine"] | engine})


def real_batches(config: RunConfig) -> dict[str, dict[str, Tensor]]:
    mixed = MixedBatches(synthetic_streams(config, LENGTH), seed=1)
    return {name: batch.tensors for name, batch in mixed[0].items()}


def normalised(batches: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """With images as the plan has them."""
    return {name: {**batch, "image": batch["image"].float() / 255} for name, batch in batches.items()}


def kept_by_a_real_step(config: RunConfig, recomputed: float, batches: Mapping[str, Mapping[str, Tensor]]) -> int:
    """Bytes of all storages that autograd saves, found by its own hooks."""
    task = make_task(config).train()
    model = task.model
    recompute_blocks([model.vision.blocks(), model.text.blocks(), model.fusion.blocks()], recomputed)
    given = [*task.parameters(), *task.buffers(), *(tensor for batch in batches.values() for tensor in batch.values())]
    known = {tensor.untyped_storage().data_ptr() for tensor in given}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = task(batches)
    assert torch.stack(list(losses.values())).isfinite().all()
    return sum(sizes.values())


def test_shapes_are_those_of_the_streams_own_batches() -> None:
    config = small_config()
    shapes = step_shapes(config, TextLengths(caption=LENGTH, region=LENGTH))
    for name, batch in real_batches(config).items():
        made = shapes[name].tensors(config.model.vision.image_size)
        assert {key: value.shape for key, value in made.items()} == {key: value.shape for key, value in batch.items()}
        assert {key: made[key].dtype for key in batch if key != "image"} == {key: batch[key].dtype for key in batch if key != "image"}


def test_kept_bytes_of_a_fake_step_are_those_that_autograd_saves_in_a_real_one() -> None:
    """With and without blocks that are computed again."""
    config = small_config(streams="together")
    shapes, batches = step_shapes(config, TextLengths(caption=LENGTH, region=LENGTH)), normalised(real_batches(config))
    step = FakeStep(config, on_gpu=False)
    fake, real = step.memory(shapes), kept_by_a_real_step(config, 0.0, batches)
    assert fake.kept == pytest.approx(real, rel=0.01)
    assert fake.peak > fake.kept
    saved_real, saved_fake = real - kept_by_a_real_step(config, 0.5, batches), fake.kept - step.memory(shapes, 0.5).kept
    assert 0.5 * saved_real < saved_fake <= saved_real  # hooks do not see what blocks hold as arguments: the fusion layers' keys


def test_streams_in_turn_keep_the_activations_of_one_at_a_time() -> None:
    shapes = step_shapes(small_config(), TextLengths(caption=LENGTH, region=LENGTH))
    together, in_turn = (FakeStep(small_config(streams=streams)).memory(shapes).kept for streams in ("together", "in_turn"))
    assert 0.4 * together < in_turn < 0.9 * together


def test_attention_on_a_gpu_keeps_its_output_and_one_number_a_row_whatever_the_dropout() -> None:
    query, key = (torch.zeros(2, 2, length, 4, requires_grad=True) for length in (5, 64))
    mask = torch.ones(2, 1, 1, 64, dtype=torch.bool)
    mode = FakeTensorMode()
    fakes = [mode.from_tensor(each) for each in (query, key, mask)]
    with mode, gpu_kernels(), LiveBytes() as live:
        out = F.scaled_dot_product_attention(fakes[0], fakes[1], fakes[1], attn_mask=fakes[2], dropout_p=0.5)
        kept = live.now
    assert out.shape == query.shape
    output, row_sums, bias, seeds = query.nbytes, 4 * 2 * 2 * 32, 4 * mask.numel(), 16
    assert kept <= output + row_sums + bias + seeds
    assert F.scaled_dot_product_attention is not None and F.dropout.__module__ == "torch.nn.functional"  # put back


def test_dropout_on_a_gpu_keeps_a_byte_an_element() -> None:
    mode = FakeTensorMode()
    given = mode.from_tensor(torch.zeros(100, requires_grad=True))
    with mode, gpu_kernels(), LiveBytes() as live:
        states = F.dropout(given, 0.5, True)
    assert live.now == states.nbytes + 100


def test_layer_norm_under_autocast_is_in_float32_as_on_a_gpu() -> None:
    norm = torch.nn.LayerNorm(4)
    with gpu_kernels(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert norm(torch.ones(2, 4, dtype=torch.bfloat16)).dtype == torch.float32


def test_a_batch_of_images_alone_needs_no_masks() -> None:
    shape = StreamShape(texts=4, images=4, tokens=8, masking=None, patches=None, boxes=False)
    assert {"text_ids_masked", "patch_mask", "target_box"}.isdisjoint(shape.tensors(32))
