"""Objectives of parallel text."""

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

from common.errors import UserError
from models.config import Beit2Config, FusionConfig, ModelConfig, TextConfig
from models.packing import Packing
from models.tasks.losses import stream_losses
from models.tasks.parallel import Texts, encode_together, parallel_losses
from models.tasks.pretrain import Pretraining, StreamObjectives
from models.vlm import HEADS, VisionLanguageModel

CONFIG = ModelConfig(
    vision=Beit2Config(image_size=16, patch_size=8, width=16, depth=1, heads=2, drop_path=0.0),
    text=TextConfig(
        kind="roberta",
        width=16,
        layers=1,
        heads=2,
        intermediate=32,
        vocab_size=40,
        max_positions=24,
        type_vocab_size=1,
        pad_token_id=1,
        dropout=0.0,
    ),
    fusion=FusionConfig(layers=2),
    projection_dim=8,
    tied_mlm=False,
)
ALL = ("ttc", "ttm", "mlm")


@pytest.fixture(scope="module")
def model() -> VisionLanguageModel:
    torch.manual_seed(0)
    model = VisionLanguageModel(CONFIG, HEADS).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def texts(rows: int, length: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(length) < torch.randint(2, length + 1, (rows, 1), generator=generator)
    return torch.randint(5, 40, (rows, length), generator=generator).masked_fill(~mask, 1), mask


def pairs(rows: int = 4) -> dict[str, Tensor]:
    (ids, mask), (ids_2, mask_2) = texts(rows, 6, 1), texts(rows, 9, 2)
    positions = torch.zeros(rows, 2, dtype=torch.int64)
    positions[:, 1] = 1
    return {
        "text_ids": ids,
        "text_mask": mask,
        "text_ids_2": ids_2,
        "text_mask_2": mask_2,
        "text_ids_masked": ids.scatter(1, positions, 4),
        "masked_positions": positions,
        "mlm_labels": ids.gather(1, positions),
        "pair_ids_masked": torch.cat([ids.scatter(1, positions, 4), ids_2], dim=1),
        "pair_mask": torch.cat([mask, mask_2], dim=1),
        "pair_masked_positions": positions,
        "pair_mlm_labels": ids.gather(1, positions),
        "sample_ids": torch.arange(rows),
        "group": torch.zeros(rows, dtype=torch.int64),
        "negative_draws": torch.full((rows, 2), 0.5),
    }


def losses(model: VisionLanguageModel, batch: dict[str, Tensor], objectives: Iterable[str] = ALL) -> dict[str, Tensor]:
    return parallel_losses(model, batch, list(objectives), "exact")


def widened(batch: dict[str, Tensor], ids: str, mask: str) -> dict[str, Tensor]:
    """The same texts with three more columns of padding, whose ids must not matter either."""
    padded = torch.nn.functional.pad(batch[ids], (0, 3), value=1)
    return batch | {ids: padded, mask: torch.nn.functional.pad(batch[mask], (0, 3))}


def test_texts_encoded_together_equal_texts_encoded_alone(model: VisionLanguageModel) -> None:
    lists = [Texts(*texts(4, 6, 1)), Texts(*texts(4, 9, 2)), Texts(*texts(2, 3, 3))]
    packed = [item._replace(packing=Packing.of(item.mask)) for item in lists]
    for given in (lists, packed):
        for states, (ids, mask, _) in zip(encode_together(model, given), lists, strict=True):
            torch.testing.assert_close(states[mask], model.encode_text(ids, mask)[mask])


def test_packed_texts_give_the_losses_and_gradients_of_padded_ones(model: VisionLanguageModel) -> None:
    batch = pairs()
    packed = {f"text_bins{end}": Packing.of(batch[f"text_mask{end}"]).bins for end in ("", "_2")}
    found: list[dict[str, Tensor]] = []
    for given in (batch, batch | packed):
        model.zero_grad()
        computed = losses(model, given)
        torch.stack(list(computed.values())).sum().backward()
        gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
        found.append({name: value.detach() for name, value in computed.items()} | gradients)
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


def test_padding_of_either_text_changes_no_loss(model: VisionLanguageModel) -> None:
    batch = pairs()
    expected = losses(model, batch)
    torch.testing.assert_close(losses(model, widened(batch, "text_ids_2", "text_mask_2")), expected)
    longer = widened(batch, "text_ids", "text_mask")
    longer["text_ids_masked"] = torch.nn.functional.pad(batch["text_ids_masked"], (0, 3), value=1)
    torch.testing.assert_close(losses(model, longer), expected)


def test_masked_text_attends_to_the_second_text_as_it_is(model: VisionLanguageModel) -> None:
    batch = pairs()
    other = batch | {"text_ids_2": torch.where(batch["text_mask_2"], 44 - batch["text_ids_2"], 1)}
    assert not torch.isclose(losses(model, other, ["mlm"])["mlm"], losses(model, batch, ["mlm"])["mlm"], rtol=1e-3)
    unread = batch | {"text_ids": torch.where(batch["text_mask"], 44 - batch["text_ids"], 1)}  # hidden tokens must not be read off it
    torch.testing.assert_close(losses(model, unread, ["mlm"]), losses(model, batch, ["mlm"]))


def test_matching_passes_pair_each_second_text_with_the_first_one(model: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(model, "fuse", lambda context, passes: seen.append((context, passes)) or [item.text for item in passes])
    batch = pairs() | {"negative_draws": torch.tensor([[0.0, 0.999]] * 4)}
    losses(model, batch, ["ttm"])
    ((context, (true, wrong_first, wrong_second)),) = seen
    first, second = (model.encode_text(batch[f"text_ids{end}"], batch[f"text_mask{end}"]) for end in ("", "_2"))
    torch.testing.assert_close(context.layer(0).rows(None), model.context(first, mask=batch["text_mask"]).layer(0).rows(None))
    torch.testing.assert_close(context.layer(0).rows(None).mask, batch["text_mask"][:, None, None])
    assert true.view is None  # row i attends to text i
    assert wrong_first.view.tolist() == [1, 0, 0, 0]  # the lowest draw takes the first that is not the pair's own
    torch.testing.assert_close(
        wrong_second.text[batch["text_mask_2"][[3, 3, 3, 2]]], second[[3, 3, 3, 2]][batch["text_mask_2"][[3, 3, 3, 2]]]
    )
    assert wrong_second.view is None


def test_equal_ids_are_positives_of_one_another(model: VisionLanguageModel) -> None:
    batch = pairs()
    merged = batch | {"sample_ids": torch.zeros(4, dtype=torch.int64)}
    assert not torch.isclose(losses(model, merged, ["ttc"])["ttc"], losses(model, batch, ["ttc"])["ttc"])
    assert losses(model, merged, ["ttm"])["ttm"].isfinite()  # nobody has a negative: the true pairs alone count


def test_translation_language_modelling_skips_cross_attention(model: VisionLanguageModel) -> None:
    model.zero_grad()
    losses(model, pairs(), ["tlm"])["tlm"].backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert not [name for name in reached if "cross_attention" in name or name.startswith(("vision", "itm", "text_proj"))]
    assert {"fusion.layers.1.mlp_in.weight", "mlm_head.decoder", "text.backbone.embeddings.word_embeddings.weight"} <= reached


def test_one_pair_alone_gives_finite_losses_and_gradients(model: VisionLanguageModel) -> None:
    model.zero_grad()
    computed = losses(model, pairs(1), (*ALL, "tlm"))
    assert computed.keys() == {"ttc", "ttm", "mlm", "tlm"}
    torch.stack(list(computed.values())).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def test_a_second_caption_is_contrasted_with_image_and_first_caption(model: VisionLanguageModel) -> None:
    image = torch.randint(0, 256, (4, 3, 16, 16), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
    batch = pairs() | {"image": image}
    swapped = batch | {"text_ids": batch["text_ids_2"], "text_mask": batch["text_mask_2"]}
    both = stream_losses(model, batch, ["itc", "ttc"], "exact")
    one, other = (stream_losses(model, captions, ["itc"], "exact")["itc"] for captions in (batch, swapped))
    torch.testing.assert_close(both["itc"], (one + other) / 2)
    torch.testing.assert_close(both["ttc"], losses(model, batch, ["ttc"])["ttc"])


def test_unequal_widths_name_both_keys() -> None:
    narrow = CONFIG.model_copy(update={"vision": Beit2Config(image_size=16, patch_size=8, width=24, depth=1, heads=2)})
    model = VisionLanguageModel(narrow, HEADS)
    assert losses(model, pairs(), ["ttc", "tlm"]).keys() == {"ttc", "tlm"}  # these fuse no text with a text
    with pytest.raises(UserError, match=r"model\.vision\.width is 24 and model\.text\.width 16"):
        losses(model, pairs(), ["ttm"])


def test_pretraining_builds_the_heads_that_parallel_text_needs() -> None:
    task = Pretraining(CONFIG, {"texts": StreamObjectives(0.5, {"ttc": 1.0, "ttm": 2.0, "mlm": 1.0})}, "exact")
    computed = task({"texts": pairs()})
    assert computed.keys() == task.weights.keys() == {"texts/ttc", "texts/ttm", "texts/mlm"}
    assert task.weights["texts/ttm"] == 1.0
    translation = Pretraining(CONFIG, {"texts": StreamObjectives(1.0, {"ttc": 1.0, "tlm": 1.0})}, "exact")
    assert translation({"texts": pairs()}).keys() == {"texts/ttc", "texts/tlm"}
    assert not hasattr(translation.model, "itm_head")
