"""Settings of referring expressions."""

from typing import Literal

from common.settings import Settings
from dataset.config import AugmentationConfig, BoxAugmentationConfig, TaskData
from dataset.text import Punctuation


class ReferSettings(Settings):
    """A data set in REFER's own layout: FOLDER/refs(SPLIT_BY).p and FOLDER/instances.json."""

    folder: str
    """Such as refcoco, refcoco+ or refcocog."""
    split_by: Literal["unc", "google", "umd"] = "unc"
    """Whose splits: unc has val, testA and testB, umd val and test, google val alone."""


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
    """JSON file of a detector's boxes by number of the image, {"581857": [[x, y, w, h, ...], ...]}: what method heat chooses among. null:
    the `candidates` of the records, where they have any."""
    punctuation: Punctuation = "space"
    """What becomes of punctuation: a space, or nothing (X-VLM)."""
    augmentation: BoxAugmentationConfig = BoxAugmentationConfig()
    """For method boxes."""
    image_augmentation: AugmentationConfig = AugmentationConfig(crop_scale=None, careful_flip=True)
    """For method heat, which knows no boxes that a crop could keep."""
