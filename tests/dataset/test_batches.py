"""Which samples make which batch, and the loader."""

import os

import pytest
import torch

from common.errors import UserError
from dataset.batches import MAX_TRIES, BatchPlan, Fault, MixedBatches
from dataset.config import AugmentationConfig, ImageTextStream, MaskingConfig, RegionTextStream
from dataset.loader import batch_loader
from dataset.streams.base import ROWS_PER_RECORD, TextSide
from dataset.streams.image_text import ImageTexts
from dataset.streams.region_text import RegionTexts
from fake_records import Records, image_records, region_records, small_tokenizer

PADDED = {"text_ids": 0, "text_mask": False, "text_ids_masked": 0, "masked_positions": 0, "mlm_labels": -100}


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> TextSide:
    return TextSide(small_tokenizer(tmp_path_factory.mktemp("tokenizer")), 24, MaskingConfig(max_masks=6))


def streams(text: TextSide, groups: int | None = 4, records: Records | None = None):
    image_config = ImageTextStream(shards="x", batch_size=8, groups=groups, augmentation=AugmentationConfig())
    region_config = RegionTextStream(shards="x", batch_size=16, max_images=8, groups=groups, equal_texts_match=False)
    return {
        "images": ImageTexts("images", records or image_records(11), image_config, text, 32),
        "regions": RegionTexts("regions", region_records(11), region_config, text, 32, 8),
    }


def global_step(text: TextSide, step: int, world: int, accumulation: int, groups: int | None = 4) -> dict[str, dict[str, torch.Tensor]]:
    """The rows of one optimizer step over all ranks and micro-batches, in order, paddings trimmed to a common width."""
    datasets = [MixedBatches(streams(text, groups), 3, rank, world, accumulation) for rank in range(world)]
    parts = [dataset[step * accumulation + micro] for micro in range(accumulation) for dataset in datasets]
    joined: dict[str, dict[str, torch.Tensor]] = {}
    for name in ("images", "regions"):
        tensors = [part[name].tensors for part in parts]
        keys = tensors[0].keys() - {"text_bins"}  # how texts are packed is a matter of each micro-batch
        joined[name] = {key: torch.cat([widened(key, part[key]) for part in tensors]) for key in keys}
        for key in ("group", "image_index"):  # they count within a micro-batch
            if key in joined[name]:
                share = (4 if key == "group" else 8) // len(parts)
                joined[name][key] = torch.cat([part[key] + number * share for number, part in enumerate(tensors)])
    return joined


def widened(key: str, tensor: torch.Tensor) -> torch.Tensor:
    if key not in PADDED:
        return tensor
    return torch.nn.functional.pad(tensor, (0, 24 - tensor.shape[1]), value=PADDED[key])


def same(first: dict[str, dict[str, torch.Tensor]], second: dict[str, dict[str, torch.Tensor]]) -> None:
    assert first.keys() == second.keys()
    for name, tensors in first.items():
        assert tensors.keys() == second[name].keys()
        for key, tensor in tensors.items():
            assert torch.equal(tensor, second[name][key]), f"{name}/{key}"


@pytest.mark.parametrize(("world", "accumulation"), [(2, 1), (1, 2), (2, 2), (4, 1)])
def test_ranks_and_accumulation_do_not_change_a_row(text, world, accumulation):
    for step in (0, 5):
        same(global_step(text, step, 1, 1), global_step(text, step, world, accumulation))


def test_without_fixed_groups_image_rows_still_do_not_depend_on_the_ranks(text):
    one, two = (global_step(text, 2, world, 1, groups=None)["images"] for world in (1, 2))
    for key in one.keys() - {"group"}:
        assert torch.equal(one[key], two[key]), key


def test_groups_draw_rows_from_their_own_images_only(text):
    batch = global_step(text, 1, 1, 1)["regions"]
    assert batch["group"].tolist() == sorted([0, 1, 2, 3] * 4)
    assert torch.equal(batch["image_index"] // 2, batch["group"])


def test_an_epoch_visits_every_record_once_and_epochs_differ(text):
    dataset = MixedBatches(streams(text), seed=0)
    drawn = torch.cat([dataset[step]["images"].tensors["sample_ids"] for step in range(11)]) // ROWS_PER_RECORD
    epochs = drawn.view(8, 11)
    assert all(sorted(epoch.tolist()) == list(range(11)) for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) > 4


def test_steps_and_seeds_and_streams_differ(text):
    first, other_seed = MixedBatches(streams(text), seed=0), MixedBatches(streams(text), seed=1)
    assert not torch.equal(first[0]["images"].tensors["image"], other_seed[0]["images"].tensors["image"])
    assert not torch.equal(first[0]["images"].tensors["image"], first[1]["images"].tensors["image"])


def test_any_number_of_workers_gives_the_same_batches(text):
    dataset = MixedBatches(streams(text), seed=5)
    alone = list(batch_loader(dataset, 2, 6, workers=0))
    helped = list(batch_loader(dataset, 2, 6, workers=2))
    assert len(alone) == len(helped) == 4
    for one, two in zip(alone, helped, strict=True):
        same({name: batch.tensors for name, batch in one.items()}, {name: batch.tensors for name, batch in two.items()})
    same({name: batch.tensors for name, batch in alone[0].items()}, {name: batch.tensors for name, batch in dataset[2].items()})


def test_a_bad_record_is_replaced_named_and_counted(text):
    records = image_records(11)
    records.records[4] = None
    dataset = MixedBatches(streams(text, records=records), seed=0)
    batches = [dataset[step]["images"] for step in range(11)]
    assert all(len(batch.tensors["sample_ids"]) == 8 for batch in batches)
    assert all((batch.tensors["sample_ids"] // ROWS_PER_RECORD != 4).all() for batch in batches)
    assert [fault for batch in batches for fault in batch.faults] == [Fault("annotation", "record 4 is damaged")] * 8
    assert sum(batch.seen for batch in batches) == 11 * 8 + 8
    again = MixedBatches(streams(text, records=records), seed=0)
    same({"images": batches[3].tensors}, {"images": again[3]["images"].tensors})


def test_a_source_of_bad_records_stops_with_their_reason(text):
    dataset = MixedBatches(streams(text, records=Records([None] * 5)), seed=0)
    with pytest.raises(UserError, match=f"{MAX_TRIES} records in a row cannot be used, the last because: record . is damaged"):
        dataset[0]


def test_a_workers_user_error_arrives_as_one_line(text):
    dataset = MixedBatches(streams(text, records=Records([None] * 5)), seed=0)
    with pytest.raises(UserError, match=r"^stream images: ") as caught:
        list(batch_loader(dataset, 0, 2, workers=1))
    assert "Traceback" not in str(caught.value)


class NotHere(Records):
    """Refuses to be read in the process that made it."""

    def __init__(self, records):
        super().__init__(records)
        self.maker = os.getpid()

    def __getitem__(self, index):
        if os.getpid() == self.maker:
            raise UserError("read in the main process")
        return super().__getitem__(index)


def test_loading_happens_in_the_workers(text):
    dataset = MixedBatches(streams(text, records=NotHere(image_records(11).records)), seed=0)
    assert len(list(batch_loader(dataset, 0, 2, workers=1))) == 2
    with pytest.raises(UserError, match="main process"):
        list(batch_loader(dataset, 0, 2, workers=0))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (
            {"batch_size": 32, "groups": 4, "world": 3, "accumulation": 1},
            r"groups = 4 cannot be split over 3 ranks x 1 .* Set groups to 3 or 6",
        ),
        (
            {"batch_size": 30, "groups": 4, "world": 2, "accumulation": 2},
            r"batch_size = 30 cannot be split into groups = 4. Set batch_size to 28 or 32",
        ),
        ({"batch_size": 30, "groups": None, "world": 2, "accumulation": 2}, r"batch_size = 30 .* 4 groups \(2 ranks x 2 .* 28 or 32"),
        ({"batch_size": 32, "groups": 4, "world": 2, "accumulation": 2, "images": 10}, r"max_images = 10 .* Set max_images to 8 or 12"),
        ({"batch_size": 1, "groups": None, "world": 2, "accumulation": 1}, r"Set batch_size to 2,"),
    ],
)
def test_impossible_batches_show_their_arithmetic_and_the_fix(plan, message):
    with pytest.raises(UserError, match=message):
        BatchPlan(name="streams.x", **plan)


def test_micro_batches_of_all_ranks_tile_the_step():
    plan = BatchPlan(batch_size=48, groups=12, world=3, accumulation=2, images=24)
    assert plan.images_per_group == 2
    tiles = [list(plan.groups_of(rank, micro)) for micro in range(2) for rank in range(3)]
    assert tiles == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]


def test_an_empty_stream_is_an_error(text):
    with pytest.raises(UserError, match="images has no records"):
        MixedBatches({"images": ImageTexts("images", Records([]), ImageTextStream(shards="x", batch_size=2), text, 32)}, seed=0)
