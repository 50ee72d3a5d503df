"""Captioning (X-VLM section 4.4; X2-VLM section 4.2): language modelling with an image in view, and self-critical training after it.

Shapes: B images, K samples of each, L tokens, J predicted places, T tokens written, P tokens of the prompt, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from common.distributed import GradientMode
from common.labels import IGNORED
from models.captioning import CaptioningModel, Prediction, Writer, interleaved, visible
from models.config import ModelConfig
from models.generation import BeamSettings, Sampled, Written, beam_search, sample
from models.objectives.captions import caption_loss, masked_caption_loss, self_critical_loss, token_scores
from models.tasks.base import Batch, Task
from models.tasks.contrast import DIRECT, Contrast

LOSS = "train/caption"
Baseline = Literal["greedy", "samples"]
"""What a caption's reward is compared with. greedy: that of the caption of the likeliest tokens (X-VLM). samples: the mean of the image's
other samples."""


@dataclass(frozen=True)
class WritingSettings:
    """Who writes and how it is taught."""

    writer: Writer = "encoders"
    prediction: Prediction = "causal"
    smoothing: float = 0.1
    """Share of every label that is spread over the vocabulary."""


class Captioning(Task):
    """Language modelling with an image in view.

    Args:
        config: of the model.
        settings: see there.
        mode: see `GradientMode`.

    Keys of a batch (dataset/tasks/captioning.py): image; text_ids, text_places, text_inserted [B, L]; predict_positions, predict_labels
    [B, J]. Of one with text_ids and text_mask alone, a pre-training stream's, every token is predicted.
    """

    def __init__(self, config: ModelConfig, settings: WritingSettings, mode: GradientMode) -> None:
        super().__init__()
        self.model = CaptioningModel(config, settings.writer)
        self.settings = settings
        self.mode: GradientMode = mode
        self.weights = {LOSS: 1.0}

    @property
    def captioning(self) -> CaptioningModel:
        """The model, by its own type."""
        assert isinstance(self.model, CaptioningModel), "built as one"
        return self.model

    def forward(self, batches: Mapping[str, Batch], contrast: Contrast = DIRECT) -> dict[str, Tensor]:
        """Loss of one micro-batch, as "train/caption"."""
        batch, model, settings = with_places(batches["train"]), self.captioning, self.settings
        images = model.encode_images(batch["image"])
        states = model.read(images, batch["text_ids"], visible(batch["text_inserted"]), batch["text_places"])
        logits, labels = model.logits_at(states, batch["predict_positions"]), batch["predict_labels"]
        if settings.prediction == "masked" and settings.smoothing:
            return {LOSS: masked_caption_loss(logits, labels, settings.smoothing, batch["text_ids"][0, :1], self.mode)}
        return {LOSS: caption_loss(logits, labels, settings.smoothing, self.mode)}

    def row_counts(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        """The predicted tokens."""
        return {} if self.mode == "paper" else {LOSS: (with_places(batches["train"])["predict_labels"] != IGNORED).sum()}


def with_places(batch: Batch) -> Batch:
    """A batch of whole captions without anything hidden: every token but the first is predicted from those before it."""
    if "predict_positions" in batch:
        return batch
    ids, mask = batch["text_ids"], batch["text_mask"].bool()
    places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    labels = ids[:, 1:].masked_fill(~mask[:, 1:], IGNORED)
    inserted = torch.zeros_like(mask)
    return {**batch, "text_places": places, "text_inserted": inserted, "predict_positions": places[:, :-1], "predict_labels": labels}


@dataclass(frozen=True)
class Describer:
    """Writes captions.

    Attributes:
        prompt: ids of what every caption begins with, the start token first.
        end: the token that closes a caption.
        mask: [MASK], where the next token is predicted at one; None: it is predicted at the last token.
    """

    prompt: tuple[int, ...]
    end: int
    mask: int | None

    def prompts(self, images: Tensor) -> Tensor:
        """[B, P] for image tokens [B, ..]."""
        return torch.tensor([self.prompt], device=images.device).expand(len(images), -1)

    def write(self, model: CaptioningModel, images: Tensor, settings: BeamSettings) -> Written:
        """The likeliest captions of images, tokens [B, ..]."""
        return beam_search(model.reader(images, self.mask), self.prompts(images), self.end, settings)

    def draw(self, model: CaptioningModel, images: Tensor, count: int, max_length: int, temperature: float) -> Sampled:
        """Random captions of images, tokens [B, ..]."""
        return sample(model.reader(images, self.mask), self.prompts(images), self.end, count, max_length, temperature)

    def scores(self, model: CaptioningModel, images: Tensor, tokens: Tensor) -> Tensor:
        """Log-probabilities [B, K, T] of captions [B, K, T], with gradient."""
        flat = tokens.flatten(0, 1)
        prompt = self.prompts(images)[:1].expand(len(flat), -1)
        if self.mask is not None:
            ids, places, inserted, positions = interleaved(prompt, flat, self.mask)
        else:
            ids = torch.cat([prompt, flat[:, :-1]], dim=1)
            places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
            inserted, positions = torch.zeros_like(ids, dtype=torch.bool), places[:, prompt.shape[1] - 1 :]
        states = model.read(images, ids, visible(inserted), places)
        return token_scores(model.logits_at(states, positions), flat).view(tokens.shape)


class Reward(Protocol):
    """Tells how good captions are, and knows the tokens they are made of."""

    @property
    def describer(self) -> Describer:
        """What writes them."""
        ...

    def __call__(self, tokens: Tensor, images: Tensor) -> Tensor:
        """Rewards [B, K] of captions [B, K, T] of images by number [B]; on the captions' device."""
        ...


@dataclass(frozen=True)
class SelfCriticalSettings:
    """How captions are drawn and judged."""

    samples: int = 5
    baseline: Baseline = "greedy"
    max_length: int = 16
    """Most tokens of a caption, its end included."""
    temperature: float = 1.0


class SelfCritical(Captioning):
    """Self-critical sequence training: captions are drawn, and those that earn more than the baseline become likelier.

    Drawing takes no gradient; the captions are then read at once, as in language modelling, so that the gradient passes through the usual
    forward pass and is summed over ranks like any other. Texts have no dropout, so that what is scored is what was drawn from.

    Keys of a batch: image; image_index int64 [B], the number by which the reward knows the image.
    """

    def __init__(
        self, config: ModelConfig, settings: WritingSettings, mode: GradientMode, drawing: SelfCriticalSettings, reward: Reward
    ) -> None:
        without = config.model_copy(update={"text": config.text.model_copy(update={"dropout": 0.0})})
        super().__init__(without, settings, mode)
        self.drawing, self.reward = drawing, reward

    def forward(self, batches: Mapping[str, Batch], contrast: Contrast = DIRECT) -> dict[str, Tensor]:
        """Loss of one micro-batch, as "train/caption"."""
        batch, model, drawing, describer = batches["train"], self.captioning, self.drawing, self.reward.describer
        images = model.encode_images(batch["image"])
        drawn = describer.draw(model, images.detach(), drawing.samples, drawing.max_length, drawing.temperature)
        rewards = self.reward(drawn.tokens, batch["image_index"])  # [B, K]
        if drawing.baseline == "greedy":
            likeliest = describer.write(model, images.detach(), BeamSettings(1, drawing.max_length))
            baseline = self.reward(likeliest.tokens[:, None], batch["image_index"])  # [B, 1]
        else:
            baseline = (rewards.sum(dim=1, keepdim=True) - rewards) / (drawing.samples - 1)
        scores = describer.scores(model, images, drawn.tokens)
        return {LOSS: self_critical_loss(scores, drawn.mask, rewards - baseline)}

    def row_counts(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        """All images count."""
        return {}
