"""Settings of the `concepts` stream: captions with phrases, images with tags and regions (MVP, arXiv 2201.12596, sections 3 and 4)."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from common.settings import Settings
from dataset.config import BoxAugmentationConfig, Positive, Probability, StreamConfig, known_objectives
from dataset.phrases import Backend

CONCEPT_OBJECTIVES = ("itc", "itm", "mlm", "concepts", "phrases", "phrase_grounding")


class ConceptMasking(Settings):
    """Which words, tags and phrases are hidden, each by itself: 80 % of them behind [MASK], 10 % behind a random one, 10 % not at all."""

    words: Probability = 0.15
    tags: Probability = 0.15
    phrases: Probability = 0.15
    """Beside those of which a word is hidden, which are always hidden: they would tell it."""


class TagSettings(Settings):
    """The objects that an image is said to show; never read off its caption."""

    source: Literal["stored", "elements", "none"] = "stored"
    """stored: the annotation's `tags`, most certain first (scripts/prepare_data.py phrases --tags writes them). elements: the names of its
    annotated objects. none: no tags; weigh the objective concepts 0."""
    max_tokens: Annotated[int, Field(ge=2)] = 20
    """Longest token sequence of an image's tags, [CLS] and [SEP] included."""


class RegionSettings(Settings):
    """What of an image the visual encoder sees as regions."""

    source: Literal["grid", "boxes", "both", "features"] = "grid"
    """grid: cells. boxes: the annotated or detected boxes of the record's elements. both: boxes, then cells. features: a detector's
    features from a file, without pixels."""
    grid: list[Positive] = [7]
    """Cells along one side of the image, for each grid laid over it."""
    max: Positive = 50
    """Most regions of an image; the first ones are kept."""
    min_visible: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5
    """A box is kept if more than this share of it lies in the crop."""
    features: str | None = None
    """For features: a TSV file in the published layout, with its .lineidx and imageid2idx.json beside it."""

    @model_validator(mode="after")
    def _file_where_it_is_read(self) -> "RegionSettings":
        if (self.source == "features") != (self.features is not None):
            raise ValueError("features names the file of the source features; set both or neither")
        return self


class PhraseSettings(Settings):
    """Phrase concepts of the captions."""

    vocabulary: str
    """JSON file {id: [word, ...]}; scripts/prepare_data.py phrases writes one."""
    reserve: Annotated[int, Field(ge=0)] = 5
    """Positions kept for phrases beside tokenizer.max_tokens; phrases also take what a short text leaves."""
    backend: Backend = "rule"
    """What reads phrases of records that do not store any."""


class ConceptStream(StreamConfig):
    """Images with captions, tags and regions. Annotation: {"caption": text or list of texts, "phrases": ..., "tags": [...],
    "elems": [{"bb": [x, y, w, h], "caption": ...}]}, all but the caption optional."""

    kind: Literal["concepts"] = "concepts"
    objectives: dict[str, float] = {"itc": 1.0, "itm": 1.0, "mlm": 1.0, "concepts": 1.0, "phrase_grounding": 1.0}
    """Objective -> weight: itc, itm, mlm; concepts (hidden tags), phrases (hidden phrases), phrase_grounding (phrases find regions)."""
    masking: ConceptMasking = ConceptMasking()  # pyright: ignore[reportIncompatibleVariableOverride]
    augmentation: BoxAugmentationConfig = BoxAugmentationConfig(rand_augment=False)
    phrases: PhraseSettings
    tags: TagSettings = TagSettings()
    regions: RegionSettings = RegionSettings()

    @model_validator(mode="after")
    def _known_and_possible(self) -> "ConceptStream":
        known_objectives(self.objectives, CONCEPT_OBJECTIVES)
        if self.tags.source == "none" and self.objectives.get("concepts", 0.0) > 0:
            raise ValueError("objectives.concepts predicts hidden tags; weigh it 0 with tags.source none")
        return self


class ConceptInputs(Settings):
    """What MVP reads in a task: phrases, read from each text as it comes, and cells of the image. Images have no tags there."""

    phrases: PhraseSettings
    regions: RegionSettings = RegionSettings()

    @field_validator("regions")
    @classmethod
    def _cells(cls, regions: RegionSettings) -> RegionSettings:
        if regions.source != "grid":
            raise ValueError(f"source {regions.source} is for pre-training; the regions of a task are cells (source grid)")
        return regions
