"""Noisy and clean data in turns, alike on all ranks."""

import pytest

from common.errors import UserError
from common.labels import NO_MATCHING
from dataset.batches import MixedBatches
from dataset.config import AugmentationConfig, ImageTextStream, MatchingSettings
from dataset.records import Record
from dataset.streams.base import TextSide
from dataset.streams.image_text import ImageTexts
from dataset.streams.mixture import Mixture, Turns
from fake_records import Records, encoded, picture, small_tokenizer

PLAIN = AugmentationConfig(crop_scale=None, flip=0.0, rand_augment=False)
STEPS = 40


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> TextSide:
    return TextSide(small_tokenizer(tmp_path_factory.mktemp("tokenizer")), 8, None)


def named(text, name: str, count: int) -> ImageTexts:
    records = Records([Record(f"{name}{i}", encoded(picture(i, 8, 8)), {"caption": "a"}) for i in range(count)])
    config = ImageTextStream.model_validate({"shards": "x", "batch_size": 4, "groups": 2, "augmentation": PLAIN})
    return ImageTexts("images", records, config, text, 8)


def mixed(text, rank=0, world=1, **settings) -> MixedBatches:
    streams = {"images": Mixture(named(text, "noisy", 50), named(text, "clean", 6), 0.3), "other": named(text, "other", 5)}
    return MixedBatches(streams, 5, rank, world, matching=MatchingSettings(**settings))


def test_a_step_takes_one_kind_on_all_ranks_and_each_source_goes_round(text):
    whole = [mixed(text)[step]["images"].keys for step in range(STEPS)]
    ranks = [mixed(text, rank, 2) for rank in (0, 1)]
    kinds = []
    for step, keys in enumerate(whole):
        assert sum((batches[step]["images"].keys for batches in ranks), ()) == keys
        kinds.append({key.rstrip("0123456789") for key in keys})
    assert all(len(kind) == 1 for kind in kinds)
    clean = [keys for keys, kind in zip(whole, kinds, strict=True) if kind == {"clean"}]
    assert 0.1 < len(clean) / STEPS < 0.6
    assert len({key for keys in clean[:3] for key in keys}) == 6  # an epoch of six records is a step and a half
    noisy = [key for keys, kind in zip(whole, kinds, strict=True) if kind == {"noisy"} for key in keys]
    assert len(set(noisy[:48])) == 48


def test_matching_is_left_out_of_all_streams_on_noisy_steps_and_after_a_step(text):
    batches = mixed(text, clean_stream="images", until_step=30)
    for step in range(STEPS):
        item = batches[step]
        clean = item["images"].keys[0].startswith("clean")
        assert all((NO_MATCHING in batch.tensors) == (not clean or step >= 30) for batch in item.values())
    assert NO_MATCHING not in mixed(text)[0]["other"].tensors


def test_turns_are_the_same_in_whatever_order_steps_are_asked_for():
    forward, backward = Turns(1, "a", 0.15), Turns(1, "a", 0.15)
    last = [(backward.clean(step), backward.turn(step)) for step in (9000, 5, 8000)]
    assert [(forward.clean(step), forward.turn(step)) for step in (5, 8000, 9000)] == [last[1], last[2], last[0]]
    assert sum(forward.clean(step) for step in range(9000)) / 9000 == pytest.approx(0.15, abs=0.02)


def test_an_empty_clean_source_is_refused(text):
    with pytest.raises(UserError, match=r"stream images\.clean has no records"):
        MixedBatches({"images": Mixture(named(text, "noisy", 4), named(text, "clean", 0), 0.5)}, 1)


def test_probabilities_of_nothing_and_everything():
    assert not any(Turns(1, "a", 0.0).clean(step) for step in range(20))
    assert all(Turns(1, "a", 1.0).clean(step) for step in range(20))
