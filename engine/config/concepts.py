"""What recipes of MVP say beside other recipes of pre-training, and what must fit together in them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from common.errors import UserError
from common.settings import Settings
from dataset.concepts import ConceptStream
from dataset.phrases import PhraseVocabulary
from models.config import ModelConfig

if TYPE_CHECKING:
    from engine.config.schema import ConceptTaskConfig, PretrainConfig, RunConfig


WITHOUT_MVP = ("captioning", "zero_shot")
"""Tasks for which there is no form of MVP."""


class PhraseProbe(Settings):
    """Which regions phrases find: held-out phrases with boxes, of which training has none."""

    file: str
    """JSON file: [{image, caption, phrases: [{words: [number, ...], boxes: [[x, y, w, h], ...]}], width, height, tags, regions}]; or the
    folder of Flickr30k Entities with Sentences/ and Annotations/."""
    image_root: str
    """The folder that image paths are relative to."""
    split: str | None = None
    """Flickr30k Entities only: a file with one image number a line."""
    regions: Literal["grid", "boxes", "both"] | None = None
    """Regions to choose from, see `RegionSettings`; null: those of the first stream. boxes are the file's `regions`."""
    layer: int | None = None
    """Layer of the joint encoder whose states are compared; null: that of training."""
    batch_size: Annotated[int, Field(ge=1)] = 32


def concept_problems(config: PretrainConfig) -> list[tuple[str, str]]:
    """What does not fit together in a recipe, as key and message."""
    streams = {name: stream for name, stream in config.streams.items() if isinstance(stream, ConceptStream)}
    model, problems = config.model, []
    if bool(streams) != (model.mvp is not None) or len(streams) not in (0, len(config.streams)):
        problems.append(("streams", "streams: kind concepts and model.mvp go together, and no other kind of stream goes with them."))
    if config.evaluation.phrases is not None and model.mvp is None:
        problems.append(("evaluation.phrases", "evaluation.phrases needs model.mvp. Set it to null."))
    if model.mvp is None:
        return problems
    if config.evaluation.retrieval is not None or config.evaluation.grounding is not None:
        problems.append(("evaluation", "evaluation: model.mvp is measured by evaluation.phrases alone. Set the others to null."))
    problems += vocabulary_problems(model)
    if model.mvp.joint == "cross" and model.mvp.learning.grounding_layer != -1:
        problems.append(
            ("model.mvp", "model.mvp.learning.grounding_layer: only the last layer, -1, is compared where model.mvp.joint is cross.")
        )
    for name, stream in streams.items():
        problems += [(f"streams.{name}", f"streams.{name}{text}") for text in _stream_problems(config, stream)]
    return problems


def _stream_problems(config: PretrainConfig, stream: ConceptStream) -> list[str]:
    mvp, text = config.model.mvp, config.model.text
    assert mvp is not None, "checked before"
    found = []
    longest = max(config.tokenizer.max_tokens + stream.phrases.reserve, stream.tags.max_tokens)
    if longest > text.max_positions:
        found.append(f": texts with phrases may have {longest} positions, but model.text.max_positions is {text.max_positions}.")
    if stream.objectives.get("phrases", 0.0) > 0 and mvp.phrases is None:
        found.append(".objectives.phrases needs model.mvp.phrases, the number of phrases in the vocabulary.")
    if (stream.regions.source == "features") != (mvp.region_features is not None):
        found.append(".regions.source features and model.mvp.region_features go together; set both or neither.")
    return found


def no_such_task(config: RunConfig) -> list[tuple[str, str]]:
    """That MVP is asked for a task that it has no form for, as key and message."""
    if config.model.mvp is None or config.task not in WITHOUT_MVP:
        return []
    return [("model.mvp", f"model.mvp: MVP cannot be trained for the task {config.task}. Set it to null, or take another task.")]


def task_problems(config: ConceptTaskConfig) -> list[tuple[str, str]]:
    """What does not fit together in a recipe of fine-tuning, as key and message."""
    model, concepts, problems = config.model, config.concepts, []
    if (concepts is None) != (model.mvp is None):
        problems.append(("concepts", "concepts and model.mvp go together; set both or neither."))
    if concepts is None or model.mvp is None:
        return problems
    problems += vocabulary_problems(model)
    longest = config.tokenizer.max_tokens + concepts.phrases.reserve
    if longest > model.text.max_positions:
        text = f"texts with phrases may have {longest} positions, but model.text.max_positions is {model.text.max_positions}."
        problems.append(("concepts.phrases.reserve", f"concepts.phrases.reserve: {text}"))
    if model.mvp.region_features is not None:
        text = "model.mvp.region_features: tasks take regions from pixels alone, not from a file. Set it to null."
        problems.append(("model.mvp.region_features", text))
    if model.vision.frames is not None:
        problems.append(("model.vision.frames", "model.vision.frames: MVP takes images, no clips. Set it to null."))
    return problems


def vocabulary_problems(model: ModelConfig) -> list[tuple[str, str]]:
    """Whether the embedding table of MVP has too few rows for the words."""
    if model.mvp is None or model.mvp.vocab_size >= model.text.vocab_size:
        return []
    text = f"model.mvp.vocab_size is {model.mvp.vocab_size}, which must hold the {model.text.vocab_size} words (model.text.vocab_size)."
    return [("model.mvp.vocab_size", text)]


def check_vocabulary(config: RunConfig, file: str) -> None:
    """Compare the phrase vocabulary of a file with the model's embedding table.

    Raises:
        UserError: they do not fit.
    """
    mvp, path = config.model.mvp, Path(file)
    assert mvp is not None, "the config was checked"
    vocabulary = PhraseVocabulary.load(path)
    rows = max(vocabulary.rows, config.model.text.vocab_size)
    if rows > mvp.vocab_size:
        raise UserError(f"model.mvp.vocab_size is {mvp.vocab_size}, but {path} and model.text.vocab_size need {rows} rows.")
    if mvp.phrases is not None and mvp.phrases < len(vocabulary):
        raise UserError(f"model.mvp.phrases is {mvp.phrases}, but {path} has {len(vocabulary)} phrases.")
