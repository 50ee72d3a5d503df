"""Settings of referring expressions."""

from typing import Annotated, Literal

from pydantic import Field

from common.settings import Settings
from dataset.concepts import RegionSettings
from dataset.config import AugmentationConfig, BoxAugmentationConfig, Positive, TaskData
from dataset.text import Punctuation


class ReferSettings(Settings):
    """A data set in REFER's own layout: FOLDER/refs(SPLIT_BY).p and FOLDER/instances.json."""

    folder: str
    """Such as refcoco, refcoco+ or refcocog."""
    split_by: Literal["unc", "google", "umd"] = "unc"
    """Whose splits: unc has val, testA and testB, umd val and test, google val alone."""


class CandidateSettings(Settings):
    """What a model that ranks candidate boxes reads of an image: the boxes, and `tags` of the record where it has any."""

    max: Positive = 50
    """Most candidates of an image; the first ones are kept, in evaluation too."""
    min_visible: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5
    """In training, a candidate is kept if more than this share of it lies in the crop."""
    max_tag_tokens: Annotated[int, Field(ge=2)] = 20
    """Longest token sequence of an image's tags, [CLS] and [SEP] included."""

    @property
    def regions(self) -> RegionSettings:
        """The same as pre-training says it."""
        return RegionSettings(source="boxes", max=self.max, min_visible=self.min_visible)


class GroundingData(TaskData):
    """Referring expressions: [{image, text, ref_id, bbox: [x, y, w, h], width, height}], boxes in pixels.

    With `refer`, names that do not end in .json are splits of that data set, and JSON files may leave out everything but image, text and
    ref_id, as the published ones do. Records of several splits (testA and testB) are also reported by split.
    """

    test: str | list[str]  # pyright: ignore[reportIncompatibleVariableOverride]
    """JSON file, or files and splits; reported once, for the chosen checkpoint."""
    refer: ReferSettings | None = None
    """Where boxes and masks, and perhaps the expressions, come from."""
    detections: str | None = None
    """JSON file of a detector's boxes by number of the image, {"581857": [[x, y, w, h, ...], ...]}: what methods heat and
    regions choose among. null: the `candidates` of the records, where they have any."""
    punctuation: Punctuation = "space"
    """What becomes of punctuation: a space, or nothing (X-VLM)."""
    augmentation: BoxAugmentationConfig = BoxAugmentationConfig()
    """For methods boxes and regions."""
    image_augmentation: AugmentationConfig = AugmentationConfig(crop_scale=None, careful_flip=True)
    """For method heat, which knows no boxes that a crop could keep."""
