"""From records to samples and from samples to batches."""

import numpy as np
import pytest
import torch

from common.errors import BadRecord
from dataset.boxes import patch_mask
from dataset.config import AugmentationConfig, BoxAugmentationConfig, ImageTextStream, MaskingConfig, RegionTextStream
from dataset.records import Record
from dataset.streams.base import ROWS_PER_RECORD, TextSide
from dataset.streams.image_text import ImageTexts
from dataset.streams.region_text import RegionTexts
from dataset.transforms import decode_image, squash
from fake_records import Records, encoded, image_records, picture, region_annotation, region_records, small_tokenizer

SIZE, PATCH = 32, 8
PLAIN = AugmentationConfig(crop_scale=None, flip=0.0, rand_augment=False)
PLAIN_BOXES = BoxAugmentationConfig(crop=False, flip=0.0, rand_augment=False)


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> TextSide:
    return TextSide(small_tokenizer(tmp_path_factory.mktemp("tokenizer")), 24, MaskingConfig(max_masks=6))


def images(text, records=None, **settings) -> ImageTexts:
    config = ImageTextStream.model_validate({"shards": "unused", "batch_size": 4, "augmentation": PLAIN} | settings)
    return ImageTexts("images", records or image_records(6), config, text, SIZE)


def regions(text, records=None, **settings) -> RegionTexts:
    defaults = {"shards": "x", "batch_size": 8, "max_images": 4, "augmentation": PLAIN_BOXES, "equal_texts_match": False}
    config = RegionTextStream.model_validate(defaults | settings)
    return RegionTexts("regions", records or region_records(6), config, text, SIZE, PATCH)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_image_batch_has_the_documented_keys_shapes_and_types(text):
    stream = images(text)
    batch = stream.collate([[stream.sample(i, rng(i)) for i in (0, 1)], [stream.sample(i, rng(i)) for i in (2, 3)]], [rng(), rng()])
    rows, length = batch["text_ids"].shape
    assert rows == 4
    assert length % 4 == 0
    expected = {
        "image": (torch.uint8, (4, 3, SIZE, SIZE)),
        "text_ids": (torch.int64, (4, length)),
        "text_mask": (torch.bool, (4, length)),
        "text_bins": (torch.int64, None),
        "text_ids_masked": (torch.int64, (4, length)),
        "masked_positions": (torch.int64, None),
        "mlm_labels": (torch.int64, tuple(batch["masked_positions"].shape)),
        "sample_ids": (torch.int64, (4,)),
        "negative_draws": (torch.float32, (4, 2)),
        "group": (torch.int64, (4,)),
    }
    assert set(batch) == set(expected)
    for key, (dtype, shape) in expected.items():
        assert batch[key].dtype == dtype, key
        assert shape is None or tuple(batch[key].shape) == shape, key
    assert batch["group"].tolist() == [0, 0, 1, 1]
    assert batch["sample_ids"].tolist() == [i * ROWS_PER_RECORD for i in range(4)]
    assert (batch["negative_draws"] >= 0).all() and (batch["negative_draws"] < 1).all()


def test_labels_are_the_true_tokens_at_the_masked_positions_and_nothing_else_changes(text):
    stream = images(text)
    batch = stream.collate([[stream.sample(i, rng(i)) for i in range(4)]], [rng()])
    real = batch["mlm_labels"] != -100
    true = batch["text_ids"].gather(1, batch["masked_positions"])
    assert real.any(1).all()
    assert (true[real] == batch["mlm_labels"][real]).all()
    assert (batch["masked_positions"][~real] == 0).all()
    hidden = torch.zeros_like(batch["text_mask"]).scatter(1, batch["masked_positions"], real)
    hidden[:, 0] = False
    assert (batch["text_ids"] == batch["text_ids_masked"])[~hidden].all()
    assert not hidden[~batch["text_mask"]].any()


def test_without_augmentation_the_image_is_the_stored_one(text):
    stream = images(text)
    sample = stream.sample(2, rng())
    assert (sample.image == squash(decode_image(encoded(picture(2))), SIZE)).all()
    assert sample.rows[0].text in ("number 2 a", "number 2 b")


def test_all_captions_of_a_record_are_drawn(text):
    stream = images(text)
    assert {stream.sample(2, rng(seed)).rows[0].text for seed in range(20)} == {"number 2 a", "number 2 b"}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (Record("empty", encoded(picture(0)), {"caption": " ?! "}), "empty: the caption is empty"),
        (Record("none", encoded(picture(0)), {}), "none: there is no caption"),
        (Record("broken", b"xx", {"caption": "a"}), "broken: the image cannot be decoded"),
        (Record("missing", None, {"caption": "a"}), "missing: the record has no image"),
    ],
)
def test_unusable_image_records_are_named(text, record, reason):
    with pytest.raises(BadRecord, match=reason):
        images(text, Records([record])).sample(0, rng())


@pytest.mark.parametrize(
    "captions", ["on the left", ["a dog", "the right one"], {"en": "left of it", "left": "a dog"}, ["upright", {"en": "Left!"}]]
)
def test_a_side_named_by_any_caption_text_forbids_the_flip(text, captions):
    flip = AugmentationConfig(crop_scale=None, flip=1.0, rand_augment=False, careful_flip=True)
    stream = images(text, Records([Record("k", encoded(picture(0)), {"caption": captions})]), augmentation=flip)
    assert (stream.sample(0, rng()).image == squash(decode_image(encoded(picture(0))), SIZE)).all()


@pytest.mark.parametrize("captions", ["upright", {"left": "a dog", "right": "a cat"}])
def test_language_keys_and_parts_of_words_do_not_forbid_the_flip(text, captions):
    flip = AugmentationConfig(crop_scale=None, flip=1.0, rand_augment=False, careful_flip=True)
    stream = images(text, Records([Record("k", encoded(picture(0)), {"caption": captions})]), augmentation=flip)
    assert (stream.sample(0, rng()).image == squash(decode_image(encoded(picture(0))), SIZE)[:, ::-1]).all()


def test_a_side_named_by_another_region_forbids_the_flip_of_the_image(text):
    annotation = region_annotation(0, 2)
    annotation["elems"][1]["attributes"] = ["left"]
    flip = PLAIN_BOXES.model_copy(update={"flip": 1.0})
    plain = squash(decode_image(encoded(picture(0))), SIZE)
    careful = regions(text, Records([Record("k", encoded(picture(0)), annotation)]), augmentation=flip)
    assert (careful.sample(0, rng()).image == plain).all()
    careless = regions(text, careful.source, augmentation=flip.model_copy(update={"careful_flip": False}))
    assert (careless.sample(0, rng()).image == plain[:, ::-1]).all()


def test_region_batch_has_the_documented_keys_and_true_boxes(text):
    stream = regions(text)
    groups = [[stream.sample(i, rng(i)) for i in (0, 1)], [stream.sample(i, rng(i)) for i in (2, 3)]]
    batch = stream.collate(groups, [rng(0), rng(1)])
    assert batch["image"].shape == (4, 3, SIZE, SIZE)
    assert batch["patch_mask"].shape == (8, (SIZE // PATCH) ** 2)
    assert batch["patch_mask"].dtype == batch["is_image"].dtype == torch.bool
    assert batch["target_box"].dtype == torch.float32
    assert batch["group"].tolist() == [0] * 4 + [1] * 4
    assert set(batch["image_index"][:4].tolist()) <= {0, 1}
    assert set(batch["image_index"][4:].tolist()) <= {2, 3}
    for row in range(8):
        number = int(batch["sample_ids"][row]) % ROWS_PER_RECORD - 1
        assert int(batch["sample_ids"][row]) // ROWS_PER_RECORD == batch["image_index"][row]
        box = (8 * number / 64 * SIZE, 8 / 48 * SIZE, 8 / 64 * SIZE, 8 / 48 * SIZE)
        target = [(box[0] + box[2] / 2) / SIZE, (box[1] + box[3] / 2) / SIZE, box[2] / SIZE, box[3] / SIZE]
        assert batch["target_box"][row].tolist() == pytest.approx(target)
        assert (batch["patch_mask"][row].numpy() == patch_mask(box, SIZE, PATCH)).all()
        phrase = f"red box {number} of {int(batch['image_index'][row])}"
        assert batch["text_ids"][row][batch["text_mask"][row]].tolist() == text.tokenizer(phrase)["input_ids"]


def test_image_captions_are_rows_of_the_whole_image(text):
    stream = regions(text, image_caption=True, max_regions=3, batch_size=12)
    batch = stream.collate([[stream.sample(i, rng(i)) for i in range(4)]], [rng()])
    whole = batch["is_image"]
    assert whole.sum() == 4
    assert batch["patch_mask"][whole].all()
    assert (batch["target_box"][whole] == torch.tensor([0.5, 0.5, 1, 1])).all()
    assert (batch["sample_ids"][whole] % ROWS_PER_RECORD == 0).all()
    assert not (batch["sample_ids"][~whole] % ROWS_PER_RECORD == 0).any()
    assert batch["image_index"].bincount().tolist() == [3, 3, 3, 3]


def test_few_rows_are_repeated_with_their_ids_and_masks_of_their_own(text):
    stream = regions(text, region_records(4, elements=1), batch_size=64)
    batch = stream.collate([[stream.sample(i, rng(i)) for i in range(4)]], [rng()])
    assert len(batch["text_ids"]) == 64
    ids = batch["sample_ids"]
    assert len(ids.unique()) == 4
    for sample_id in ids.unique():
        same = ids == sample_id
        assert (batch["text_ids"][same] == batch["text_ids"][same][0]).all()
        assert len(batch["masked_positions"][same].unique(dim=0)) > 1
        assert len(batch["negative_draws"][same].unique(dim=0)) == same.sum()


def test_rows_with_the_same_text_share_an_id_unless_told_otherwise(text):
    records = Records([Record(str(i), encoded(picture(i)), {"elems": [{"bb": [1, 1, 9, 9], "caption": c}]}) for i, c in enumerate("aba")])
    for match, different in ((True, 2), (False, 3)):
        stream = regions(text, records, batch_size=3, max_images=3, equal_texts_match=match)
        ids = stream.collate([[stream.sample(i, rng(i)) for i in range(3)]], [rng()])["sample_ids"].tolist()
        assert len(set(ids)) == different
        assert (ids[0] == ids[2]) is match


def test_many_rows_are_a_subset_without_repeats_drawn_anew_each_time(text):
    stream = regions(text, batch_size=8)
    chosen = set()
    for seed in range(10):
        batch = stream.collate([[stream.sample(i, rng(i)) for i in range(4)]], [rng(seed)])
        ids = batch["sample_ids"].tolist()
        assert len(set(ids)) == len(ids) == 8
        chosen.add(tuple(ids))
    assert len(chosen) > 5


MANY = {"en": "a star", "de": "ein Kreis", "fr": "une croix"}


def test_images_speak_the_chosen_languages_alone(text):
    records = Records([Record("k", encoded(picture(0)), {"caption": MANY})])
    assert {images(text, records, languages=["de", "fr"]).sample(0, rng(seed)).rows[0].text for seed in range(30)} == {
        "ein kreis",
        "une croix",
    }
    with pytest.raises(BadRecord, match="k: there is no caption in zh"):
        images(text, records, languages=["zh"]).sample(0, rng())


def test_a_second_caption_is_of_another_language(text):
    records = Records([Record(str(number), encoded(picture(number)), {"caption": MANY}) for number in range(4)])
    stream = images(text, records, objectives={"itc": 1, "ttc": 1})
    samples = [stream.sample(number, rng(number)) for number in range(4)]
    assert all(len({row.text for row in sample.rows}) == 2 for sample in samples)
    batch = stream.collate([samples], [rng()])
    assert batch["text_ids_2"].shape == batch["text_mask_2"].shape
    assert batch["text_ids_2"][0][batch["text_mask_2"][0]].tolist() == text.tokenizer(samples[0].rows[1].text)["input_ids"]


def test_code_switched_regions_take_whole_attributes_of_either_language(text):
    element = {"bb": [8, 8, 8, 8], "caption": {"en": "square", "de": "Quadrat"}, "attributes": {"en": ["dark red"], "de": ["rot"]}}
    records = Records([Record("k", encoded(picture(0)), {"elems": [element]})])
    together = {"dark red square", "rot quadrat"}
    for switch, expected in ((False, together), (True, {*together, "rot square", "dark red quadrat"})):
        stream = regions(text, records, code_switch=switch)
        assert {stream.sample(0, rng(seed)).rows[0].text for seed in range(60)} == expected


def test_elements_without_a_caption_in_the_chosen_languages_are_left_out(text):
    elements = [{"bb": [8, 8, 8, 8], "caption": {"en": "one"}}, {"bb": [16, 8, 8, 8], "caption": {"de": "zwei", "en": "two"}}]
    records = Records([Record("k", encoded(picture(0)), {"elems": elements})])
    assert [row.text for row in regions(text, records, languages=["de"]).sample(0, rng()).rows] == ["zwei"]
    with pytest.raises(BadRecord, match="no element can be used"):
        regions(text, records, languages=["fr"]).sample(0, rng())


def test_crops_keep_only_boxes_that_are_visible_enough(text):
    stream = regions(text, augmentation=BoxAugmentationConfig(rand_augment=False))
    counts = set()
    for seed in range(60):
        sample = stream.sample(0, rng(seed))
        counts.add(len(sample.rows))
        for row in sample.rows:
            assert row.box is not None
            x, y, w, h = row.box
            assert min(x, y) >= 0 and w > 0 and h > 0
            assert x + w <= SIZE + 1e-6 and y + h <= SIZE + 1e-6
    assert min(counts) >= 1
    assert len(counts) > 1


def test_bad_elements_are_left_out_and_the_rest_is_used(text):
    annotation = region_annotation(0, 3)
    annotation["elems"][0]["bb"] = [60, 0, 30, 10]
    annotation["elems"][1]["caption"] = "  "
    annotation["elems"].append("not an element")
    sample = regions(text, Records([Record("k", encoded(picture(0)), annotation)])).sample(0, rng())
    assert [row.sample_id for row in sample.rows] == [1 + 2]


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ([{"bb": [60, 0, 30, 10], "caption": "a"}], r"scene: no element can be used \(box \[60, 0, 30, 10\] is empty or outside"),
        ([{"bb": [6, 0, 0, 10], "caption": "a"}], "is empty or outside the image of 64 x 48 pixels"),
        ([{"bb": [6, 0, 5, 10], "caption": ""}], "the caption of element 0 is empty"),
        ([{"bb": [6, 0, 5, 10], "caption": "..."}], "scene: "),
        ([], "it has no elems"),
        (None, "it has no elems"),
    ],
)
def test_region_records_without_a_usable_element_are_named(text, elements, reason):
    source = Records([Record("scene", encoded(picture(0)), {"elems": elements})])
    with pytest.raises(BadRecord, match=reason):
        regions(text, source).sample(0, rng())


def test_same_generator_gives_the_same_sample_under_full_augmentation(text):
    for stream in (images(text, augmentation=AugmentationConfig()), regions(text, augmentation=BoxAugmentationConfig())):
        first, again = stream.sample(1, rng(7)), stream.sample(1, rng(7))
        assert (first.image == again.image).all()
        assert first.rows == again.rows
