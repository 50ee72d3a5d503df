"""Statements about two images (NLVR2, MaRVL): is what the text says true of the pair?

Two ways of looking at both. X2-VLM (arXiv 2211.12402, section 4.2) and X-FM fuse the text with each image and classify both results side
by side. X-VLM (2111.08276, section 4.2) and the first CCLM fuse once in twice as many layers, which look at the first and the second image
by turns; the two layers of a pair share the projections of the images, so that these are computed once for both.

Shapes: R statements with two images each, B images with captions, P = 1+N visual tokens, L text tokens, D vision width, H text width.
"""

import re
from collections.abc import Mapping
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from common.distributed import GradientMode
from common.errors import UserError
from common.labels import IGNORED
from models.adopting import without_other_head
from models.config import ModelConfig
from models.context import SharedContext, SharedView
from models.heads import mlp_head
from models.objectives.classification import classification_loss
from models.objectives.matching import hard_negatives, inseparable
from models.tasks.base import Batch, Task
from models.tasks.contrast import DIRECT, Contrast
from models.vlm import FusionPass, VisionLanguageModel

PairFusion = Literal["concatenated", "alternating"]
PairHead = Literal["statement", "assignment"]
ASSIGNMENT_TEMPERATURE = 0.07
"""By which similarities of images are divided when text assignment draws wrong ones."""
ASSIGNMENTS = 3
"""The text belongs to the first image, to the second, to neither."""
LAYER = re.compile(r"^fusion\.layers\.(\d+)\.")
SHARED = (".cross_attention.key.", ".cross_attention.value.")
"""What the second layer of a pair has from the first."""


class PairModel(VisionLanguageModel):
    """A model that reads a text with two images in view; `cls_head` says whether it is true of them."""

    cls_head: nn.Sequential

    def states(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """What stands for each text with its two images.

        Args:
            images: [2R, 3, S, S] bytes or normalised; the first images of all texts, then the second ones.
            ids: [R, L] token ids.
            mask: [R, L] True for tokens.

        Returns:
            [R, H], or [R, 2H] where two results stand side by side.
        """
        return self.fuse_pairs(self.encode_images(images), self.encode_text(ids, mask), mask)

    def fuse_pairs(self, tokens: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """As `states`, of encoded images [2R, P, D] and texts [R, L, H]."""
        raise NotImplementedError

    def adopt(self, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        """Which tensor of a file each of the model's starts from (`models.adopting`): all but a head for other labels."""
        return {name: name for name in without_other_head(tensors, self)}

    def statement_logits(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits [R, 2]; class 1: the statement is true. Arguments as `states`."""
        return self.cls_head(self.states(images, ids, mask))


class ConcatenatedPairs(PairModel):
    """The text is fused with each image, and both results are classified together."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, ())
        self.cls_head = mlp_head(2 * config.text.width, 2)

    def fuse_pairs(self, tokens: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """See `PairModel`; [R, 2H]."""
        first = torch.arange(len(text), device=text.device)
        passes = [FusionPass(text, mask, view, pooled=True) for view in (first, len(text) + first)]
        return torch.cat(self.fuse(self.context(tokens), passes), dim=-1)[:, 0]


class AlternatingPairs(PairModel):
    """The text is fused once, in twice the configured number of layers: the first of each two looks at the first image, the second at the
    second, through the first's projections.

    Args:
        config: of the model that it starts from; `config.fusion.layers` counts pairs of layers.
        head: statement, or assignment for the domain pre-training before it (`TextAssignment`).
    """

    def __init__(self, config: ModelConfig, head: PairHead = "statement") -> None:
        pairs = {"layers": 2 * config.fusion.layers, "copy_text_layers": None}
        super().__init__(config.model_copy(update={"fusion": config.fusion.model_copy(update=pairs)}), ())
        self.config = config
        for second in self.fusion.blocks()[1::2]:
            del second.cross_attention.key, second.cross_attention.value
        if head == "statement":
            self.cls_head = mlp_head(config.text.width, 2)
        else:
            self.ta_head = nn.Linear(config.text.width, ASSIGNMENTS)
            self.vision_proj = nn.Linear(config.vision.width, config.projection_dim).requires_grad_(False)  # says only what is similar

    def fuse_pairs(self, tokens: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """See `PairModel`; [R, H]."""
        return self.fuse(self._pair_context(tokens), [FusionPass(text, mask, None, pooled=True)])[0][:, 0]

    def _pair_context(self, tokens: Tensor) -> SharedContext:
        """Keys and values of all layers of images [2R, P, D], as R views: layers see first and second images by turns."""
        views: list[SharedView] = []
        for layer in self.fusion.blocks()[::2]:
            pairs = zip(*(part.chunk(2) for part in layer.project(tokens)), strict=True)
            views += [SharedView(keys, values, None, None, None, None) for keys, values in pairs]
        return SharedContext(views)

    def adopt(self, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        """Which tensor of a file each of the model's starts from (`models.adopting`).

        Args:
            tensors: of a model with single fusion layers, each of which serves as two, or of one with pairs; by our names.

        Raises:
            UserError: the second layer of a pair has projections of its own.
        """
        tensors = without_other_head(tensors, self)
        depth = 1 + max((int(match[1]) for name in tensors if (match := LAYER.match(name))), default=-1)
        if depth > self.config.fusion.layers:
            return {name: name for name in tensors if not _is_shared(name, tensors)}
        origins = {name: name for name in tensors if not LAYER.match(name)}
        own = (name for name in self.state_dict() if LAYER.match(name))
        return origins | {name: origin for name in own if (origin := single_layer(name)) in tensors}


def _is_shared(name: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a tensor is the second layer's copy of a projection that it shares with the first; UserError if it is no copy."""
    match = LAYER.match(name)
    if match is None or int(match[1]) % 2 == 0 or not any(part in name for part in SHARED):
        return False
    first = tensors.get(LAYER.sub(f"fusion.layers.{int(match[1]) - 1}.", name))
    if first is not None and not first.is_meta and not torch.equal(first, tensors[name]):
        raise UserError(f"{name} is not that of the layer before it: the fusion layers of the file do not come in pairs for two images.")
    return True


def single_layer(name: str) -> str:
    """The name of a tensor of a pair of fusion layers in the model with single ones that it starts from; other names stay."""
    return LAYER.sub(lambda match: f"fusion.layers.{int(match[1]) // 2}.", name)


@runtime_checkable
class Judging(Protocol):
    """A model that judges statements about two images."""

    def statement_logits(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """See `PairModel`."""
        ...


def pair_model(config: ModelConfig, fusion: PairFusion) -> PairModel:
    """A new model for statements about two images, freshly initialised."""
    return AlternatingPairs(config) if fusion == "alternating" else ConcatenatedPairs(config)


class Nlvr(Task):
    """Fine-tuning on statements.

    Batches hold image [2R, 3, S, S] as `PairModel.states` takes them, text_ids, text_mask [R, L], and label [R], 1 for true statements.
    """

    model: Judging

    def __init__(self, config: ModelConfig, fusion: PairFusion, mode: GradientMode, model: Judging | None = None) -> None:
        """`model`: another one than that of `PairModel`."""
        super().__init__()
        self.model = pair_model(config, fusion) if model is None else model  # pyright: ignore[reportIncompatibleVariableOverride]
        self.weights = {"train/cls": 1.0}
        self.mode: GradientMode = mode

    def forward(self, batches: Mapping[str, Batch], contrast: Contrast = DIRECT) -> dict[str, Tensor]:
        """Loss of one micro-batch, as "train/cls"."""
        batch = batches["train"]
        logits = self.model.statement_logits(batch["image"], batch["text_ids"], batch["text_mask"])
        return {"train/cls": classification_loss(logits, batch["label"], self.mode)}


class TextAssignment(Task):
    """Domain pre-training of `AlternatingPairs` on images with captions: which of two images does the text belong to, if any?
    (X-VLM's code, before fine-tuning on NLVR2.)

    A third of the texts get their image first and a similar wrong one second, a third the other way round, a third two wrong ones.
    Batches are those of an `image_text` stream.
    """

    model: AlternatingPairs  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, config: ModelConfig, mode: GradientMode) -> None:
        super().__init__()
        self.model = AlternatingPairs(config, "assignment")  # pyright: ignore[reportIncompatibleVariableOverride]
        self.weights = {"train/assignment": 1.0}
        self.mode: GradientMode = mode

    def forward(self, batches: Mapping[str, Batch], contrast: Contrast = DIRECT) -> dict[str, Tensor]:
        """Loss of one micro-batch, as "train/assignment"."""
        batch = batches["train"]
        tokens = self.model.encode_images(batch["image"])
        with torch.no_grad(), torch.autocast(tokens.device.type, enabled=False):
            features = self.model.image_features(tokens[:, 0].to(self.model.dtype)).float()
            first, second, label = assign_images(features @ features.T / ASSIGNMENT_TEMPERATURE, batch)
        text = self.model.encode_text(batch["text_ids"], batch["text_mask"])
        states = self.model.fuse_pairs(torch.cat([tokens[first], tokens[second]]), text, batch["text_mask"])
        return {"train/assignment": classification_loss(self.model.ta_head(states), label, self.mode)}

    def row_counts(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        """See `Task.row_counts`."""
        if self.mode != "exact":
            return {}
        batch = batches["train"]
        wrong = (~inseparable(batch["sample_ids"], batch["group"])).sum(dim=1)  # [B] wrong images of each text
        return {"train/assignment": (wrong > (_kind(batch["negative_draws"]) == 2).long()).sum()}


def assign_images(similarity: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Two images for each text.

    Args:
        similarity: [B, B] of images, divided by the temperature: the more similar, the likelier a wrong image is drawn.
        batch: with sample_ids, group [B] and negative_draws [B, 2]: each row draws from its own numbers and within its group.

    Returns:
        Rows [B] of the first and of the second image, and label [B]: 0 the first one is right, 1 the second, 2 neither, IGNORED where
        the group has too few wrong images.
    """
    draws, rows = batch["negative_draws"], torch.arange(len(similarity), device=similarity.device)
    kind = _kind(draws)
    same = inseparable(batch["sample_ids"], batch["group"])
    # what the kind leaves of its draw is uniform again
    wrong, found = hard_negatives(similarity, same, (draws[:, 0] * ASSIGNMENTS - kind).clamp(0, 1))
    other, found_other = hard_negatives(similarity, same | (rows[None] == wrong[:, None]), draws[:, 1])
    first = torch.where(kind == 0, rows, wrong)
    second = torch.where(kind == 0, wrong, torch.where(kind == 1, rows, other))
    return first, second, torch.where(found & (found_other | (kind < 2)), kind, IGNORED)


def _kind(draws: Tensor) -> Tensor:
    """[B] 0, 1 or 2, equally often, of draws [B, 2]."""
    return (draws[:, 0] * ASSIGNMENTS).long().clamp(max=ASSIGNMENTS - 1)


@torch.no_grad()
def predict_statements(model: Judging, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Probability [R] that each statement is true; arguments as `PairModel.states`."""
    return model.statement_logits(images, ids, mask).float().softmax(dim=-1)[:, 1]
