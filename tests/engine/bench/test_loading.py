"""The measure of loading: every layout beside the published pipeline."""

from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import UserError
from dataset.config import ImageTextStream, RegionTextStream
from dataset.masking import MaskVocabulary
from dataset.tokenizers import load_tokenizer
from engine.bench import loading
from engine.bench.loading_layouts import Records, first_records, write_json_lines, write_shrunk_shards
from engine.bench.photographs import photograph_records
from engine.bench.published_loading import PublishedImages, PublishedRegions, PublishedText
from engine.bench.report import BenchRequest, Comparison
from engine.config.loader import load_config
from fake_records import small_tokenizer

CONFIG = Path(__file__).parents[3] / "configs" / "quickstart" / "coco.yaml"
LAYOUTS = {
    "shards, shortest side 160",
    "shards, shortest side 192",
    "shards, shortest side 224",
    "shards, images as stored",
    "JSON lines, image files",
    "JSON lines, base64 images",
    loading.PUBLISHED,
}


@pytest.fixture(scope="module")
def records() -> Records:
    return Records(photograph_records(12, seed=1))


def request(*overrides: str, task: str | None = None, config: Path = CONFIG, **settings) -> BenchRequest:
    return BenchRequest(load_config(config, overrides, task).config, config, overrides, steps=2, warmup=0, **settings)


def test_report_has_every_layout_of_both_streams_beside_the_published_pipeline(monkeypatch):
    monkeypatch.setattr(loading, "RECORDS", 12)
    monkeypatch.setattr(loading, "BATCH", 4)
    key = "streams.images.augmentation.decode"
    configs = tuple(request(f"{key}={value}").config for value in ("exact", "fast"))
    report = loading.run(request(comparisons=[Comparison(key, ("exact", "fast"), configs)]))
    assert set(report.numbers["streams"]) == {"images", "regions"}
    for layouts in report.numbers["streams"].values():
        assert set(layouts) == LAYOUTS
        for found in layouts.values():
            assert found["images_per_second_per_core"] > 0
            assert found["bytes_per_image"] > 1000
        assert layouts[loading.PUBLISHED]["times_published"] == 1
        assert layouts["shards, shortest side 160"]["bytes_per_image"] < layouts["shards, images as stored"]["bytes_per_image"]
    compared = report.numbers["comparisons"]
    assert {found["layout"] for found in compared} == {layout for layout in LAYOUTS if layout.startswith("shards")}
    assert all(found["times_first"]["exact"] == [1, 1, 1] for found in compared)
    assert "times published" in report.text()


def published(tmp_path: Path, records: Records) -> tuple[list[Path], PublishedText]:
    layout = write_json_lines(records, tmp_path / "lines")
    tokenizer = small_tokenizer(tmp_path / "tokenizer")
    masking = ImageTextStream(shards="x", batch_size=1).masking
    return [Path(layout.settings["shards"])], PublishedText(tokenizer, MaskVocabulary.of(tokenizer), 40, masking)


def test_published_image_batches_are_normalised_floats_and_fully_padded_texts(tmp_path, records):
    files, text = published(tmp_path, records)
    batch = PublishedImages(files, ImageTextStream(shards="x", batch_size=6), text, 64).batch(6, np.random.default_rng(0))
    assert batch["image"].shape == (6, 3, 64, 64)
    assert batch["image"].dtype == torch.float32
    assert -2.5 < float(batch["image"].min()) < float(batch["image"].max()) < 2.8
    assert batch["text_ids"].shape == batch["text_mask"].shape == batch["text_ids_masked"].shape == (6, 40)
    assert batch["masked_positions"].shape == batch["mlm_labels"].shape == (6, 12)
    changed = batch["text_ids"] != batch["text_ids_masked"]
    hidden = torch.zeros_like(changed).scatter(1, batch["masked_positions"], batch["mlm_labels"] >= 0)
    assert bool(changed.any())
    assert not bool((changed & ~hidden).any())


def test_published_region_batches_have_exactly_the_wanted_rows(tmp_path, records):
    files, text = published(tmp_path, records)
    config = RegionTextStream(shards="x", batch_size=20, max_images=8)
    batch = PublishedRegions(files, config, text, 64, 16).batch(8, np.random.default_rng(0))
    assert batch["image"].shape == (8, 3, 64, 64)
    assert batch["text_ids"].shape == (20, 40)
    assert batch["patch_mask"].shape == (20, 16)
    assert bool(batch["patch_mask"].any(dim=1).all())
    assert bool(((batch["target_box"] > 0) & (batch["target_box"] <= 1)).all())
    assert int(batch["image_index"].max()) < 8


def test_shrunk_shards_scale_boxes_along_with_the_images(tmp_path, records):
    layout = write_shrunk_shards(first_records(records, 2), tmp_path, 120)
    source = loading.open_source([layout.settings["shards"]])
    for index in range(2):
        for before, after in zip(records[index].annotation["elems"], source[index].annotation["elems"], strict=True):
            assert after["bb"] == pytest.approx([value / 4 for value in before["bb"]], abs=0.01)


def test_a_task_without_pre_training_streams_is_refused():
    config = CONFIG.parent / "retrieval.yaml"
    with pytest.raises(UserError, match="--stages load measures pre-training streams"):
        loading.run(request(config=config))


def test_records_none_of_which_can_be_used_are_refused_with_the_reason():
    broken = Records([record.__class__(record.key, b"nothing", record.annotation) for record in photograph_records(1, 0)])
    with pytest.raises(UserError, match="none of its records can be used; for example: the image cannot be decoded"):
        first_records(broken, 3)


def test_real_data_is_read_from_the_config(tmp_path, monkeypatch, records):
    monkeypatch.setattr(loading, "RECORDS", 3)
    monkeypatch.setattr(loading, "BATCH", 2)
    layout = write_json_lines(records, tmp_path / "data")
    small_tokenizer(tmp_path / "tokenizer")
    load_tokenizer(tmp_path / "tokenizer")
    lines = layout.settings["shards"]
    overrides = [f"tokenizer.path={tmp_path / 'tokenizer'}", f"streams.images.shards={lines}", "streams.regions=null"]
    report = loading.run(request(*overrides, data="real"))
    assert set(report.numbers["streams"]["images"]) == LAYOUTS
