"""MVP over a feature map: pooling, what reaches what, and that it learns."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from common.errors import UserError
from concepts import MODEL, concept_stream, concept_texts
from dataset.streams.base import Sample
from models.config import ModelConfig
from models.mvp.learning import MvpLearning
from models.mvp.pixels import PixelMvp, region_vectors
from models.objectives.contrastive import itc_loss
from models.objectives.phrase_grounding import grounding_scores
from models.tasks.concepts import ConceptPretraining, phrase_similarities
from models.tasks.mvp import mvp_losses, mvp_states
from models.tasks.pretrain import StreamObjectives

ALL = {"itc": 1.0, "itm": 1.0, "mlm": 1.0, "concepts": 1.0, "phrases": 1.0, "phrase_grounding": 1.0}
NO_NOISE = {"crop": False, "flip": 0.0, "rand_augment": False}


def with_mvp(**changes: object) -> ModelConfig:
    assert MODEL.mvp is not None
    return MODEL.model_copy(update={"mvp": MODEL.mvp.model_copy(update=changes)})


def task_for(objectives: dict[str, float], config: ModelConfig = MODEL) -> ConceptPretraining:
    torch.manual_seed(0)
    return ConceptPretraining(config, {"concepts": StreamObjectives(1.0, objectives)}, "exact")


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    masking = {"words": 0.15, "tags": 0.5, "phrases": 0.3}
    stream = concept_stream(concept_texts(tmp_path_factory.mktemp("tokenizer")), augmentation=NO_NOISE, masking=masking)
    samples: list[Sample] = [stream.sample(index, np.random.default_rng(index)) for index in range(4)]
    return stream.collate([samples], [np.random.default_rng(0)])


def test_a_region_is_the_mean_of_what_its_box_covers_and_where_it_is() -> None:
    patches = torch.arange(16.0).reshape(1, 16, 1)  # 4 x 4
    boxes = torch.tensor([[[0.0, 0.0, 0.25, 0.25], [0.25, 0.5, 0.75, 1.0], [0.125, 0.0, 0.5, 0.25], [0.0, 0.0, 0.0, 0.0]]])
    found = region_vectors(patches, boxes)
    expected = torch.tensor([0.0, (9 + 10 + 13 + 14) / 4, (0 * 0.5 + 1) / 1.5, 0.0])
    torch.testing.assert_close(found[0, :, 0], expected)
    torch.testing.assert_close(found[0, 1, 1:], torch.tensor([0.25, 0.5, 0.75, 1.0, 0.5, 0.5]))


@pytest.mark.parametrize("joint", ["single", "cross"])
@pytest.mark.parametrize("grounding", ["sample", "hard"])
def test_every_parameter_learns_from_all_objectives(batch: dict[str, Tensor], joint: str, grounding: str) -> None:
    config = with_mvp(joint=joint, learning=MvpLearning.model_validate({"grounding": grounding, "candidates": "mean"}))
    task = task_for(ALL, config)
    losses = task({"concepts": batch})
    assert set(losses) == set(task.weights)
    torch.stack([*losses.values()]).sum().backward()
    assert [name for name, parameter in task.named_parameters() if parameter.grad is None] == []


def test_phrase_grounding_teaches_all_that_is_before_it_and_nothing_of_padding(batch: dict[str, Tensor]) -> None:
    task = task_for({"phrase_grounding": 1.0}, with_mvp(learning=MvpLearning(grounding="sample", margin=2.0)))
    padded = {**batch, "region_mask": batch["region_mask"].clone()}
    padded["region_mask"][:, -1] = False
    prepared = dict(task.model.with_regions(padded))
    regions = prepared["regions"].detach().requires_grad_()
    mvp_losses(task.model.mvp, prepared | {"regions": regions}, ["phrase_grounding"], task.learning, "exact")["phrase_grounding"].backward()
    assert regions.grad is not None and not regions.grad[:, -1].any() and regions.grad[:, :-1].any()
    mvp = task.model.mvp
    for part in (mvp.text_encoder, mvp.vision_encoder, mvp.regions):
        assert any(parameter.grad is not None and parameter.grad.any() for parameter in part.parameters())
    rows = batch["text_ids"][batch["phrase_mask"]].unique()
    gradient = mvp.embeddings.words.weight.grad
    assert gradient is not None and gradient[rows].any(dim=1).all()


def test_fused_states_are_of_texts_and_regions_and_tags_reach_them_through_regions_alone(batch: dict[str, Tensor]) -> None:
    mvp = task_for(ALL).model.eval().mvp
    prepared = task_for(ALL).model.eval().with_regions(batch)
    text = mvp.encode_text(batch["text_ids"], batch["text_mask"])
    tags, regions = mvp.encode_image(batch["tag_ids"], batch["tag_mask"], prepared["regions"], batch["region_mask"])
    fused = mvp.fuse(text, batch["text_mask"], regions, batch["region_mask"])[-1]
    assert fused.shape[1] == batch["text_ids"].shape[1] + batch["region_boxes"].shape[1]
    states = mvp_states(mvp, prepared, ["mlm"], MvpLearning())
    assert states.positive is not None
    torch.testing.assert_close(states.positive[-1], fused)
    gradient = torch.autograd.grad(states.positive[-1].sum(), states.tags, allow_unused=True)[0]
    assert gradient is None or not gradient.any()
    assert tags.shape[1] == batch["tag_ids"].shape[1]


def test_contrast_of_orthonormal_pairs_is_near_nothing_and_starts_at_the_published_scale() -> None:
    mvp = PixelMvp(MODEL, ["itc"]).mvp
    assert mvp.logit_scale.item() == pytest.approx(2.659, abs=1e-3)
    loss = itc_loss(torch.eye(4), torch.eye(4), torch.tensor(0.01), torch.arange(4), "exact")
    assert loss.item() < 1e-6


@pytest.mark.parametrize("rows", [1, 2])
def test_wrong_pairs_are_never_ones_own(batch: dict[str, Tensor], rows: int) -> None:
    task = task_for(ALL)
    few = {key: value[:rows] for key, value in batch.items()}
    states = mvp_states(task.model.mvp, task.model.with_regions(few), ["itm"], task.learning)
    assert states.wrong is not None
    assert states.wrong.valid.tolist() == [rows > 1] * rows
    assert ((states.wrong.text != states.wrong.image) | ~states.wrong.valid).all()
    assert all(value.isfinite() for value in task({"concepts": few}).values())


def test_the_three_ways_to_count_the_best_regions_differ_as_said() -> None:
    phrases = torch.tensor([[[1.0, 0.0]]])
    regions = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0]]])
    masks = torch.ones(1, 1, dtype=torch.bool), torch.tensor([[True, True, True, False]])
    arguments = phrases, masks[0], regions, masks[1], torch.full((1, 1), 0.99)
    values = {kind: grounding_scores(*arguments, kind).item() for kind in ("random", "mean", "max")}  # pyright: ignore[reportArgumentType]
    half = 0.5**0.5
    assert values == pytest.approx({"random": 0.0, "mean": (1 + half) / 3, "max": 1.0}, abs=1e-6)
    two = torch.tensor([[True, True, False, False]])
    assert grounding_scores(*arguments[:3], two, None, "mean").item() == pytest.approx(0.5, abs=1e-6)


def test_heads_predict_words_and_stay_tied_when_saved(batch: dict[str, Tensor], tmp_path: Path) -> None:
    task = task_for(ALL)
    torch.save(task.model.state_dict(), tmp_path / "weights.pt")
    again = task_for(ALL)
    again.model.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    mvp, states = again.model.mvp, torch.randn(1, 3, 32)
    positions = torch.zeros(1, 1, dtype=torch.int64)
    before = mvp.masked_lm_logits(states, positions), mvp.concept_logits(states, positions)
    assert all(logits.shape[-1] == MODEL.text.vocab_size for logits in before)
    with torch.no_grad():
        mvp.embeddings.words.weight[7] += 1.0
    after = mvp.masked_lm_logits(states, positions), mvp.concept_logits(states, positions)
    for old, new in zip(before, after, strict=True):
        assert (old != new).flatten().nonzero().flatten().tolist() == [7]


def test_the_first_stage_fuses_nothing_and_the_second_starts_from_it(batch: dict[str, Tensor]) -> None:
    first = task_for({"itc": 1.0, "concepts": 1.0, "phrases": 1.0})
    assert len(first.model.mvp.joint_encoder.layers) == 0  # pyright: ignore[reportArgumentType]
    torch.stack([*first({"concepts": batch}).values()]).sum().backward()
    assert all(parameter.grad is not None for parameter in first.parameters())
    second = task_for(ALL).model
    lacking, unknown = second.load_state_dict(first.model.state_dict(), strict=False)
    assert unknown == [] and {name.split(".")[1] for name in lacking} == {"joint_encoder", "pooler", "itm_head", "mlm_head"}


@pytest.mark.slow
def test_four_pairs_are_told_apart_and_matched_after_a_few_steps(batch: dict[str, Tensor]) -> None:
    task = task_for({"itc": 1.0, "itm": 1.0})
    optimizer = torch.optim.AdamW(task.parameters(), lr=2e-3)
    for _ in range(60):
        loss = torch.stack([*task({"concepts": batch}).values()]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    states = mvp_states(task.model.mvp, task.model.with_regions(batch), ["itc", "itm"], task.learning)
    assert states.text_features is not None and states.image_features is not None
    assert (states.text_features @ states.image_features.T).argmax(dim=1).tolist() == [0, 1, 2, 3]
    assert states.positive is not None and states.negative is not None
    mvp = task.model.mvp
    assert mvp.match_logits(mvp.pool(states.positive[-1])).argmax(dim=1).all()
    assert not mvp.match_logits(mvp.pool(states.negative[-1])).argmax(dim=1).any()


def test_a_frozen_vision_encoder_stays_and_the_rest_learns(batch: dict[str, Tensor]) -> None:
    task = task_for(ALL, with_mvp(freeze_vision=True))
    torch.stack([*task({"concepts": batch}).values()]).sum().backward()
    learned = {name.split(".")[1] for name, parameter in task.named_parameters() if parameter.grad is not None}
    assert "vision" not in learned and "mvp" in learned


def test_similarities_are_of_every_position_with_every_region(batch: dict[str, Tensor]) -> None:
    for objectives in (ALL, {"itc": 1.0}):
        found = phrase_similarities(task_for(objectives).model.eval(), batch)
        assert found.shape == (4, batch["text_ids"].shape[1], batch["region_boxes"].shape[1])
        assert found.abs().max() <= 1 + 1e-5


def test_bert_fills_the_encoders_and_leaves_phrases_as_they_are(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM

    from models.initial_weights import load_initial_weights

    text = MODEL.text
    bert = BertForMaskedLM(
        BertConfig(
            vocab_size=150, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64, max_position_embeddings=24
        )
    )
    bert.save_pretrained(tmp_path)
    config = MODEL.model_copy(update={"text": text.model_copy(update={"weights": str(tmp_path)})})
    model = task_for(ALL, config).model
    phrases = model.mvp.embeddings.words.weight[150:].clone()
    filled = load_initial_weights(model)
    source = bert.state_dict()
    query = "attention.self.query.weight"
    for ours, theirs in (("text_encoder.layers.0", 0), ("vision_encoder.layers.0", 0), ("joint_encoder.layers.1", 2)):
        torch.testing.assert_close(model.mvp.get_parameter(f"{ours}.{query}"), source[f"bert.encoder.layer.{theirs}.{query}"])
    torch.testing.assert_close(model.mvp.embeddings.words.weight[:150], source["bert.embeddings.word_embeddings.weight"])
    torch.testing.assert_close(model.mvp.embeddings.words.weight[150:], phrases)
    assert "mvp.mlm_head.dense.weight" in filled and not any(name.startswith("vision.") for name in filled)
    with pytest.raises(UserError, match="has no layer"):
        load_initial_weights(task_for(ALL, config.model_copy(update={"fusion": config.fusion.model_copy(update={"layers": 5})})).model)
