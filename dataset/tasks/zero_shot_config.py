"""Settings of what is told apart without training."""

from typing import Annotated, Literal

from pydantic import Field

from common.settings import Settings
from dataset.tasks.sources_config import ImageFolderSource, TorchvisionSource


class ZeroShotClasses(Settings):
    """Images, and names of classes to choose from."""

    kind: Literal["classes"] = "classes"
    source: Annotated[ImageFolderSource | TorchvisionSource, Field(discriminator="kind")]
    """Where the images are, see the task classification."""
    split: str = "test"
    class_names: str | None = None
    """Text file: the name of a class a line, in the order of the classes; synonyms are separated by commas. null: the source's own names,
    of which _ is read as a space."""
    templates: str | list[str] = ["a photo of a {}."]
    """Sentences with {} for the name; or a text file of them, one a line."""
    ensemble: Literal["mean", "max"] = "mean"
    """See `models.tasks.zero_shot`."""
    test_crop: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """As in the task classification."""


class ZeroShotAttributes(Settings):
    """Objects with attributes, in the layout of OVAD."""

    kind: Literal["attributes"] = "attributes"
    annotations: str
    """JSON file: {images, attributes, annotations}."""
    image_root: str
    """The folder that its file names are relative to."""
    protocol: Literal["crop", "region"] = "crop"
    """crop: each object is cut out and encoded by itself, as published. region: whole images are encoded once, and an object is the mean of
    the patches under its box, as in pre-training."""
    noun: str = ""
    """What sentences call an object."""
    ensemble: Literal["mean", "max"] = "max"
    """max as published."""


class ZeroShotTexts(Settings):
    """How prompts are read."""

    max_words: Annotated[int, Field(gt=0)] = 30
    punctuation: Literal["space", "delete"] = "space"
    """As in the data of other tasks."""


ZeroShotData = Annotated[ZeroShotClasses | ZeroShotAttributes, Field(discriminator="kind")]
