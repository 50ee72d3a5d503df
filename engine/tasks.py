"""From a run's config to its task and its training data: the one place that knows all tasks."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from common.errors import UserError
from dataset.concepts import ConceptStream
from dataset.config import RetrievalData, StatementData, TrainingStream
from dataset.storage import Storage
from dataset.streams.base import Stream, TextSide
from dataset.streams.build import build_stream
from dataset.streams.concepts import region_boxes
from dataset.tasks.captioning import CaptionTrain
from dataset.tasks.captioning_config import CaptionData
from dataset.tasks.classification import classification_reader
from dataset.tasks.grounding import ExpressionPairs, GroundingTrain
from dataset.tasks.labelled import LabelledTrain
from dataset.tasks.nlvr import statement_reader
from dataset.tasks.regions import ExpressionRegions
from dataset.tasks.vqa import VqaTrain
from dataset.tasks.vqa_files import labels_of
from dataset.tasks.wit import retrieval_train
from dataset.tokenizers import load_tokenizer
from engine.captions import CiderReward
from engine.config.captioning import CaptioningConfig
from engine.config.classification import ClassificationConfig
from engine.config.concepts import check_vocabulary
from engine.config.grounding import BoxMethod, GroundingConfig, RegionsMethod
from engine.config.nlvr import NlvrConfig
from engine.config.schema import ConceptTaskConfig, PretrainConfig, RetrievalConfig, RunConfig
from engine.config.vqa import VqaConfig
from engine.config.zero_shot import ZeroShotConfig
from engine.texts import longest_text
from models.tasks.base import Task
from models.tasks.captioning import Captioning, SelfCritical, SelfCriticalSettings, WritingSettings
from models.tasks.classification import Classification
from models.tasks.concepts import ConceptPretraining
from models.tasks.grounding import Grounding
from models.tasks.losses import FUSED, Variants
from models.tasks.mvp_readers import ImageReading, LabelReader, MvpAnswering, MvpRetrieval, StatementReader
from models.tasks.nlvr import Nlvr, TextAssignment
from models.tasks.pretrain import Pretraining, StreamObjectives
from models.tasks.region_grounding import RegionGrounding
from models.tasks.retrieval import Retrieval
from models.tasks.vqa import VQA
from models.tasks.zero_shot import ZeroShot


def make_task(config: RunConfig) -> Task:
    """Model and losses of a config, freshly initialised; nothing is read but the list of answers of a head that chooses one, and in a task
    of MVP the tokenizer."""
    match config:
        case PretrainConfig():
            variants = Variants(frozenset(FUSED) if config.stop_gradient else frozenset())
            objectives = {
                name: StreamObjectives(stream.weight, config.learned(stream), variants)
                for name, stream in config.streams.items()
                if name in config.batches()
            }
            if config.model.mvp is not None:
                return ConceptPretraining(config.model, objectives, config.gradient_mode)
            return Pretraining(config.model, objectives, config.gradient_mode)
        case RetrievalConfig():
            weights = config.loss_weights.model_dump()
            if config.concepts is not None:
                return MvpRetrieval(config.model, image_reading(config), weights, config.gradient_mode)
            return Retrieval(config.model, weights, config.gradient_mode)
        case GroundingConfig(method=RegionsMethod() as method):
            return RegionGrounding(config.model, method.score, method.layer, config.gradient_mode)
        case GroundingConfig():
            make = Grounding if isinstance(config.method, BoxMethod) else Retrieval  # heat learns from pairs as retrieval does
            return make(config.model, config.loss_weights(), config.gradient_mode)
        case NlvrConfig():
            if config.assignment is not None:
                return TextAssignment(config.model, config.gradient_mode)
            pairs = StatementReader(config.model, image_reading(config)) if config.concepts is not None else None
            return Nlvr(config.model, config.pair_fusion, config.gradient_mode, pairs)
        case ClassificationConfig():
            reader = LabelReader(config.model, image_reading(config), config.head) if config.concepts is not None else None
            return Classification(config.model, config.head, config.gradient_mode, config.loss, reader)
        case VqaConfig():
            labels = answer_labels(config)
            if config.concepts is not None and labels is not None:
                return MvpAnswering(config.model, image_reading(config), len(labels))
            return VQA(config.model, config.gradient_mode, None if labels is None else len(labels))
        case CaptioningConfig():
            return _captioning(config)
        case ZeroShotConfig():
            return ZeroShot(config.model)
    raise TypeError(f"no task for {type(config).__name__}")


def image_reading(config: ConceptTaskConfig) -> ImageReading:
    """What MVP reads with every image of a task.

    Raises:
        UserError: there is no tokenizer, which numbers [CLS] and [SEP].
    """
    assert config.concepts is not None, "the config was checked"
    cells = region_boxes(config.concepts.regions, (), None)
    tokenizer = load_tokenizer(config.tokenizer.path)
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    if not isinstance(start, int) or not isinstance(end, int):
        raise UserError("tokenizer.path: the tokenizer has no [CLS] or [SEP], between which tags would stand.")
    return ImageReading(tuple((left, top, right, bottom) for left, top, right, bottom in cells.tolist()), (start, end))


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
        check_vocabulary(config, settings.phrases.vocabulary)
    if isinstance(settings, TrainingStream):
        return build_stream(name, settings, tokenizer, texts, vision.image_size, vision.stride, config.storage, vision.frames)
    text = TextSide(tokenizer, longest_text(config), None, texts.padding)
    if isinstance(settings, CaptionData):
        assert isinstance(config, CaptioningConfig), "the task that has such data"
        return CaptionTrain(settings, "drawn" if config.self_critical is not None else config.prediction, text, vision.image_size, name)
    if isinstance(settings, RetrievalData):
        return retrieval_train(settings, text, vision.image_size, name, Storage(config.storage), vision.frames)
    if isinstance(settings, StatementData):
        return LabelledTrain(settings, statement_reader, text, vision.image_size, name)
    if isinstance(config, ClassificationConfig):
        return LabelledTrain(config.data, classification_reader(config.data, config.head.inputs), text, vision.image_size, name)
    if isinstance(config, VqaConfig):
        return VqaTrain(config.data, text, vision.image_size, vision.frames, answer_labels(config), name)
    assert isinstance(config, GroundingConfig), "the other kind of training data"
    if isinstance(config.method, RegionsMethod):
        return ExpressionRegions(config.data, config.method.candidates, text, vision.image_size, name)
    read = GroundingTrain if isinstance(config.method, BoxMethod) else ExpressionPairs
    return read(config.data, text, vision.image_size, name)


def _captioning(config: CaptioningConfig) -> Captioning:
    """Language modelling, or training on rewards, whose references are read when a first caption is judged."""
    smoothing = 0.0 if config.domain is not None else config.smoothing
    settings, stage = WritingSettings(config.writer, config.prediction, smoothing), config.self_critical
    if stage is None:
        return Captioning(config.model, settings, config.gradient_mode)

    def references() -> CaptionTrain:
        stream = open_stream(config, "train", load_tokenizer(config.tokenizer.path, config.tokenizer.ends_with_separator))
        assert isinstance(stream, CaptionTrain), "this stage has captions to compare with"
        return stream

    reward = CiderReward(config, references, lambda: load_tokenizer(config.tokenizer.path, config.tokenizer.ends_with_separator))
    drawing = SelfCriticalSettings(stage.samples, stage.baseline, config.evaluation.max_tokens, stage.temperature)
    return SelfCritical(config.model, settings, config.gradient_mode, drawing, reward)


def answer_labels(config: VqaConfig) -> dict[str, int] | None:
    """The number of each answer where a class is learned."""
    return labels_of(config.data) if config.evaluation.mode == "classify" else None
