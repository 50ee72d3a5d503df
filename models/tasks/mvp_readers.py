"""MVP in the tasks (arXiv 2201.12596, section 4): models that take images and token ids as other models do, and are asked as those are.

Every image is read as the same regions, cells of it, and without tags. Texts come with their phrases behind the words.

Shapes: B images, R texts, L text positions, V regions, M pairs, S tokens of the pairs' texts together, H width, A answers, C classes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from common.distributed import GradientMode
from models.adopting import without_other_head
from models.candidates import Laid, to_device
from models.config import ModelConfig
from models.mvp.config import MvpConfig
from models.mvp.model import Mvp
from models.mvp.pixels import PixelEncoders, mvp_config
from models.objectives.answers import soft_scores
from models.objectives.matching import inseparable
from models.tasks.base import Batch, Task
from models.tasks.classification import HeadConfig, MvpClassifier
from models.tasks.contrast import DIRECT, Contrast
from models.tasks.mvp import mvp_losses
from models.tasks.mvp_retrieval import MvpRetriever
from models.tasks.mvp_vqa import vqa_logits, vqa_loss, vqa_states
from models.tasks.vqa import LOSS

OWN_HEADS = "mvp.cls_head."
LIKE_WORDS = {f"mvp.vqa_head.{part}": f"mvp.mlm_head.{part}" for part in ("dense.weight", "dense.bias", "norm.weight", "norm.bias")}
"""What a new head for answers starts from (as published, but for the rows of the answers, which start fresh)."""


@dataclass(frozen=True)
class ImageReading:
    """What is read with every image alike."""

    cells: tuple[tuple[float, float, float, float], ...]
    """Its V regions: left, top, right, bottom as shares of the image."""
    tag_ids: tuple[int, int]
    """[CLS] and [SEP], between which there are no tags."""


class PixelReader(PixelEncoders):
    """What the models of all tasks do with images.

    Args:
        config: of the model.
        reading: see `ImageReading`.
        build: from the sizes of MVP's encoders to these with the task's head.
        answers: of a head that chooses one.
    """

    def __init__(self, config: ModelConfig, reading: ImageReading, build: Callable[[MvpConfig], Mvp], answers: int | None = None) -> None:
        super().__init__(config, lambda: build(mvp_config(config, True, answers)))
        self.register_buffer("cells", torch.tensor(reading.cells), persistent=False)
        self.register_buffer("tag_ids", torch.tensor(reading.tag_ids), persistent=False)

    def adopt(self, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        """Which tensor of a file each of the model's starts from (`models.adopting`): all but a head for other labels."""
        return {name: name for name in without_other_head(tensors, self, OWN_HEADS)}

    def concepts(self, batch: Batch) -> Batch:
        """A batch with `image` [B, 3, S, S] as models/tasks/mvp.py names what is seen: tag_ids, tag_mask, regions, region_mask."""
        images = len(batch["image"])
        cells = self.get_buffer("cells").to(self.mvp.dtype).expand(images, -1, -1)
        tags = self.get_buffer("tag_ids").expand(images, -1)
        seen = {"region_boxes": cells, "tag_ids": tags, "tag_mask": torch.ones_like(tags, dtype=torch.bool)}
        return self.with_regions({**batch, **seen, "region_mask": torch.ones(cells.shape[:2], dtype=torch.bool, device=cells.device)})


class RetrievalReader(PixelReader):
    """With the heads of retrieval; asked as `VisionLanguageModel` is in ranking. Tokens of an image are the state that stands for it and
    those of its regions."""

    def __init__(self, config: ModelConfig, reading: ImageReading) -> None:
        super().__init__(config, reading, MvpRetriever)

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return self.mvp.dtype

    def encode_images(self, images: Tensor) -> Tensor:
        """Images [B, 3, S, S] to tokens [B, 1+V, H]."""
        seen = self.concepts({"image": images})
        tags, regions = self.mvp.encode_image(seen["tag_ids"], seen["tag_mask"], seen["regions"], seen["region_mask"])
        return torch.cat([tags[:, :1], regions], dim=1)

    def encode_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids [R, L] with mask [R, L] to states [R, L, H]."""
        return self.mvp.encode_text(ids, mask)

    def image_features(self, tokens: Tensor) -> Tensor:
        """Contrastive features [B, H] of the first token [B, H] of images."""
        return self.mvp.image_features(tokens[:, None])

    def text_features(self, states: Tensor) -> Tensor:
        """Contrastive features [R, H] of text states [R, L, H]."""
        return self.mvp.text_features(states)

    def context(self, tokens: Tensor) -> Tensor:
        """What of an image's tokens [B, 1+V, H] texts are matched with: its regions [B, V, H]."""
        return tokens[:, 1:]

    def match_candidates(self, images: Tensor, tokens: Tensor, lengths: Tensor, counts: Tensor) -> Tensor:
        """Matching logits (class 1) of images with their candidate texts; see `models.candidates.match_candidates`.

        Args:
            images: [B, V, H] regions of the images.
            tokens: [S, H] packed states of the texts, the first image's candidates first.
            lengths: [M] tokens of each text; on the CPU.
            counts: [B] candidates of each image; on the CPU.

        Returns:
            [M] logits.
        """
        rows, mask = Laid.of(lengths, tokens.device)
        text = rows.padded(tokens)  # [M, L, H]
        inside = torch.ones(text.shape[:2], dtype=torch.bool, device=tokens.device) if mask is None else mask[:, 0, 0]
        seen = images.repeat_interleave(to_device(counts, tokens.device), dim=0, output_size=len(lengths))  # [M, V, H]
        assert isinstance(self.mvp, MvpRetriever), "built as one"
        return self.mvp.match(text, inside, seen, torch.ones(seen.shape[:2], dtype=torch.bool, device=tokens.device))[:, 1]


class AnswerReader(PixelReader):
    """With a head that chooses among so many answers; asked as `AnsweringModel` is."""

    def __init__(self, config: ModelConfig, reading: ImageReading, answers: int) -> None:
        super().__init__(config, reading, lambda sizes: Mvp(sizes, ("vqa",)), answers)

    def adopt(self, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        """As of all; a head for answers that the file lacks starts from the one that predicts words."""
        given = without_other_head(tensors, self, "mvp.vqa_head.")
        starts = {name: origin for name, origin in LIKE_WORDS.items() if name not in given and origin in given}
        return {name: name for name in given} | starts

    def class_logits(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits [B, A] of questions, token ids [B, L] with mask [B, L], about images [B, 3, S, S]."""
        batch = self.concepts({"image": images, "text_ids": ids, "text_mask": mask})
        return vqa_logits(self.mvp, vqa_states(self.mvp, batch))


class LabelReader(PixelReader):
    """With a linear head over labels; asked as `Classifier` is."""

    def __init__(self, config: ModelConfig, reading: ImageReading, head: HeadConfig) -> None:
        super().__init__(config, reading, lambda sizes: MvpClassifier(sizes, head.classes))
        self.head = head

    def logits(self, batch: Batch) -> Tensor:
        """Logits [B, C] of texts, text_ids and text_mask [B, L], with an image [B, 3, S, S] each."""
        assert isinstance(self.mvp, MvpClassifier), "built as one"
        return self.mvp.logits(self.concepts(batch))


class StatementReader(PixelReader):
    """With a linear head over the pooled pairs of a text with its first and its second image; asked as `PairModel` is."""

    def __init__(self, config: ModelConfig, reading: ImageReading) -> None:
        super().__init__(config, reading, lambda sizes: MvpClassifier(sizes, 2, images=2))

    def statement_logits(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits [R, 2]; class 1: the statement is true. Images [2R, 3, S, S], all first ones before the second; token ids [R, L]."""
        mvp, seen = self.mvp, self.concepts({"image": images})
        assert isinstance(mvp, MvpClassifier), "built as one"
        _, regions = mvp.encode_image(seen["tag_ids"], seen["tag_mask"], seen["regions"], seen["region_mask"])
        text = mvp.encode_text(ids, mask).repeat(2, 1, 1)  # [2R, L, H]
        pooled = mvp.pool(mvp.fuse(text, mask.repeat(2, 1), regions, seen["region_mask"])[-1])  # [2R, H]
        return mvp.cls_head(mvp.dropout(torch.cat(pooled.chunk(2), dim=-1)))


class MvpRetrieval(Task):
    """Fine-tuning for retrieval: batches as of `models.tasks.retrieval.Retrieval`."""

    model: RetrievalReader  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, config: ModelConfig, reading: ImageReading, weights: Mapping[str, float], mode: GradientMode) -> None:
        super().__init__()
        assert config.mvp is not None, "a recipe of MVP has model.mvp"
        self.model = RetrievalReader(config, reading)  # pyright: ignore[reportIncompatibleVariableOverride]
        self.learning = config.mvp.learning
        self.mode: GradientMode = mode
        self.weights = {f"train/{name}": weight for name, weight in weights.items()}

    def forward(self, batches: Mapping[str, Batch], contrast: Contrast = DIRECT) -> dict[str, Tensor]:
        """Losses of one micro-batch of pairs, as "train/itc" and "train/itm"; pairs are compared within it, see `ConceptPretraining`."""
        batch = self.model.concepts(batches["train"])
        # a sum without its whole part is uniform and says nothing of either summand, each of which chooses a wrong partner
        sides = {"side_draws": batch["negative_draws"].sum(dim=1) % 1.0}
        losses = mvp_losses(self.model.mvp, {**batch, **sides}, ("itc", "itm"), self.learning, self.mode)
        return {f"train/{name}": value for name, value in losses.items()}

    def row_counts(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        """See `Task.row_counts`: true pairs, and a wrong one for each that has any."""
        if self.mode == "paper":
            return {}
        batch = batches["train"]
        partnered = (~inseparable(batch["sample_ids"], batch["group"])).any(dim=1)  # [R]
        return {"train/itm": len(partnered) + partnered.sum()}


class MvpAnswering(Task):
    """Fine-tuning on questions, of which each answer is learned by its score: batches as of `models.tasks.vqa.VQA` with classes."""

    model: AnswerReader  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, config: ModelConfig, reading: ImageReading, answers: int) -> None:
        super().__init__()
        self.model = AnswerReader(config, reading, answers)  # pyright: ignore[reportIncompatibleVariableOverride]
        self.weights = {LOSS: 1.0}

    def forward(self, batches: Mapping[str, Batch], contrast: Contrast = DIRECT) -> dict[str, Tensor]:
        """Loss of one micro-batch, as "train/answer"."""
        batch = batches["train"]
        logits = self.model.class_logits(batch["image"], batch["text_ids"], batch["text_mask"])
        scores = soft_scores(batch["answer_labels"], batch["answer_owner"], batch["answer_weights"], logits.shape)
        return {LOSS: vqa_loss(logits, {"answer_scores": scores})}
