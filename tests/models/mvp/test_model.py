"""MVP's encoders: what they see and what they do not."""

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from models.mvp.config import MvpConfig
from models.mvp.model import MVP_HEADS, Mvp
from mvp_batches import SMALL, mvp_batch


def small_model(config: MvpConfig = SMALL) -> Mvp:
    torch.manual_seed(0)
    return Mvp(config, MVP_HEADS).eval()


def test_padding_changes_no_state() -> None:
    model, batch = small_model(), mvp_batch(3)
    text = model.encode_text(batch["text_ids"], batch["text_mask"])
    tags, regions = model.encode_image(batch["tag_ids"], batch["tag_mask"], batch["regions"], batch["region_mask"])
    joint = model.fuse(text, batch["text_mask"], regions, batch["region_mask"])[-1]

    wider_text = model.encode_text(F.pad(batch["text_ids"], (0, 3)), F.pad(batch["text_mask"], (0, 3)))
    wide_tags = F.pad(batch["tag_ids"], (0, 2)), F.pad(batch["tag_mask"], (0, 2))
    wider = model.encode_image(*wide_tags, F.pad(batch["regions"], (0, 0, 0, 4)), F.pad(batch["region_mask"], (0, 4)))
    wider_joint = model.fuse(wider_text, F.pad(batch["text_mask"], (0, 3)), wider[1], F.pad(batch["region_mask"], (0, 4)))[-1]

    length, keep = text.shape[1], batch["region_mask"]
    torch.testing.assert_close(wider_text[:, :length], text)
    torch.testing.assert_close(wider[0][:, : tags.shape[1]], tags)
    torch.testing.assert_close(wider[1][:, : keep.shape[1]][keep], regions[keep])
    torch.testing.assert_close(wider_joint[:, :length], joint[:, :length])


def test_regions_have_no_order_but_words_and_phrases_do() -> None:
    model, batch = small_model(), mvp_batch(2)
    order = torch.tensor([3, 0, 4, 1, 2])
    tags, regions = model.encode_image(batch["tag_ids"], batch["tag_mask"], batch["regions"], batch["region_mask"])
    shuffled = model.encode_image(batch["tag_ids"], batch["tag_mask"], batch["regions"][:, order], batch["region_mask"][:, order])
    torch.testing.assert_close(shuffled[0], tags)
    torch.testing.assert_close(shuffled[1], regions[:, order])
    swapped = batch["text_ids"].clone()
    swapped[:, [5, 6]] = swapped[:, [6, 5]]
    first, second = (model.encode_text(ids, batch["text_mask"])[:, 0] for ids in (batch["text_ids"], swapped))
    assert not torch.allclose(first, second)


def test_words_and_tags_differ_by_type_alone() -> None:
    model, batch = small_model(), mvp_batch(2)
    zeros, ones = torch.zeros_like(batch["text_ids"]), torch.ones_like(batch["tag_ids"])
    torch.testing.assert_close(
        model.encode_text(batch["text_ids"], batch["text_mask"]), model.encode_text(batch["text_ids"], batch["text_mask"], zeros)
    )
    image = batch["tag_ids"], batch["tag_mask"], batch["regions"], batch["region_mask"]
    torch.testing.assert_close(model.encode_image(*image)[0], model.encode_image(*image, ones)[0])
    assert not torch.allclose(model.encode_image(*image)[0], model.encode_image(*image, 1 - ones)[0])


def test_tied_heads_predict_words_with_the_embedding_table_and_phrases_not_at_all() -> None:
    model, batch = small_model(), mvp_batch(2)
    tags, _ = model.encode_image(batch["tag_ids"], batch["tag_mask"], batch["regions"], batch["region_mask"])
    logits = model.concept_logits(tags, batch["masked_tag_positions"])
    assert logits.shape == (2, 2, SMALL.words)
    logits[0, 0, 7].backward()
    gradient = model.embeddings.words.weight.grad
    assert gradient is not None
    assert gradient[7].any()
    assert "mlm_head.decoder" not in model.state_dict()
    assert "mlm_head.decoder" in small_model(SMALL.model_copy(update={"tied_mlm": False})).state_dict()


def test_the_temperature_starts_as_configured_and_is_kept_above_a_hundredth() -> None:
    model = small_model()
    assert model.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    assert model.temperature.item() == pytest.approx(0.07)
    with torch.no_grad():
        model.logit_scale.fill_(model.bounds()["logit_scale"][1])
    assert model.temperature.item() == pytest.approx(0.01)


def test_regions_may_come_without_a_norm() -> None:
    model = small_model(SMALL.model_copy(update={"region_norm": False}))
    batch = mvp_batch(1)
    torch.testing.assert_close(model.regions(batch["regions"]), model.regions.linear(batch["regions"]))
    assert small_model().regions(batch["regions"]).mean(dim=-1).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [({"heads": 5}, "multiple of heads 5"), ({"words": 90_000}, "rows of the embedding table"), ({"type_vocab_size": 1}, "at least 2")],
)
def test_sizes_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MvpConfig(**change)
