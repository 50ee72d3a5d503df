"""Classification of images, of texts, or of texts with an image in view, by one head (X2-VLM's XVLMForClassification, X-FM section 4,
CCLM on XVNLI, MVP on SNLI-VE).

Shapes: R rows, N patches, L text tokens, D vision width, H text width, C classes.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Protocol, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor, nn

from common.distributed import GradientMode
from common.settings import Settings
from models.adopting import without_other_head
from models.config import ModelConfig
from models.heads import HEAD_DEPTHS, HeadDepth
from models.mvp.config import MvpConfig
from models.mvp.layers import initialize
from models.mvp.model import Mvp, MvpHead
from models.objectives.classification import classification_loss, regression_loss
from models.objectives.mixing import mix_images
from models.tasks.base import Batch, Task
from models.tasks.contrast import DIRECT, Contrast
from models.vision.normalize import PixelStatistics, normalize_images
from models.vlm import FusionPass, VisionLanguageModel


class HeadConfig(Settings):
    """What is classified, and how."""

    classes: int
    """Number of labels; 1 where a number is learned."""
    target: Literal["class", "number"] = "class"
    """What a record's label is: one of the classes, or a number to learn by the squared error (STS-B)."""
    inputs: Literal["image", "text", "image_text"] = "image_text"
    """What a row is: an image or clip, a text, or a text with an image or clip."""
    image_feature: Literal["global", "global_and_mean"] = "global"
    """What of an image alone is classified: its global token (X2-VLM), or that and the mean of its patches side by side (X-FM)."""
    text_layers: Literal["text", "all"] = "text"
    """Which layers a text alone passes: the text encoder (X-FM), or the fusion layers as well, without their attention to images (X2-VLM,
    whose text encoder is the lower part of BERT)."""
    depth: HeadDepth = "shallow"
    """The head: two linear layers as usual, five (deep: X-FM on images), or a single one (linear)."""
    frozen: bool = False
    """Train the head alone, on features of encoders that stay in evaluation mode: with depth linear, a linear probe."""
    pixels: PixelStatistics = "clip"
    """What the pixels of images alone are normalised with: clip, as in pre-training; imagenet or half (0.5), as X-FM's fine-tuning."""


class ClassLoss(Settings):
    """What is done to labels and images in training, besides augmentation."""

    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the target that is spread evenly over all classes."""
    mixup: Annotated[float, Field(ge=0.0)] = 0.0
    """Parameter of Mixup; 0: none. For images alone."""
    cutmix: Annotated[float, Field(ge=0.0)] = 0.0
    """Parameter of CutMix; 0: none. With both, one of the two by the toss of a coin, a step at a time."""


class Classifier(VisionLanguageModel):
    """Encoders, and `cls_head` over what stands for a row. Parts that the kind of input leaves idle get no gradient."""

    def __init__(self, config: ModelConfig, head: HeadConfig) -> None:
        super().__init__(config, ())
        self.head = head
        width = config.text.width
        if head.inputs == "image":
            width = config.vision.width * (2 if head.image_feature == "global_and_mean" else 1)
        self.cls_head = HEAD_DEPTHS[head.depth](width, head.classes)
        for part in self._idle():
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> "Classifier":
        """As of any module; what is frozen stays in evaluation mode, so that a probe's features have neither dropout nor dropped layers."""
        super().train(mode and not self.head.frozen)
        self.cls_head.train(mode)
        self.training = mode
        return self

    def _encoders(self) -> list[nn.Module]:
        """All but the head."""
        return [part for part in (self.vision, self.frames, self.text, self.fusion) if part is not None]

    def _idle(self) -> list[nn.Module]:
        if self.head.frozen:
            return self._encoders()
        match self.head.inputs:
            case "image":
                return [self.text, self.fusion]
            case "text":
                images: list[nn.Module] = [self.vision] if self.frames is None else [self.vision, self.frames]
                if self.head.text_layers == "text":
                    return [*images, self.fusion]
                return images + [part for layer in self.fusion.blocks() for part in (layer.cross_attention, layer.cross_attention_norm)]
            case "image_text":
                return []

    def adopt(self, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        """Which tensor of a file each of the model's starts from (`models.adopting`): all but a head for other labels."""
        return {name: name for name in without_other_head(tensors, self)}

    def states(self, batch: Batch) -> Tensor:
        """What stands for each row: [R, H], or [R, D] or [R, 2D] of images alone.

        Args:
            batch: image [R, 3, S, S] or [R, T, 3, S, S], or text_ids and text_mask [R, L], or both.
        """
        if "text_ids" not in batch:
            tokens = self.encode_images(normalize_images(batch["image"], self.dtype, self.head.pixels))
            mean = [tokens[:, 1:].mean(dim=1)] if self.head.image_feature == "global_and_mean" else []
            return torch.cat([tokens[:, 0], *mean], dim=-1)
        mask = batch["text_mask"]
        text = self.encode_text(batch["text_ids"], mask)
        if "image" not in batch and self.head.text_layers == "text":
            return text[:, 0]
        context = self.context(self.encode_images(batch["image"])) if "image" in batch else None
        return self.fuse(context, [FusionPass(text, mask, None, pooled=True)])[0][:, 0]

    def logits(self, batch: Batch) -> Tensor:
        """Logits [R, C]; batch as for `states`."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.head.frozen):
            states = self.states(batch)
        return self.cls_head(states)


class MvpClassifier(Mvp):
    """MVP with a linear head over the pooled pair (section 4.3 of the paper: SNLI-VE), or over a text's pairs with several images."""

    def __init__(self, config: MvpConfig, classes: int, heads: tuple[MvpHead, ...] = (), images: int = 1) -> None:
        super().__init__(config, heads)
        self.pooler = nn.Linear(config.width, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.cls_head = nn.Linear(images * config.width, classes)
        for module in (self.pooler, self.cls_head):
            initialize(module)

    def logits(self, batch: Batch) -> Tensor:
        """Logits [R, C]; batch with text_ids, text_mask, tag_ids, tag_mask, regions, region_mask and, where there are any, text_types and
        tag_types (models/tasks/mvp.py). Tags are read by the visual encoder and left out of the joint one."""
        text = self.encode_text(batch["text_ids"], batch["text_mask"], batch.get("text_types"))
        _, regions = self.encode_image(batch["tag_ids"], batch["tag_mask"], batch["regions"], batch["region_mask"], batch.get("tag_types"))
        joint = self.fuse(text, batch["text_mask"], regions, batch["region_mask"])[-1]
        return self.cls_head(self.dropout(self.pool(joint)))


@runtime_checkable
class Classifying(Protocol):
    """A model that gives logits of labels."""

    head: HeadConfig

    def logits(self, batch: Batch) -> Tensor:
        """Logits [R, C] of a batch."""
        ...


class Classification(Task):
    """Fine-tuning on labelled rows: batches as for `Classifier.states`, and label int64 [R], IGNORED where a row has none; or label
    float32 [R] of numbers."""

    model: Classifying

    def __init__(
        self, config: ModelConfig, head: HeadConfig, mode: GradientMode, loss: ClassLoss | None = None, model: Classifying | None = None
    ) -> None:
        """`model`: another one than that of `Classifier`."""
        super().__init__()
        self.model = Classifier(config, head) if model is None else model  # pyright: ignore[reportIncompatibleVariableOverride]
        self.loss = ClassLoss() if loss is None else loss
        self.weights = {"train/cls": 1.0}
        self.mode: GradientMode = mode

    def forward(self, batches: Mapping[str, Batch], contrast: Contrast = DIRECT) -> dict[str, Tensor]:
        """Loss of one micro-batch, as "train/cls"."""
        batch, loss = batches["train"], self.loss
        if self.model.head.target == "number":
            return {"train/cls": regression_loss(self.model.logits(batch), batch["label"], self.mode)}
        kept = 1.0
        if loss.mixup or loss.cutmix:
            assert isinstance(self.model, Classifier), "images alone are mixed, which other models do not read"
            pixels = normalize_images(batch["image"], self.model.dtype, self.model.head.pixels)
            mixed, kept = mix_images(pixels, loss.mixup, loss.cutmix)
            batch = {**batch, "image": mixed}
        logits, label = self.model.logits(batch), batch["label"]
        own = classification_loss(logits, label, self.mode, loss.label_smoothing)
        if kept == 1.0:
            return {"train/cls": own}
        partners = classification_loss(logits, label.flip(0), self.mode, loss.label_smoothing)
        return {"train/cls": kept * own + (1 - kept) * partners}


@torch.no_grad()
def predict_classes(model: Classifying, batch: Batch) -> Tensor:
    """Probabilities [R, C] of the classes, or values [R, 1] of the number; batch as for `Classifier.states`."""
    logits = model.logits(batch).float()
    return logits if model.head.target == "number" else logits.softmax(dim=-1)
