"""Settings of everything between files and batches."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from common.settings import Settings
from dataset.tasks.sources_config import ClassSource
from dataset.text import Punctuation

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]
SPLITS = ("train", "validation", "test")
Decoding = Literal["fast", "exact"]
"""How images for training are decoded and resized. fast: JPEG files with OpenCV, at 1/2, 1/4 or 1/8 of their resolution where the crop
still has the pixels that the model takes; the result differs from exact by one to two grey levels of 255 (docs/performance.md). exact: with
Pillow in full resolution, to the bits of the published code's transforms. Other formats, and all images of evaluations, are always exact.
Crops, flips and boxes are the same either way."""

VideoDecoder = Literal["auto", "torchcodec", "av", "decord", "opencv"]
"""The library that decodes video files. auto: torchcodec or PyAV where one is installed, else OpenCV, which always is. Frames differ
between them by the rounding of colours, so a run that is to be repeated exactly on another machine names one."""
FrameChanges = Literal["clip", "frame"]
"""How the frames of a clip are augmented. clip: all alike, so that what moves in the clip is what moved before the camera. frame: each by
itself, as in the published code, which mirrors one frame and not the next."""


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
    ends_with_separator: bool = True
    """Whether texts end with [SEP]. X-VLM's own tokenizer puts none. Answers always do, since a decoder must know where to stop."""
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


class PatchMaskingConfig(Settings):
    """Which patches masked image modelling hides: blocks, as BEiT does (arXiv 2106.08254, section 2.3)."""

    patches: Positive = 75
    """How many of an image's patches are hidden, exactly; 75 of the 196 of 224 pixels."""
    min_block: Positive = 16
    """Fewest patches of a block that is drawn; the last one may be smaller."""
    min_aspect: Annotated[float, Field(gt=0.0, le=1.0)] = 0.3
    """Aspect ratios of blocks are drawn from this number to its inverse, log-uniform."""


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


class CleanShare(Settings):
    """Cleaner data beside a noisy source (X2-VLM section 4.1: CC3M and others beside LAION, WebVid beside HowTo100M)."""

    shards: str | list[str]
    """As in the stream."""
    probability: Probability
    """Share of the steps that take this data instead. A step is drawn by the run's seed alone, so all ranks and micro-batches agree."""


class TrainingStream(Settings):
    """What every pre-training stream has, with images or without."""

    objectives: dict[str, float] = {}
    """Objective -> weight."""
    shards: str | list[str]
    """Tar shards or JSON-lines files; braces and wildcards are expanded."""
    batch_size: Positive
    """Rows (texts, pairs of parallel texts, or images without texts) of one optimizer step, over all ranks and micro-batches."""
    groups: Positive | None = None
    """Equal parts of a batch in which region rows are chosen and hard negatives drawn. null: one for each rank and micro-batch. A fixed
    number makes batches and losses independent of the number of ranks."""
    weight: Annotated[float, Field(ge=0.0)] = 1.0
    """Factor on all losses of the stream."""
    clean: CleanShare | None = None
    """A second, cleaner source of the same kind, which takes the place of `shards` in a share of the steps; null: none."""


class StreamConfig(TrainingStream):
    """What every pre-training stream of images with texts has."""

    image_key: str = "binary"
    """JSON-lines files only: the key that holds the image, base64 or a path."""
    image_root: str | None = None
    """JSON-lines files only: the folder that image paths are relative to; null: images are base64."""
    caption_key: str = "caption"
    """The annotation key that holds the caption or captions."""
    languages: list[str] | None = None
    """Of captions that are a mapping language -> text: the languages that one is drawn from; null: all that a record has."""
    masking: MaskingConfig = MaskingConfig()
    max_pixels: Positive = 64_000_000
    """Images with more pixels are refused before they are decoded."""


class MatchingSettings(Settings):
    """In which steps pre-training learns image-text matching (itm); in the others its loss is 0 and costs nothing."""

    clean_stream: str | None = None
    """Name of a stream with a `clean` source: matching, of all streams, only in the steps in which that stream takes it, as in the code of
    X2-VLM on a billion pairs, many of which do not match. null: in all steps."""
    until_step: Positive | None = None
    """The number of the step that is the last with matching. null: to the end."""


class ImageTextStream(StreamConfig):
    """Images with captions. Annotation: {"caption": text, list of texts, or mapping language -> text}."""

    kind: Literal["image_text"] = "image_text"
    objectives: dict[str, float] = {"itc": 1.0, "itm": 1.0, "mlm": 1.0}
    """Objective -> weight: itc, itm, mlm, mim; ttc takes a second caption of each image, of another language where there is one, contrasts
    it with the first, and lets itc be the mean over both (CCLM's `sample_2_captions`)."""
    augmentation: AugmentationConfig = AugmentationConfig()
    patch_masking: PatchMaskingConfig = PatchMaskingConfig()
    """Of the objective mim."""

    @field_validator("objectives")
    @classmethod
    def _known(cls, objectives: dict[str, float]) -> dict[str, float]:
        return known_objectives(objectives, ("itc", "itm", "mlm", "mim", "ttc"))


class VideoTextStream(StreamConfig):
    """Clips with captions; model.vision.frames says how many frames are taken. A record holds a video file (KEY.mp4 in a shard; in JSON
    lines under image_key, as base64 or a path), or frames in its annotation: {"video_frames": [base64, ...], "caption": ...}, or
    {"video_frames": [[base64, ...], ...], "caption": [text, ...], "is_continuous": true} for the parts of a longer video."""

    kind: Literal["video_text"] = "video_text"
    objectives: dict[str, float] = {"itc": 1.0, "itm": 1.0, "mlm": 1.0}
    """Objective -> weight: itc, itm, mlm."""
    augmentation: AugmentationConfig = AugmentationConfig(careful_flip=True)
    frame_changes: FrameChanges = "clip"
    """See there."""
    frames_key: str = "video_frames"
    """The annotation key that holds frames."""
    join_parts: bool = True
    """Join neighbouring parts of a video whose record says is_continuous."""
    least_frames: Positive = 8
    """Parts are joined until they have so many frames."""
    decoder: VideoDecoder = "auto"
    """See there."""

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
    code_switch: bool = False
    """Of attributes in several languages: draw theirs by itself, so that it may differ from the caption's. false: as the caption's."""
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
    expected: dict[str, Positive | None] = {}
    """How many records (of retrieval: captions) the published files hold: of train, validation or test; of one of several files of a split
    as test/NAME. Other numbers are warned of."""

    @field_validator("expected")
    @classmethod
    def _of_splits(cls, expected: dict[str, int | None]) -> dict[str, int | None]:
        odd = next((name for name in expected if name.partition("/")[0] not in SPLITS), None)
        if odd is not None:
            raise ValueError(f"{odd} is neither a split ({', '.join(SPLITS)}) nor one of its files, such as test/de")
        return expected

    def expected_of(self, split: str, name: str = "") -> int | None:
        """The published number of records of a split, or of its file of this name; None where it is not known."""
        return self.expected.get(f"{split}/{name}" if name else split)


class RetrievalData(TaskData):
    """Retrieval of images, or, where model.vision.frames is set, of clips (video files, or JSON lists of base64 frames). Train: [{image,
    caption, image_id}], or the JSON lines of WIT; validation and test: [{image, caption: [text, ...]}], or the JSON lines of xFlickr&CO or
    WIT."""

    validation: str | dict[str, str]  # pyright: ignore[reportIncompatibleVariableOverride]
    """File of the split that the best checkpoint is chosen on; or language -> file, of which the mean decides."""
    test: str | dict[str, str]  # pyright: ignore[reportIncompatibleVariableOverride]
    """File of the split that is reported once; or language -> file."""
    coco_root: str | None = None
    """The folder of COCO's images in xFlickr&CO; null: image_root."""
    punctuation: Punctuation = "space"
    """What becomes of punctuation: a space, or nothing (X-VLM)."""
    augmentation: AugmentationConfig = AugmentationConfig(crop_scale=(0.5, 1.0))
    frame_changes: FrameChanges = "clip"
    """Of clips, see there."""
    decoder: VideoDecoder = "auto"
    """Of clips, see there."""


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
    raw_text: bool = False
    """Texts go to the tokenizer as they are: with capitals and punctuation, however long."""
    test_crop: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Held-out images are resized so that this share of their shorter side is the model's input, and the middle is cut out (0.875: to 256
    pixels, of which 224 are kept). null: the whole image is squashed to the square."""
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


class ClassAugmentation(AugmentationConfig):
    """As for other images, and what recipes of ImageNet add."""

    auto_augment: str | None = None
    """A policy of timm's, such as rand-m9-mstd0.5-inc1; rand_augment must be off."""
    erase: Probability = 0.0
    """How often a rectangle of the image is filled with noise (random erasing)."""

    @model_validator(mode="after")
    def _one_policy(self) -> "ClassAugmentation":
        if self.auto_augment is not None and self.rand_augment:
            raise ValueError("auto_augment and rand_augment are both set; set rand_augment to false")
        return self


class ClassificationData(LabelledData):
    """Labelled images, texts, or texts with images: [{image, text, label}], or other keys; or a known data set, see `source`."""

    train: str | list[str] = "train"
    """JSON file or files; of a source the split, its own by default."""
    validation: str = "validation"
    """JSON file, or split of a source; the best checkpoint is chosen on it."""
    test: str = "test"
    """JSON file, or split of a source; reported once, for the chosen checkpoint."""
    image_root: str = ""
    """The folder that image paths are relative to; a source has its own."""
    source: ClassSource | None = None
    """A known data set instead of JSON files."""
    labels: list[str] = []
    """Names of the labels; their order is that of the classes. A source knows its own. None where a number is learned."""
    skip_labels: list[str] = []
    """Labels whose records are left out: "-" in SNLI, where annotators disagree."""
    keys: RecordKeys = RecordKeys()
    augmentation: ClassAugmentation = ClassAugmentation(crop_scale=(0.5, 1.0))  # pyright: ignore[reportIncompatibleVariableOverride]

    @model_validator(mode="after")
    def _files_or_a_source(self) -> "ClassificationData":
        missing = [name for name in ("train", "validation", "test") if name not in self.model_fields_set]
        if self.source is None and missing:
            raise ValueError(f"{', '.join(missing)} missing; name JSON files, or a known data set under source")
        return self
