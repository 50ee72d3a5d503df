"""Classification of images, of texts, or of texts with an image in view, by one head (X2-VLM's XVLMForClassification, X-FM section 4,
CCLM on XVNLI, MVP on SNLI-VE).

Shapes: R rows, N patches, L text tokens, D vision width, H text width, C classes.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from common.distributed import GradientMode
from common.settings import Settings
from models.adopting import without_other_head
from models.config import ModelConfig
from models.heads import deep_head, mlp_head
from models.mvp.config import MvpConfig
from models.mvp.layers import initialize
from models.mvp.model import Mvp, MvpHead
from models.objectives.classification import classification_loss
from models.tasks.base import Batch, Task
from models.tasks.contrast import DIRECT, Contrast
from models.vlm import FusionPass, VisionLanguageModel


class HeadConfig(Settings):
    """What is classified, and how."""

    classes: int
    """Number of labels."""
    inputs: Literal["image", "text", "image_text"] = "image_text"
    """What a row is: an image or clip, a text, or a text with an image or clip."""
    image_feature: Literal["global", "global_and_mean"] = "global"
    """What of an image alone is classified: its global token (X2-VLM), or that and the mean of its patches side by side (X-FM)."""
    text_layers: Literal["text", "all"] = "text"
    """Which layers a text alone passes: the text encoder (X-FM), or the fusion layers as well, without their attention to images (X2-VLM,
    whose text encoder is the lower part of BERT)."""
    depth: Literal["shallow", "deep"] = "shallow"
    """The head: two linear layers as usual, or five (X-FM on ImageNet)."""


class Classifier(VisionLanguageModel):
    """Encoders, and `cls_head` over what stands for a row. Parts that the kind of input leaves idle get no gradient."""

    def __init__(self, config: ModelConfig, head: HeadConfig) -> None:
        super().__init__(config, ())
        self.head = head
        width = config.text.width
        if head.inputs == "image":
            width = config.vision.width * (2 if head.image_feature == "global_and_mean" else 1)
        self.cls_head = (deep_head if head.depth == "deep" else mlp_head)(width, head.classes)
        for part in self._idle():
            part.requires_grad_(False)

    def _idle(self) -> list[nn.Module]:
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
            tokens = self.encode_images(batch["image"])
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
        return self.cls_head(self.states(batch))


class MvpClassifier(Mvp):
    """MVP with a linear head over the pooled pair (section 4.3 of the paper: SNLI-VE)."""

    def __init__(self, config: MvpConfig, classes: int, heads: tuple[MvpHead, ...] = ()) -> None:
        super().__init__(config, heads)
        self.pooler = nn.Linear(config.width, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.cls_head = nn.Linear(config.width, classes)
        for module in (self.pooler, self.cls_head):
            initialize(module)

    def logits(self, batch: Batch) -> Tensor:
        """Logits [R, C]; batch with text_ids, text_mask, tag_ids, tag_mask, regions, region_mask and, where there are any, text_types and
        tag_types (models/tasks/mvp.py). Tags are read by the visual encoder and left out of the joint one."""
        text = self.encode_text(batch["text_ids"], batch["text_mask"], batch.get("text_types"))
        _, regions = self.encode_image(batch["tag_ids"], batch["tag_mask"], batch["regions"], batch["region_mask"], batch.get("tag_types"))
        joint = self.fuse(text, batch["text_mask"], regions, batch["region_mask"])[-1]
        return self.cls_head(self.dropout(self.pool(joint)))


class Classification(Task):
    """Fine-tuning on labelled rows: batches as for `Classifier.states`, and label int64 [R], IGNORED where a row has none."""

    model: Classifier  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, config: ModelConfig, head: HeadConfig, mode: GradientMode) -> None:
        super().__init__()
        self.model = Classifier(config, head)  # pyright: ignore[reportIncompatibleVariableOverride]
        self.weights = {"train/cls": 1.0}
        self.mode: GradientMode = mode

    def forward(self, batches: Mapping[str, Batch], contrast: Contrast = DIRECT) -> dict[str, Tensor]:
        """Loss of one micro-batch, as "train/cls"."""
        batch = batches["train"]
        return {"train/cls": classification_loss(self.model.logits(batch), batch["label"], self.mode)}


@torch.no_grad()
def predict_classes(model: Classifier, batch: Batch) -> Tensor:
    """Probabilities [R, C] of the classes; batch as for `Classifier.states`."""
    return model.logits(batch).float().softmax(dim=-1)
