"""Evaluation of retrieval on files, alone and shared among ranks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dataset.tasks.galleries import GallerySource
from dataset.tokenizers import encode_texts, load_tokenizer
from engine.board import LocalBoard
from engine.config.schema import RetrievalEvaluation
from engine.evaluators import Inputs, RetrievalEvaluator
from engine.interruption import Interruption
from evaluation.retrieval import recall_metrics
from models.config import ModelConfig
from models.vlm import FusionPass, VisionLanguageModel
from played_evaluation import play_evaluation
from small_run import MODEL

IMAGES = 6
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> VisionLanguageModel:
    torch.manual_seed(0)
    model = VisionLanguageModel(ModelConfig.model_validate(MODEL), ("itc", "itm")).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def evaluator(data: Path, interruption: Interruption, **settings: Any) -> RetrievalEvaluator:
    inputs = Inputs(load_tokenizer(data / "tokenizer"), 40, 32, CPU, interruption)
    configured = RetrievalEvaluation.model_validate({"batch_size": 2, "text_batch_size": 3, "pair_batch_size": 7} | settings)
    return RetrievalEvaluator(GallerySource(data / "retrieval_val.json", data / "images"), inputs, configured)


def evaluate(
    model: VisionLanguageModel, data: Path, world: int, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> list[tuple[dict[str, float], Tensor, Tensor]]:
    """Metrics, candidates and scores on each of some played ranks."""

    def part(interruption: Interruption) -> tuple[dict[str, float], Tensor, Tensor]:
        mine = evaluator(data, interruption, **settings)
        metrics = mine(model)
        assert mine.retrieved is not None
        return metrics, *mine.retrieved

    return play_evaluation(world, monkeypatch, part)


@pytest.mark.parametrize("settings", [{"top_k_texts": 3, "top_k_images": 2}, {"top_k": 99, "keep_images": "recompute"}])
def test_numbers_and_scores_are_the_same_on_one_two_and_three_ranks(
    model: VisionLanguageModel, small_data: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    ((metrics, candidates, scores),) = evaluate(model, small_data, 1, monkeypatch, **settings)
    assert candidates.shape[1] == min(settings.get("top_k_images", IMAGES), IMAGES)
    for world in (2, 3):
        for other in evaluate(model, small_data, world, monkeypatch, **settings):
            assert other[0] == metrics
            assert torch.equal(other[1], candidates)
            assert torch.equal(other[2], scores)


def test_ranking_everything_gives_the_numbers_of_brute_force(model: VisionLanguageModel, small_data: Path) -> None:
    found = evaluator(small_data, Interruption(LocalBoard()), top_k=99)
    metrics = found(model)
    ids, mask = encode_texts(found.inputs.tokenizer, found.gallery.texts, 40)
    view = torch.zeros(len(ids), dtype=torch.int64)
    with torch.no_grad():
        states = model.encode_text(ids, mask)
        images = torch.stack([found.gallery.images[image] for image in range(IMAGES)])
        tokens = model.encode_images(images)
        rows = [model.match_logits(model.fuse(model.context(row[None]), [FusionPass(states, mask, view)])[0])[:, 1] for row in tokens]
        similarity = model.image_features(tokens[:, 0]) @ model.text_features(states).T
    assert found.retrieved is not None
    torch.testing.assert_close(found.retrieved[1], torch.stack(rows).T)
    scores, owner = torch.stack(rows).numpy(), found.gallery.text_image
    first = recall_metrics(similarity.numpy(), similarity.T.numpy(), owner)
    assert metrics == recall_metrics(scores, scores.T, owner) | {f"itc_{name}": first[name] for name in ("tr_r1", "ir_r1", "r_mean")}


def test_pictures_show_the_candidates_from_the_best_on(model: VisionLanguageModel, small_data: Path) -> None:
    found = evaluator(small_data, Interruption(LocalBoard()), top_k=4)
    found(model)
    panels = found.panels(model, 2).retrieval
    assert len(panels) == 2
    for panel in panels:
        scores = [image.score for image in panel.images]
        assert len(scores) == 4
        assert scores == sorted(scores, reverse=True)


def test_half_precision_reaches_about_the_same_scores(model: VisionLanguageModel, small_data: Path) -> None:
    full, half = (evaluator(small_data, Interruption(LocalBoard()), top_k=99, keep_images=keep) for keep in ("fp32", "bf16"))
    full(model)
    with torch.autocast("cpu", torch.bfloat16):
        half(model)
    assert full.retrieved is not None
    assert half.retrieved is not None
    difference = (full.retrieved[1] - half.retrieved[1]).abs().numpy()
    assert half.retrieved[1].dtype == torch.float32
    assert np.median(difference) < 0.1 * full.retrieved[1].std().item()
