"""Check everything that a config points at, without training: files, shards, tokenizer, checkpoint, batch arithmetic."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from common.errors import BadRecord, UserError
from dataset.batches import BatchPlan
from dataset.config import RegionTextStream
from dataset.parallel_config import ParallelTextStream
from dataset.streams.base import Stream
from dataset.streams.unpaired_config import ImageStream
from dataset.tasks.classification import classification_reader
from dataset.tasks.expressions import Expressions
from dataset.tasks.galleries import GallerySource, by_language, gallery_sources
from dataset.tasks.grounding import GroundingSet
from dataset.tasks.labelled import LabelledSet
from dataset.tasks.nlvr import statement_reader
from dataset.tasks.retrieval import RetrievalGallery
from engine.config.captioning import CaptioningConfig
from engine.config.classification import ClassificationConfig
from engine.config.grounding import GroundingConfig, RegionsMethod
from engine.config.nlvr import NlvrConfig
from engine.config.schema import PretrainConfig, RetrievalConfig, RetrievalProbe, RunConfig
from engine.config.validate_captioning import caption_sets
from engine.config.validate_vqa import vqa_sets
from engine.config.validate_zero_shot import zero_shot_set
from engine.config.vqa import VqaConfig
from engine.config.zero_shot import ZeroShotConfig
from engine.tasks import make_task, open_stream
from engine.texts import tokenizer_of
from engine.weights import find_weights
from models.checkpoints.load import check_checkpoint
from models.text_swap import check_swap
from models.vlm import ALL_HEADS, VisionLanguageModel

SAMPLES = 8
"""Records of each source that are read, spread over it."""

Check = Callable[[], Iterator[str]]
HeldOut = RetrievalGallery | GroundingSet | LabelledSet


def validate_run(config: RunConfig, world: int = 1) -> list[str]:
    """Check a config against the files it names.

    Args:
        config: of any task.
        world: processes that the run would have.

    Returns:
        Lines that sum up the run.

    Raises:
        UserError: one line for every problem found.
    """
    lines: list[str] = []
    problems: list[str] = []

    def run(check: Check) -> None:
        try:
            lines.extend(check())
        except (UserError, BadRecord) as error:
            problems.append(str(error))

    model: list[VisionLanguageModel] = []
    run(lambda: _model(config, model))
    if model:
        run(lambda: _weights(config, model[0]))
    run(lambda: _engine(config, world))
    tokenizers: list[PreTrainedTokenizerBase] = []
    run(lambda: _tokenizer(config, tokenizers))
    if tokenizers:
        for number, name in enumerate(config.batches() if config.schedule.trains else ()):
            run(lambda name=name, first=number == 0: _stream(config, name, first, tokenizers[0], world))
    else:
        problems.append("The training data was not checked, because that needs the tokenizer.")
    for name, open_set in _held_out(config).items():
        run(lambda name=name, open_set=open_set: _evaluation(name, open_set))
    if isinstance(config, VqaConfig):
        run(lambda: vqa_sets(config))
    if isinstance(config, CaptioningConfig):
        run(lambda: caption_sets(config))
    if isinstance(config, ZeroShotConfig):
        run(lambda: zero_shot_set(config))
    if problems:
        raise UserError("\n".join(problems))
    return [f"{config.task}: ready to run with {world} process{'es' if world > 1 else ''}.", *(f"  {line}" for line in lines)]


def _model(config: RunConfig, built: list[VisionLanguageModel]) -> Iterator[str]:
    with torch.device("meta"):  # shapes alone, no memory
        built.append(make_task(config).model)
    vision = config.model.vision
    parameters = sum(parameter.numel() for parameter in built[0].parameters())
    grid = f"{vision.grid} x {vision.grid}"
    yield f"model: {parameters:,} parameters; images of {vision.image_size} pixels as {grid} patches; heads {', '.join(_heads(config))}"


def _heads(config: RunConfig) -> list[str]:
    """What the model has beside its encoders."""
    if isinstance(config, NlvrConfig):
        return ["text assignment"] if config.assignment is not None else [f"statements, {config.pair_fusion}"]
    if isinstance(config, ClassificationConfig):
        return [f"{config.head.classes} classes of {config.head.inputs.replace('_', ' and ')}"]
    if isinstance(config, CaptioningConfig):
        return [f"{config.writer} that write captions"]
    if isinstance(config, VqaConfig):
        return ["classes of answers" if config.evaluation.mode == "classify" else "answer decoder"]
    if isinstance(config, GroundingConfig) and isinstance(config.method, RegionsMethod):
        return [f"scores of regions, {config.method.score}"]
    wanted = config.objective_names() | ({"itc"} if "itm" in config.objective_names() else set())
    return [head for head in ALL_HEADS if head in wanted]


def _engine(config: RunConfig, world: int) -> Iterator[str]:
    settings = config.engine
    if settings.strategy == "deepspeed" and find_spec("deepspeed") is None:
        raise UserError('engine.strategy is deepspeed, but the package is not installed: pip install "multigrain[deepspeed]".')
    if config.optimizer.implementation == "apex" and settings.strategy != "ddp":
        raise UserError(f"optimizer.implementation: apex knows whole tensors only. With engine.strategy {settings.strategy} take fused.")
    name = f"deepspeed, ZeRO stage {settings.zero_stage}" if settings.strategy == "deepspeed" else settings.strategy
    yield f"engine: {name} on {world} rank{'s' if world > 1 else ''}, {settings.precision}, {settings.accumulation} micro-batches a step"


def _weights(config: RunConfig, model: VisionLanguageModel) -> Iterator[str]:
    checkpoint = config.initialize.checkpoint
    if checkpoint is None:
        places = [place for place in (config.model.vision.weights, config.model.text.weights) if place]
        yield f"weights: {' and '.join(places)} for the encoders, the rest from nothing" if places else "weights: from nothing"
        return
    if not Path(checkpoint).exists():
        raise UserError(f"initialize.checkpoint: {checkpoint} does not exist.")
    file = find_weights(Path(checkpoint))
    check = check_swap if config.initialize.replace_text else check_checkpoint
    coverage = check(model, file, config.initialize.allow_missing)
    yield from (f"weights: {line.strip()}" for line in coverage.lines())


def _tokenizer(config: RunConfig, loaded: list[PreTrainedTokenizerBase]) -> Iterator[str]:
    tokenizer = tokenizer_of(config)
    loaded.append(tokenizer)
    text, longest = config.model.text, config.tokenizer.max_tokens
    if len(tokenizer) > text.vocab_size:
        has = f"the tokenizer in {config.tokenizer.path} has {len(tokenizer)} entries"
        raise UserError(f"model.text.vocab_size is {text.vocab_size}, but {has}.")
    for key, tokens in _longest_texts(config).items():
        if tokens > text.max_tokens:
            has = f"model.text.max_positions: {text.max_positions}, room for texts of {text.max_tokens} tokens"
            raise UserError(f"{key} is {tokens}, but the text encoder has {has}.")
    yield f"tokenizer: {len(tokenizer):,} entries in {config.tokenizer.path}, texts of at most {longest} tokens"


def _longest_texts(config: RunConfig) -> dict[str, int]:
    """The longest sequences that the text encoder may get, by the key that says so."""
    found = {"tokenizer.max_tokens": config.tokenizer.max_tokens}
    for name, settings in config.batches().items():
        if isinstance(settings, ParallelTextStream):
            single = settings.max_tokens or config.tokenizer.max_tokens
            joined = settings.objectives.get("tlm", 0.0) > 0
            found[f"twice streams.{name}.max_tokens (objective tlm)" if joined else f"streams.{name}.max_tokens"] = single * (1 + joined)
    return found


def _stream(config: RunConfig, name: str, first: bool, tokenizer: PreTrainedTokenizerBase, world: int) -> Iterator[str]:
    key = f"streams.{name}" if isinstance(config, PretrainConfig) else "data"
    settings = config.batches()[name]
    images = settings.max_images if isinstance(settings, RegionTextStream) else None
    plan = BatchPlan(settings.batch_size, settings.groups, world, config.engine.accumulation, images, key)
    stream = open_stream(config, name, tokenizer)
    if len(stream) == 0:
        raise UserError(f"{key}: holds no records.")
    bad = _try_samples(stream, config.seed)
    if len(bad) == min(SAMPLES, len(stream)):
        raise UserError(f"{key}: none of {len(bad)} records tried can be used; for example {bad[0]}")
    steps = len(stream) / plan.image_count
    rows = f"{plan.batch_size} {'images' if isinstance(settings, ImageStream) else 'texts'}" + (
        f" of {plan.image_count} images" if plan.image_count != plan.batch_size else ""
    )
    groups = f"{plan.group_count} group{'s' if plan.group_count > 1 else ''}"
    yield f"{key}: {len(stream):,} records; a step takes {rows} in {groups}; an epoch is {steps:,.1f} steps"
    if len(stream) < plan.image_count:
        yield f"{key}: warning: a step takes more images than there are records, so that some come twice in a step"
    if bad:
        yield f"{key}: {len(bad)} of {min(SAMPLES, len(stream))} records tried cannot be used; for example {bad[0]}"
    if first:
        total = config.schedule.total_steps(len(stream), plan.image_count)
        warmup = config.schedule.warmup(total)
        if warmup >= total > 0:
            raise UserError(f"schedule.warmup_steps is {warmup}, but the run has only {total} steps.")
        yield f"schedule: {total:,} steps ({total / steps:,.1f} epochs of {key}), the first {warmup:,} to warm up"


def _try_samples(stream: Stream, seed: int) -> list[str]:
    """Read some samples, first to last; what is wrong with the bad ones."""
    bad = []
    for index in sorted(set(np.linspace(0, len(stream) - 1, SAMPLES, dtype=int).tolist())):
        try:
            stream.sample(index, np.random.default_rng((seed, index)))
        except BadRecord as error:
            bad.append(str(error))
    return bad


def _held_out(config: RunConfig) -> dict[str, Callable[[], HeldOut]]:
    """The evaluation sets, by key, each with what opens it."""
    size, frames = config.model.vision.image_size, config.model.vision.frames
    retrieval: dict[str, GallerySource] = {}
    grounding: dict[str, Expressions] = {}
    if isinstance(config, PretrainConfig):
        if (probe := config.evaluation.retrieval) is not None:
            retrieval |= _probe_sources("evaluation.retrieval", probe)
        if (videos := config.evaluation.videos) is not None:
            retrieval |= _probe_sources("evaluation.videos", videos)
        if (boxes := config.evaluation.grounding) is not None:
            grounding["evaluation.grounding"] = Expressions((boxes.file,), Path(boxes.image_root))
    elif isinstance(config, RetrievalConfig):
        splits = {split: gallery_sources(config.data, split) for split in ("validation", "test")}
        retrieval = {
            f"data.{split}.{language}".rstrip("."): source for split, found in splits.items() for language, source in found.items()
        }
    elif isinstance(config, GroundingConfig):
        splits = {"data.validation": config.data.validation, "data.test": config.data.test}
        grounding |= {key: config.expressions(names) for key, names in splits.items()}
    return _labelled_sets(config) | {
        **{key: lambda source=source: RetrievalGallery(source, size, frames=frames) for key, source in retrieval.items()},
        **{key: lambda source=source: GroundingSet(source, size) for key, source in grounding.items()},
    }


def _probe_sources(key: str, probe: RetrievalProbe) -> dict[str, GallerySource]:
    """The galleries of a probe, by key."""
    files, root = by_language(probe.file), Path(probe.image_root)
    return {f"{key}.{language}".rstrip("."): GallerySource(Path(file), root) for language, file in files.items()}


def _labelled_sets(config: RunConfig) -> dict[str, Callable[[], HeldOut]]:
    """Those of statements about two images, and of classification."""
    size = config.model.vision.image_size
    if isinstance(config, NlvrConfig) and config.data is not None:
        data, read = config.data, statement_reader
    elif isinstance(config, ClassificationConfig):
        data, read = config.data, classification_reader(config.data, config.head.inputs)
    else:
        return {}
    names = {"validation": "data.validation", "test": "data.test", **{name: f"data.languages.{name}" for name in data.languages}}
    return {key: lambda split=split: LabelledSet(split, data, read, size) for split, key in names.items()}


def _evaluation(key: str, open_set: Callable[[], HeldOut]) -> Iterator[str]:
    """Open a set and read its first and last item: files that moved are usually all gone."""
    held_out = open_set()
    items = held_out.images if isinstance(held_out, RetrievalGallery) else held_out
    count = len(items)  # pyright: ignore[reportArgumentType]
    for index in {0, count - 1}:
        items[index]
    match held_out:
        case RetrievalGallery():
            yield f"{key}: {count:,} images and {len(held_out.texts):,} texts"
        case GroundingSet():
            yield f"{key}: {count:,} expressions"
        case LabelledSet():
            yield f"{key}: {count:,} labelled records"
