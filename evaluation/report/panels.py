"""What a report shows of a model's work, as plain arrays and texts.

Images are uint8 [H, W, 3] RGB of any size; boxes are x, y, w, h in pixels of the image they are shown on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BoxPanel:
    """A text, the box predicted for it and, where it is known, the true one."""

    image: np.ndarray
    text: str
    predicted_xywh: Sequence[float]
    true_xywh: Sequence[float] | None = None
    iou: float | None = None
    """IoU of the two, 0 to 1."""
    heat: np.ndarray | None = None
    """[g, g] where the answer comes from, laid over the image; None: nothing is."""


@dataclass(frozen=True)
class RankedImage:
    """One retrieved image."""

    image: np.ndarray
    score: float
    correct: bool
    caption: str = ""
    """A caption of this image, shown so that a near miss can be told from a blunder."""


@dataclass(frozen=True)
class RetrievalPanel:
    """A query text and the images found for it, best first."""

    text: str
    images: Sequence[RankedImage]


@dataclass(frozen=True)
class AttentionPanel:
    """Where each word of a text looks in an image."""

    image: np.ndarray
    words: Sequence[str]
    maps: np.ndarray
    """[W, g, g] attention of each word over the patches, row-major from the upper left; any non-negative scale."""


@dataclass(frozen=True)
class AnswerPanel:
    """A question about an image, and its answer."""

    image: np.ndarray
    question: str
    answer: str
    confidence: float
    """0 to 1."""
    given: str = ""
    """The answer that most people gave; empty where it is not known."""
    score: float | None = None
    """How right the answer is, 0 to 1."""


@dataclass(frozen=True)
class LabelPanel:
    """A labelled record, such as a statement about two images, and the label that it was given."""

    images: Sequence[np.ndarray]
    """None for records of text alone."""
    text: str
    """Empty for images alone."""
    predicted: str
    confidence: float
    """0 to 1."""
    label: str
    """The true one."""


@dataclass(frozen=True)
class CaptionPanel:
    """An image and the caption written for it."""

    image: np.ndarray
    caption: str
    given: str = ""
    """What one person wrote; empty where it is not known."""
    score: float | None = None
    """Its CIDEr-D in percent."""


@dataclass(frozen=True)
class ReportPanels:
    """All pictures of a report; a section without pictures says what would fill it."""

    boxes: Sequence[BoxPanel] = ()
    retrieval: Sequence[RetrievalPanel] = ()
    attention: Sequence[AttentionPanel] = ()
    answers: Sequence[AnswerPanel] = ()
    labels: Sequence[LabelPanel] = ()
    captions: Sequence[CaptionPanel] = ()
