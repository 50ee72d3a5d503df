"""MVP fine-tuned by the tasks: recipes that fit and that do not, phrases in texts, and evaluations that no batch size changes."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.errors import UserError
from dataset.phrases import PhraseVocabulary, extract
from dataset.tasks.classification import classification_reader
from dataset.tasks.galleries import gallery_sources
from dataset.tasks.nlvr import statement_reader
from dataset.tokenizers import load_tokenizer, token_lists
from engine.board import LocalBoard
from engine.config.classification import ClassificationConfig
from engine.config.loader import load_config
from engine.config.nlvr import NlvrConfig
from engine.config.schema import RetrievalConfig, RunConfig
from engine.config.validate import validate_run
from engine.config.vqa import VqaConfig
from engine.evaluators import ClassEvaluator, Evaluator, HeldOut, Inputs, RetrievalEvaluator, StatementEvaluator, retrieval_evaluator
from engine.evaluators.vqa import VqaEvaluator
from engine.interruption import Interruption
from engine.tasks import make_task, open_streams
from engine.texts import longest_text, tokenizer_of
from small_run import task_settings, write_config

HEAD = {"classes": 2, "depth": "linear"}
RESERVE = 6
TASKS = ["retrieval", "vqa", "classification", "nlvr"]


@pytest.fixture(scope="module")
def folder(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary of phrases, and labelled records."""
    folder = tmp_path_factory.mktemp("mvp")
    records = {split: json.loads((small_data / f"retrieval_{split}.json").read_text()) for split in ("train", "val", "test")}
    texts = [record["caption"] for record in records["train"]]
    PhraseVocabulary.build([extract(text) for text in texts], load_tokenizer(small_data / "tokenizer"), 2).save(folder / "phrases.json")
    for split, found in records.items():
        captions = [(record["image"], record["caption"]) for record in found]
        labelled = [
            {"image": image, "text": text if isinstance(text, str) else text[0], "label": str(number % 2)}
            for number, (image, text) in enumerate(captions)
        ]
        (folder / f"labels_{split}.json").write_text(json.dumps(labelled))
        statements = [
            {"sentence": record["text"], "label": str(record["label"] == "1"), "images": [record["image"], labelled[0]["image"]]}
            for record in labelled
        ]
        (folder / f"statements_{split}.json").write_text(json.dumps(statements))
    return folder


def settings_of(task: str, data: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    settings = task_settings(task, data, 2)
    settings["model"] = settings["model"] | {"mvp": {"vision_layers": 1, "vocab_size": 900}}
    settings["concepts"] = {"phrases": {"vocabulary": str(folder / "phrases.json"), "reserve": RESERVE}, "regions": {"grid": [2, 1]}}
    if task == "captioning":
        del settings["concepts"]
    if task == "vqa":
        settings["evaluation"] = {"mode": "classify"}
    if task == "retrieval":
        settings["evaluation"] = {"top_k": 4}
    if task in ("classification", "nlvr"):
        kind, names = {"classification": "labels", "nlvr": "statements"}[task], {"train": "train", "validation": "val", "test": "test"}
        settings["data"] |= {split: str(folder / f"{kind}_{name}.json") for split, name in names.items()}
    if task == "classification":
        settings["data"] |= {"labels": ["0", "1"]}
        settings["head"] = HEAD
    return merged(settings, changes)


def merged(settings: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    nested = {key for key, value in change.items() if isinstance(value, dict) and isinstance(settings.get(key), dict)}
    return settings | {key: merged(settings[key], value) if key in nested else value for key, value in change.items()}


def config_of(task: str, data: Path, folder: Path, tmp_path: Path, **changes: Any) -> RunConfig:
    return load_config(write_config(tmp_path / "c.yaml", settings_of(task, data, folder, **changes))).config


@pytest.mark.parametrize("task", TASKS)
def test_a_recipe_that_fits_is_ready(task: str, small_data: Path, folder: Path, tmp_path: Path) -> None:
    assert "ready to run" in validate_run(config_of(task, small_data, folder, tmp_path))[0]


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("vqa", {"evaluation": {"mode": "rank"}}, r"evaluation.mode is rank, but MVP \(model.mvp\) has no decoder. Set it to classify."),
        ("retrieval", {"concepts": None}, "concepts and model.mvp go together"),
        ("retrieval", {"model": {"mvp": None}}, "concepts and model.mvp go together"),
        ("retrieval", {"concepts": {"phrases": {"reserve": 20}}}, "may have 60 positions, but model.text.max_positions is 48"),
        ("retrieval", {"concepts": {"regions": {"source": "boxes"}}}, "source boxes is for pre-training"),
        ("retrieval", {"model": {"mvp": {"vocab_size": 399}}}, "model.mvp.vocab_size is 399"),
        ("retrieval", {"model": {"vision": {"frames": 2}}}, "MVP takes images, no clips"),
        ("retrieval", {"model": {"mvp": {"region_features": 2054}}}, "tasks take regions from pixels"),
        ("classification", {"head": {"depth": "deep"}}, "single linear layer"),
        ("nlvr", {"pair_fusion": "alternating"}, "set concatenated, and assignment null"),
        ("captioning", {}, "cannot be trained for the task captioning"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    task: str, change: dict[str, Any], message: str, small_data: Path, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        config_of(task, small_data, folder, tmp_path, **change)
    assert len(str(caught.value).splitlines()) == 1


def test_a_vocabulary_larger_than_the_table_is_refused(small_data: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "phrases.json").write_text(json.dumps({"9000": ["bus", "red"]}))
    config = config_of("retrieval", small_data, folder, tmp_path, concepts={"phrases": {"vocabulary": str(tmp_path / "phrases.json")}})
    with pytest.raises(UserError, match="need 9001 rows"):
        validate_run(config)


def test_texts_have_their_phrases_behind_their_words_also_in_another_process(small_data: Path, folder: Path, tmp_path: Path) -> None:
    config = config_of("retrieval", small_data, folder, tmp_path)
    tokenizer, words = tokenizer_of(config), load_tokenizer(config.tokenizer.path)
    text = json.loads((small_data / "retrieval_train.json").read_text())[0]["caption"].replace(",", "")
    plain = token_lists(words, [text], 40)[0]
    for made in (tokenizer, pickle.loads(pickle.dumps(tokenizer))):
        found = token_lists(made, [text], longest_text(config))[0]
        assert found[: len(plain) - 1] == plain[:-1] and found[-1] == plain[-1]
        assert len(plain) < len(found) <= longest_text(config) == 40 + RESERVE
        assert len(made) == len(words) and made.pad_token_id == words.pad_token_id


def evaluator_of(config: RunConfig, inputs: Inputs) -> Evaluator:
    match config:
        case RetrievalConfig():
            return retrieval_evaluator(gallery_sources(config.data, "test"), inputs, config.evaluation)
        case VqaConfig():
            return VqaEvaluator("test", config, inputs)
        case ClassificationConfig():
            read = classification_reader(config.data, "image_text")
            return ClassEvaluator("test", HeldOut(config.data, read, inputs, config.evaluation.batch_size, [0, 1]))
        case NlvrConfig():
            assert config.data is not None
            return StatementEvaluator("test", HeldOut(config.data, statement_reader, inputs, config.evaluation.batch_size, [0, 1]))
    raise TypeError


def scores_of(evaluator: Any) -> list[float]:
    """What an evaluator made its numbers of."""
    match evaluator:
        case RetrievalEvaluator():
            assert evaluator.retrieved is not None
            return evaluator.retrieved[1].flatten().tolist()
        case VqaEvaluator():
            return [confidence for _, confidence in evaluator.predicted]
        case _:
            return evaluator.judged.flatten().tolist()


@pytest.mark.parametrize("task", TASKS)
def test_evaluation_does_not_depend_on_the_batch_size(task: str, small_data: Path, folder: Path, tmp_path: Path) -> None:
    found: list[tuple[dict[str, float], list[float]]] = []
    more = {"text_batch_size": 3, "pair_batch_size": 5} if task == "retrieval" else {}
    for sizes in ({"batch_size": 64}, {"batch_size": 2} | more):
        config = config_of(task, small_data, folder, tmp_path, evaluation=sizes)
        torch.manual_seed(0)
        model = make_task(config).model.eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        evaluator: Any = evaluator_of(config, Inputs.of(config, torch.device("cpu"), Interruption(LocalBoard())))
        metrics = evaluator(model)
        found.append((metrics, scores_of(evaluator)))
    assert found[0][0] == found[1][0]
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-5)
    assert len(set(found[0][1])) > 3  # the model tells its inputs apart


@pytest.mark.parametrize("task", TASKS)
def test_records_become_losses(task: str, small_data: Path, folder: Path, tmp_path: Path) -> None:
    config = config_of(task, small_data, folder, tmp_path)
    stream = open_streams(config, tokenizer_of(config))["train"]
    samples = [stream.sample(index, np.random.default_rng(index)) for index in range(4)]
    batch = stream.collate([samples], [np.random.default_rng(0)])
    assert (batch["text_ids"] >= len(tokenizer_of(config))).any()  # phrases of several words
    losses = make_task(config)({"train": batch})
    assert losses and all(value.isfinite() for value in losses.values())
