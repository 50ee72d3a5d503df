"""Known data sets of labelled records."""

from typing import Annotated, Literal

from pydantic import Field

from common.settings import Settings


class ImageFolderSource(Settings):
    """Pictures in folders named after their classes: ROOT/train/CLASS/..., ROOT/val/CLASS/..., ROOT/test/CLASS/... (ImageNet's layout)."""

    kind: Literal["imagefolder"] = "imagefolder"
    root: str


class TorchvisionSource(Settings):
    """A data set that torchvision reads, see dataset/tasks/torchvision_sets.py for their names."""

    kind: Literal["torchvision"] = "torchvision"
    name: str
    root: str
    """The folder that torchvision's class is given; it looks for a folder of its own in it."""
    download: bool = False
    """Let torchvision fetch what is missing, where it can. Do so in one process, before several read."""
    validation_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Of sets without a validation split: the share of the training pictures that is held out as one, always the same."""


class GlueSource(Settings):
    """One of GLUE's tasks, with its public files. Its test labels are secret: report on validation, write predictions of test."""

    kind: Literal["glue"] = "glue"
    task: Literal["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte"]
    root: str
    """Holds CoLA, SST-2, MRPC, STS-B, QQP, MNLI, QNLI, RTE."""
    layout: Literal["tsv", "datasets"] = "tsv"
    """tsv: the official files. datasets: folders cola, sst2 ... that Hugging Face's datasets has saved to disk; needs that package."""


ClassSource = Annotated[ImageFolderSource | TorchvisionSource | GlueSource, Field(discriminator="kind")]
