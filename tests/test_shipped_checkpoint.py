"""The small trained model that travels with the project loads and knows what its card says."""

from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from dataset.shapeworld import write_shapeworld
from dataset.tasks.expressions import Expressions
from dataset.tasks.galleries import GallerySource
from dataset.tokenizers import load_tokenizer
from engine.board import LocalBoard
from engine.config.schema import GroundingEvaluation, RetrievalEvaluation
from engine.evaluators import GroundingEvaluator, Inputs, RetrievalEvaluator
from engine.interruption import Interruption
from models.checkpoints import load_checkpoint
from models.config import ModelConfig
from models.vlm import VisionLanguageModel

FOLDER = Path(__file__).parents[1] / "checkpoints/x2vlm_tiny"


@pytest.fixture(scope="module")
def model() -> VisionLanguageModel:
    settings = YAML(typ="safe").load((FOLDER / "config.yaml").read_text())["model"]
    model = VisionLanguageModel(ModelConfig.model_validate(settings), ("itc", "itm", "mlm", "box")).eval()
    coverage = load_checkpoint(model, FOLDER / "model.safetensors")
    assert not coverage.ignored
    return model


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of another seed than it was trained on."""
    folder = tmp_path_factory.mktemp("unseen") / "data"
    write_shapeworld(folder, seed=987, train=8, validation=1, test=100)
    return folder


def inputs() -> Inputs:
    return Inputs(load_tokenizer(FOLDER / "tokenizer"), 40, 48, torch.device("cpu"), Interruption(LocalBoard()))


def test_it_is_small_enough_to_travel() -> None:
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < 8_000_000
    assert "content hash" in (FOLDER / "README.md").read_text()


def test_it_grounds_expressions_in_unseen_scenes(model: VisionLanguageModel, unseen: Path) -> None:
    evaluator = GroundingEvaluator(Expressions((str(unseen / "grounding_test.json"),), unseen / "images"), inputs(), GroundingEvaluation())
    accuracy, guesses = evaluator(model)["accuracy"], evaluator.baselines()
    assert accuracy > 60
    assert accuracy > 2 * guesses["largest object"]["accuracy"]


def test_it_retrieves_unseen_scenes(model: VisionLanguageModel, unseen: Path) -> None:
    source = GallerySource(unseen / "retrieval_test.json", unseen / "images")
    metrics = RetrievalEvaluator(source, inputs(), RetrievalEvaluation(top_k=8))(model)
    assert metrics["tr_r1"] > 30  # chance is 1
    assert metrics["ir_r1"] > 30
