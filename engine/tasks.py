"""From a run's config to its task and its training data: the one place that knows all tasks."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from dataset.concepts import ConceptStream
from dataset.config import GroundingData, ImageTextStream, RegionTextStream, RetrievalData, StatementData
from dataset.streams.base import Stream, TextSide
from dataset.streams.build import build_stream
from dataset.tasks.classification import classification_reader
from dataset.tasks.grounding import GroundingTrain
from dataset.tasks.labelled import LabelledTrain
from dataset.tasks.nlvr import statement_reader
from dataset.tasks.retrieval import RetrievalTrain
from dataset.tasks.vqa import VqaTrain
from dataset.tasks.vqa_files import labels_of
from engine.config.classification import ClassificationConfig
from engine.config.concepts import check_vocabulary
from engine.config.nlvr import NlvrConfig
from engine.config.schema import GroundingConfig, PretrainConfig, RetrievalConfig, RunConfig
from engine.config.vqa import VqaConfig
from models.tasks.base import Task
from models.tasks.classification import Classification
from models.tasks.concepts import ConceptPretraining
from models.tasks.grounding import Grounding
from models.tasks.nlvr import Nlvr, TextAssignment
from models.tasks.pretrain import Pretraining, StreamObjectives
from models.tasks.retrieval import Retrieval
from models.tasks.vqa import VQA


def make_task(config: RunConfig) -> Task:
    """Model and losses of a config, freshly initialised; nothing is read but the list of answers of a head that chooses one."""
    match config:
        case PretrainConfig():
            objectives = {
                name: StreamObjectives(stream.weight, {key: weight for key, weight in stream.objectives.items() if weight > 0})
                for name, stream in config.streams.items()
            }
            if config.model.mvp is not None:
                return ConceptPretraining(config.model, objectives, config.gradient_mode)
            return Pretraining(config.model, objectives, config.gradient_mode)
        case RetrievalConfig():
            return Retrieval(config.model, config.loss_weights.model_dump(), config.gradient_mode)
        case GroundingConfig():
            return Grounding(config.model, config.loss_weights.model_dump(), config.gradient_mode)
        case NlvrConfig():
            if config.assignment is not None:
                return TextAssignment(config.model, config.gradient_mode)
            return Nlvr(config.model, config.pair_fusion, config.gradient_mode)
        case ClassificationConfig():
            return Classification(config.model, config.head, config.gradient_mode)
        case VqaConfig():
            labels = answer_labels(config)
            return VQA(config.model, config.gradient_mode, None if labels is None else len(labels))
    raise TypeError(f"no task for {type(config).__name__}")


def open_streams(config: RunConfig, tokenizer: PreTrainedTokenizerBase) -> dict[str, Stream]:
    """All training data of a config, by the names that its task knows them under.

    Raises:
        UserError: files are missing or damaged.
    """
    return {name: open_stream(config, name, tokenizer) for name in config.batches()}


def open_stream(config: RunConfig, name: str, tokenizer: PreTrainedTokenizerBase) -> Stream:
    """One of them."""
    settings, vision, texts = config.batches()[name], config.model.vision, config.tokenizer
    if isinstance(settings, ConceptStream) and isinstance(config, PretrainConfig):
        check_vocabulary(config, settings)
    if isinstance(settings, (ImageTextStream, RegionTextStream, ConceptStream)):
        return build_stream(name, settings, tokenizer, texts, vision.image_size, vision.stride, config.storage)
    text = TextSide(tokenizer, texts.max_tokens, None, texts.padding)
    if isinstance(settings, RetrievalData):
        return RetrievalTrain(settings, text, vision.image_size, name)
    if isinstance(settings, StatementData):
        return LabelledTrain(settings, statement_reader, text, vision.image_size, name)
    if isinstance(config, ClassificationConfig):
        return LabelledTrain(config.data, classification_reader(config.data, config.head.inputs), text, vision.image_size, name)
    if isinstance(config, VqaConfig):
        return VqaTrain(config.data, text, vision.image_size, vision.frames, answer_labels(config), name)
    assert isinstance(settings, GroundingData), "the other kind of training data"
    return GroundingTrain(settings, text, vision.image_size, name)


def answer_labels(config: VqaConfig) -> dict[str, int] | None:
    """The number of each answer where a class is learned."""
    return labels_of(config.data) if config.evaluation.mode == "classify" else None
