"""Settings of streams whose texts have no images, and whose images have no texts."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from dataset.config import AugmentationConfig, MaskingConfig, PatchMaskingConfig, Positive, TrainingStream, known_objectives


class TextStream(TrainingStream):
    """Documents. Records of tar shards and JSON lines: {"text": text or list of texts}; of plain text files (.txt): one a line."""

    kind: Literal["text"] = "text"
    text_key: str = "text"
    """The annotation key that holds the document, or several to pick from."""
    max_tokens: Annotated[int, Field(ge=4)] = 128
    """Length of a row, [CLS] and [SEP] counted. Of a longer document each visit reads another part."""
    objectives: dict[str, float] = {"text_mlm": 1.0}
    """Objective -> weight: text_mlm, masked language modelling by the text encoder alone."""
    masking: MaskingConfig = MaskingConfig(probability=0.15, max_masks=20)

    @field_validator("objectives")
    @classmethod
    def _known(cls, objectives: dict[str, float]) -> dict[str, float]:
        return known_objectives(objectives, ("text_mlm",))


class ImageStream(TrainingStream):
    """Images without texts, such as ImageNet's. What annotations say is not looked at."""

    kind: Literal["image"] = "image"
    image_key: str = "binary"
    """JSON-lines files only: the key that holds the image, base64 or a path."""
    image_root: str | None = None
    """JSON-lines files only: the folder that image paths are relative to; null: images are base64."""
    max_pixels: Positive = 64_000_000
    """Images with more pixels are refused before they are decoded."""
    objectives: dict[str, float] = {"mim": 1.0}
    """Objective -> weight: mim."""
    augmentation: AugmentationConfig = AugmentationConfig()
    patch_masking: PatchMaskingConfig = PatchMaskingConfig()

    @field_validator("objectives")
    @classmethod
    def _known(cls, objectives: dict[str, float]) -> dict[str, float]:
        return known_objectives(objectives, ("mim",))
