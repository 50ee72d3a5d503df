"""Settings of everything between files and batches."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from common.settings import Settings
from dataset.text import Punctuation

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]
Decoding = Literal["fast", "exact"]
"""How images for training are decoded and resized. fast: JPEG files with OpenCV, at 1/2, 1/4 or 1/8 of their resolution where the crop
still has the pixels that the model takes; the result differs from exact by one to two grey levels of 255 (docs/performance.md). exact: with
Pillow in full resolution, to the bits of the published code's transforms. Other formats, and all images of evaluations, are always exact.
Crops, flips and boxes are the same either way."""


class StorageSettings(Settings):
    """How data files are read. Files behind URLs (s3://, gs://, hdfs://, https:// ...) are copied whole into a cache first."""

    cache: str | None = None
    """Folder of the copies, shared by all processes and runs of a machine; best on a local disk. null: multigrain/shards in the user's
    cache folder."""
    cache_gb: Annotated[float, Field(gt=0.0)] = 100.0
    """Most gigabytes of copies; the least recently used one goes first. Training reads from some 20 shards of each stream at a time:
    room for fewer means fetching them again and again."""
    tries: Positive = 3
    """How often a read that fails is tried before its record is skipped."""
    retry_wait: Annotated[float, Field(ge=0.0)] = 1.0
    """Seconds before the second try, doubled before each further one."""
    slow_seconds: Annotated[float, Field(gt=0.0)] = 10.0
    """A read that takes so much longer than at 10 MB/s is counted as slow and logged."""


Padding = Literal["packed", "batch", "max"]
"""packed: texts are padded to the longest of their batch, and the batch says which positions are tokens, so that padding is not computed.
batch: padding to the longest is computed. max: texts are padded to max_tokens, as published code does."""


class TokenizerConfig(Settings):
    """Where the tokenizer is and how long texts may be."""

    path: str
    """A folder that holds a tokenizer, or a model name that transformers knows."""
    max_tokens: Annotated[int, Field(ge=4)] = 40
    """Longest token sequence, [CLS] and [SEP] included; longer texts are cut."""
    padding: Padding = "packed"
    """See there. It changes the speed of training and nothing else."""


class MaskingConfig(Settings):
    """Which tokens masked language modelling hides."""

    probability: Probability = 0.5
    """Share of a text's tokens ([CLS] and [SEP] counted) to predict; at least one."""
    max_masks: Positive = 12
    """Most tokens to predict in one text."""
    skipgram_probability: Probability = 0.2
    """How often a span of several tokens is hidden instead of one."""
    skipgram_size: Positive = 3
    """Longest such span; spans are 2 to this many tokens long. 1 turns spans off."""
    whole_word: bool = True
    """Hide all pieces of a word together. Only WordPiece vocabularies mark pieces, so it has no effect on others."""


class AugmentationConfig(Settings):
    """Random changes of an image without boxes. With everything off the image is resized, squashed to a square."""

    crop_scale: tuple[float, float] | None = (0.2, 1.0)
    """Share of the image's area that a random crop keeps (lowest, highest); null: no crop."""
    flip: Probability = 0.5
    """How often the image is mirrored."""
    careful_flip: bool = False
    """Never mirror an image one of whose captions has the word left or right."""
    rand_augment: bool = True
    """Two random operations on colours or geometry, each applied half of the time."""
    decode: Decoding = "fast"
    """fast or exact, see `Decoding`."""

    @field_validator("crop_scale")
    @classmethod
    def _scale_is_a_share(cls, scale: tuple[float, float] | None) -> tuple[float, float] | None:
        if scale is not None and not 0.0 < scale[0] <= scale[1] <= 1.0:
            raise ValueError(f"crop_scale {list(scale)} must be two rising numbers in (0, 1]")
        return scale


class BoxAugmentationConfig(Settings):
    """Random changes of an image together with its boxes. With everything off the image is resized, squashed to a square."""

    crop: bool = True
    """Crop at random, keeping one of the boxes whole."""
    flip: Probability = 0.5
    """How often image and boxes are mirrored."""
    careful_flip: bool = True
    """Never mirror an image one of whose captions has the word left or right."""
    rand_augment: bool = True
    """Two random operations on colours, each applied half of the time."""
    decode: Decoding = "fast"
    """fast or exact, see `Decoding`."""


class StreamConfig(Settings):
    """What every pre-training stream has."""

    shards: str | list[str]
    """Tar shards or JSON-lines files; braces and wildcards are expanded."""
    image_key: str = "binary"
    """JSON-lines files only: the key that holds the image, base64 or a path."""
    image_root: str | None = None
    """JSON-lines files only: the folder that image paths are relative to; null: images are base64."""
    caption_key: str = "caption"
    """The annotation key that holds the caption or captions."""
    batch_size: Positive
    """Texts of one optimizer step, over all ranks and micro-batches."""
    groups: Positive | None = None
    """Equal parts of a batch in which region rows are chosen and hard negatives drawn. null: one for each rank and micro-batch. A fixed
    number makes batches and losses independent of the number of ranks."""
    weight: Annotated[float, Field(ge=0.0)] = 1.0
    """Factor on all losses of the stream."""
    masking: MaskingConfig = MaskingConfig()
    max_pixels: Positive = 64_000_000
    """Images with more pixels are refused before they are decoded."""


class ImageTextStream(StreamConfig):
    """Images with captions. Annotation: {"caption": text, list of texts, or mapping language -> text}."""

    kind: Literal["image_text"] = "image_text"
    objectives: dict[str, float] = {"itc": 1.0, "itm": 1.0, "mlm": 1.0}
    """Objective -> weight: itc, itm, mlm."""
    augmentation: AugmentationConfig = AugmentationConfig()

    @field_validator("objectives")
    @classmethod
    def _known(cls, objectives: dict[str, float]) -> dict[str, float]:
        return known_objectives(objectives, ("itc", "itm", "mlm"))


class RegionTextStream(StreamConfig):
    """Images with described boxes. Annotation: {"elems": [{"bb": [x, y, w, h], "caption": ..., "attributes": ...}], "caption": ...}."""

    kind: Literal["region_text"] = "region_text"
    objectives: dict[str, float] = {"itc": 1.0, "itm": 1.0, "mlm": 1.0, "box": 1.0}
    """Objective -> weight: itc, itm, mlm, box."""
    augmentation: BoxAugmentationConfig = BoxAugmentationConfig()
    max_images: Positive
    """Images of one optimizer step, over all ranks and micro-batches; their regions fill `batch_size` rows."""
    max_regions: Positive = 5
    """Most rows that one image brings, its own caption included."""
    min_visible: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5
    """A box is kept if more than this share of it lies in the crop."""
    equal_texts_match: bool = True
    """Rows with the same text are positives of one another and never negatives: "red car" is not wrong for another red car. false: as in
    the published code, where they are pushed apart."""
    image_caption: bool = False
    """Also use the caption of the whole image, where a record has one, as a row of its own."""

    @field_validator("objectives")
    @classmethod
    def _known(cls, objectives: dict[str, float]) -> dict[str, float]:
        return known_objectives(objectives, ("itc", "itm", "mlm", "box"))

    @model_validator(mode="after")
    def _room_for_regions(self) -> "RegionTextStream":
        if self.image_caption and self.max_regions < 2:
            raise ValueError("max_regions must be at least 2 with image_caption, which takes one of them")
        return self


def known_objectives(objectives: dict[str, float], known: tuple[str, ...]) -> dict[str, float]:
    """The objectives of a stream. Raises ValueError: one is unknown or weighs less than nothing."""
    for name, weight in objectives.items():
        if name not in known:
            raise ValueError(f"{name} is not an objective of this stream; it has {', '.join(known)}")
        if weight < 0:
            raise ValueError(f"the weight of {name} is {weight}; it must not be negative")
    return objectives


class TaskData(Settings):
    """What the data of every fine-tuning task has."""

    train: str | list[str]
    """JSON file or files."""
    validation: str
    """JSON file; the best checkpoint is chosen on it."""
    test: str
    """JSON file; reported once, for the chosen checkpoint."""
    image_root: str
    """The folder that image paths are relative to."""
    batch_size: Positive
    """Texts of one optimizer step, over all ranks and micro-batches."""
    groups: Positive | None = None
    """As in a stream."""
    max_words: Positive = 30
    """Texts are cut to this many words before they are tokenized."""
    max_pixels: Positive = 64_000_000
    """Images with more pixels are refused before they are decoded."""


class CaptionCounts(Settings):
    """How many captions the published files hold."""

    train: Positive | None = None
    validation: Positive | dict[str, Positive] | None = None
    test: Positive | dict[str, Positive] | None = None


class RetrievalData(TaskData):
    """Image-text retrieval. Train: [{image, caption, image_id}]; validation and test: [{image, caption: [text, ...]}], or the JSON lines of
    xFlickr&CO or WIT."""

    validation: str | dict[str, str]  # pyright: ignore[reportIncompatibleVariableOverride]
    """File of the split that the best checkpoint is chosen on; or language -> file, of which the mean decides."""
    test: str | dict[str, str]  # pyright: ignore[reportIncompatibleVariableOverride]
    """File of the split that is reported once; or language -> file."""
    coco_root: str | None = None
    """The folder of COCO's images in xFlickr&CO; null: image_root."""
    punctuation: Punctuation = "space"
    """What becomes of punctuation: a space, or nothing (X-VLM)."""
    expected: CaptionCounts = CaptionCounts()
    """Other numbers of captions are warned about."""
    augmentation: AugmentationConfig = AugmentationConfig(crop_scale=(0.5, 1.0))


class GroundingData(TaskData):
    """Referring expressions: [{image, text, ref_id, bbox: [x, y, w, h], width, height}], boxes in pixels."""

    augmentation: BoxAugmentationConfig = BoxAugmentationConfig()


class LanguageSplit(Settings):
    """A further test set, such as that of a language."""

    file: str
    """JSON or JSON-lines file."""
    image_root: str | None = None
    """null: as for the other files."""


class LabelledData(TaskData):
    """What data sets of labelled records have. Files may be JSON lists or JSON lines."""

    languages: dict[str, LanguageSplit] = {}
    """Name -> a further test set, whose numbers are reported under its name, and their mean as mean/accuracy."""
    punctuation: Punctuation = "space"
    """What becomes of punctuation: a space, or nothing (X-VLM)."""
    expected: dict[str, Positive] = {}
    """Published number of records: of train, validation, test or a language. Another number is warned of."""
    augmentation: AugmentationConfig = AugmentationConfig(crop_scale=(0.5, 1.0))


class StatementData(LabelledData):
    """Statements about two images: [{sentence, label: "True" or "False", images: [path, path], identifier (optional)}], or the layouts of
    NLVR2 ({identifier, sentence, label, directory}) and MaRVL ({caption, label, left_img, right_img, concept})."""


class RecordKeys(Settings):
    """How the keys of a record are called."""

    image: str = "image"
    """Path below image_root; a name without an ending is that of a .jpg."""
    text: str = "text"
    label: str = "label"


class ClassificationData(LabelledData):
    """Labelled images, texts, or texts with images: [{image, text, label}], or other keys."""

    labels: list[str]
    """Names of the labels; their order is that of the classes."""
    skip_labels: list[str] = []
    """Labels whose records are left out: "-" in SNLI, where annotators disagree."""
    keys: RecordKeys = RecordKeys()
