"""Retrieval pairs and galleries."""

import numpy as np
import pytest
import torch

from common.errors import BadRecord, UserError
from dataset.batches import MixedBatches
from dataset.config import AugmentationConfig, RetrievalData
from dataset.tasks.galleries import GallerySource
from dataset.tasks.retrieval import RetrievalGallery, RetrievalTrain, batches_by_length
from dataset.tokenizers import token_lists
from dataset.transforms import decode_image, squash
from fake_records import encoded, picture, write_json

PLAIN = AugmentationConfig(crop_scale=None, flip=0.0, rand_augment=False)


def training(folder, text, records, **settings) -> RetrievalTrain:
    file = write_json(folder / "train.json", records)
    config = RetrievalData(train=file, validation="v", test="t", image_root=str(folder), batch_size=2, augmentation=PLAIN, **settings)
    return RetrievalTrain(config, text, 32)


def test_captions_of_one_image_share_their_id(folder, text):
    stream = training(folder, text, [{"image": f"{i % 2}.png", "caption": f"red {i}", "image_id": f"id{i % 2}"} for i in range(4)])
    batch = stream.collate([[stream.sample(i, np.random.default_rng(i)) for i in range(4)]], [np.random.default_rng(0)])
    assert set(batch) == {"image", "text_ids", "text_mask", "text_bins", "sample_ids", "negative_draws", "group"}
    assert batch["sample_ids"].tolist() == [0, 1, 0, 1]
    assert torch.equal(batch["image"][0], torch.from_numpy(squash(decode_image(encoded(picture(0))), 32).transpose(2, 0, 1).copy()))


def test_several_training_files_are_joined_by_image_id(folder, text):
    one = write_json(folder / "a.json", [{"image": "0.png", "caption": "a", "image_id": 7}])
    two = write_json(
        folder / "b.json", [{"image": "1.png", "caption": "b", "image_id": 8}, {"image": "0.png", "caption": "c", "image_id": 7}]
    )
    config = RetrievalData(train=[one, two], validation="v", test="t", image_root=str(folder), batch_size=2)
    assert RetrievalTrain(config, text, 32).image_numbers == [0, 1, 0]


def test_a_missing_image_is_replaced_and_named(folder, text):
    names = ["0.png", "gone.png", "1.png", "2.png"]
    stream = training(folder, text, [{"image": name, "caption": f"red {i}", "image_id": i} for i, name in enumerate(names)])
    with pytest.raises(BadRecord, match=r"train.json, record 1: the image .*gone.png cannot be read"):
        stream.sample(1, np.random.default_rng(0))
    batches = [MixedBatches({"pairs": stream}, seed=0)[step]["pairs"] for step in range(2)]
    assert sum(len(batch.faults) for batch in batches) == 1
    assert all((batch.tensors["sample_ids"] != 1).all() for batch in batches)


def test_gallery_knows_whose_caption_is_whose(folder):
    file = folder / "test.json"
    write_json(
        file,
        [
            {"image": "0.png", "caption": ["A red, ring.", "b"]},
            {"image": "1.png", "caption": "c"},
            {"image": "2.png", "caption": ["d e f"]},
        ],
    )
    gallery = RetrievalGallery(GallerySource(file, folder, max_words=2), 32)
    assert gallery.texts == ["a red", "b", "c", "d e"]
    assert gallery.text_image == [0, 0, 1, 2]
    assert gallery.image_texts == [[0, 1], [2], [3]]
    assert gallery.images.sources[2] == folder / "2.png"
    assert len(gallery.images) == 3
    assert gallery.images[1].shape == (3, 32, 32)
    assert gallery.images[1].dtype == torch.uint8


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"image": "0.png"}], "record 0: caption is missing"),
        ([{"image": "0.png", "caption": []}], "record 0: image 0.png has no caption"),
        ([{"image": "0.png", "caption": ["a"]}, {"image": "0.png", "caption": ["..."]}], "record 1: the caption is empty"),
        ([], "at least one record"),
        ({"image": 1}, "must hold a list"),
        (["x"], "record 0: not a JSON object"),
    ],
)
def test_malformed_files_name_file_and_record(folder, records, message):
    file = folder / "test.json"
    write_json(file, records)
    with pytest.raises(UserError, match=message) as caught:
        RetrievalGallery(GallerySource(file, folder), 32)
    assert "test.json" in str(caught.value)


def test_evaluation_stops_at_an_unreadable_image_and_a_missing_file(folder):
    file = folder / "test.json"
    write_json(file, [{"image": "gone.png", "caption": ["a"]}])
    with pytest.raises(UserError, match=r"gone.png"):
        RetrievalGallery(GallerySource(file, folder), 32).images[0]
    with pytest.raises(UserError, match=r"nowhere.json does not exist"):
        RetrievalGallery(GallerySource(folder / "nowhere.json", folder), 32)
    (folder / "broken.json").write_text("[{")
    with pytest.raises(UserError, match=r"broken.json cannot be read as JSON"):
        RetrievalGallery(GallerySource(folder / "broken.json", folder), 32)


def test_texts_come_from_the_shortest_to_the_longest_and_each_once(text):
    texts = ["red circle and blue ring", "red", "blue ring", "ring", "red circle"]
    batches = list(batches_by_length(text.tokenizer, texts, 40, 2))
    assert sorted(number for batch in batches for number in batch.numbers.tolist()) == [0, 1, 2, 3, 4]
    lengths = [length for batch in batches for length in batch.mask.sum(dim=1).tolist()]
    assert lengths == sorted(lengths)
    for batch in batches:
        for number, ids, mask in zip(*batch, strict=True):
            assert ids[mask].tolist() == token_lists(text.tokenizer, [texts[number]], 40)[0]
