"""Captions as what comes next after what, and images to be described in every layout."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from common.errors import UserError
from dataset.config import MaskingConfig
from dataset.masking import MaskVocabulary
from dataset.tasks.captioning import causal_tokens, masked_positions, masked_tokens
from dataset.tasks.captioning_files import read_described
from models.captioning import visible
from recorded import GOLDEN

CLS, SEP, MASK = 101, 102, 103
PROMPT = [CLS, 5, 6, 7]
CAPTION = [*PROMPT, 20, 21, 22, SEP]  # "two dogs run"


def test_causal_captions_learn_all_but_the_prompt() -> None:
    tokens = causal_tokens(CAPTION, len(PROMPT))
    assert tokens.labels == [20, 21, 22, SEP]
    assert tokens.positions == [3, 4, 5, 6]
    assert tokens.ids == CAPTION


def test_a_mask_is_put_in_before_each_chosen_token_and_has_its_place() -> None:
    tokens = masked_tokens(CAPTION, [5, 7], MASK, inserted=True)
    assert tokens.ids == [*PROMPT, 20, MASK, 21, 22, MASK, SEP]
    assert tokens.places == [0, 1, 2, 3, 4, 5, 5, 6, 7, 7]
    assert tokens.positions == [5, 8]
    assert tokens.labels == [21, SEP]
    instead = masked_tokens(CAPTION, [5, 7], MASK, inserted=False)
    assert instead.ids == [*PROMPT, 20, MASK, 22, MASK]
    assert not any(instead.inserted)


def test_chosen_tokens_are_never_of_the_prompt() -> None:
    vocabulary, masking = MaskVocabulary(200, MASK, frozenset()), MaskingConfig(probability=0.6, max_masks=18)
    found = {place for seed in range(40) for place in masked_positions(CAPTION, 4, vocabulary, masking, np.random.default_rng(seed))}
    assert found == {4, 5, 6, 7}


@pytest.mark.skipif(not (GOLDEN / "x2vlm_captioning").is_dir(), reason="the recording is not here")
def test_what_may_be_seen_is_as_recorded() -> None:
    inputs = load_file(GOLDEN / "x2vlm_captioning/inputs.safetensors")
    places, recorded = inputs["fg_free/position_ids"], inputs["fg_free/attention_mask"].bool()
    inserted = torch.zeros_like(places, dtype=torch.bool)
    inserted[:, :-1] = places[:, 1:] == places[:, :-1]
    for row, mask in zip(inserted, recorded, strict=True):
        assert torch.equal(visible(row[None])[0], mask)


def test_images_are_read_from_every_layout(tmp_path: Path) -> None:
    karpathy = tmp_path / "coco_test.json"
    records = [{"image": "val2014/COCO_val2014_000000391895.jpg", "caption": ["a man", "a person"]}, {"image": "x.jpg", "image_id": 7}]
    karpathy.write_text(json.dumps(records))
    found = read_described(karpathy)
    assert [one.image_id for one in found] == [391895, 7]
    assert found[0].captions == ("a man", "a person")
    nocaps = tmp_path / "nocaps.json"
    images = [{"id": 1, "file_name": "a.jpg", "domain": "in-domain"}, {"id": 2, "file_name": "b.jpg", "domain": "out-domain"}]
    annotations = [{"image_id": 2, "caption": caption} for caption in ("a bee", "bees")]
    nocaps.write_text(json.dumps({"images": images, "annotations": annotations}))
    found = read_described(nocaps)
    assert [(one.image_id, one.domain, one.captions) for one in found] == [(1, "in-domain", ()), (2, "out-domain", ("a bee", "bees"))]
    own = tmp_path / "own"
    own.mkdir()
    (own / "dog.jpg").touch()
    (own / "notes.txt").touch()
    assert [one.image_id for one in read_described(own)] == ["dog.jpg"]


def test_bad_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="a folder without images"):
        read_described(tmp_path / "empty")
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps({"images": [{"id": 1}]}))
    with pytest.raises(UserError, match=r"bad\.json: not COCO's layout"):
        read_described(bad)
    bad.write_text(json.dumps([{"image": "a1.jpg"}, {"image": "b1.jpg"}]))
    with pytest.raises(UserError, match="two images have the id 1"):
        read_described(bad)
