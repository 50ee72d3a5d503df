"""Two-stage retrieval on a gallery of images and captions."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dataset.tasks.retrieval import RetrievalGallery
from dataset.tokenizers import encode_texts
from engine.config.schema import RetrievalEvaluation
from engine.evaluators.base import Inputs, share_of
from evaluation.report import RankedImage, ReportPanels, RetrievalPanel
from evaluation.retrieval import chance_recall, recall_metrics
from models.tasks.retrieval import encode_gallery, rerank_images, rerank_texts
from models.vlm import VisionLanguageModel

SHOWN = 5
"""Retrieved images shown for a text."""


class RetrievalEvaluator:
    """Ranks texts for images and images for texts: by features, then the best again by the matching head."""

    def __init__(self, file: str, image_root: str, inputs: Inputs, settings: RetrievalEvaluation) -> None:
        """Open the gallery of a JSON file: [{image, caption: [text, ...]}], image paths relative to `image_root`."""
        self.gallery = RetrievalGallery(Path(file), Path(image_root), inputs.image_size)
        self.inputs = inputs
        self.settings = settings
        self.scores: Tensor | None = None

    def __call__(self, model: VisionLanguageModel) -> dict[str, float]:
        """TR and IR recall after re-ranking, and `itc_*` by features alone, in percent."""
        stop = self.inputs.interruption
        encoded = encode_gallery(model, self.inputs.stoppable(self._images()), self.inputs.stoppable(self._texts()), self.inputs.device)
        by_feature = encoded.similarity()  # [I, T]
        image_rows = rerank_texts(model, encoded, share_of(by_feature.shape[0]), self.settings.top_k, self.inputs.device, stop.beat)
        text_rows = rerank_images(model, encoded, share_of(by_feature.shape[1]), self.settings.top_k, self.inputs.device, stop.beat)
        for_images, for_texts = (torch.cat(stop.gather(rows)) for rows in (image_rows, text_rows))
        self.scores = for_texts
        owner = self.gallery.text_image
        first = recall_metrics(by_feature.numpy(), by_feature.T.numpy(), owner)
        second = recall_metrics(for_images.numpy(), for_texts.numpy(), owner)
        return second | {f"itc_{name}": value for name, value in first.items() if name in ("tr_r1", "ir_r1", "r_mean")}

    def baselines(self) -> dict[str, dict[str, float]]:
        """Chance."""
        chance = chance_recall(len(self.gallery.images), self.gallery.text_image)
        return {"chance": chance | {f"itc_{name}": chance[name] for name in ("tr_r1", "ir_r1", "r_mean")}}

    def panels(self, model: VisionLanguageModel, samples: int) -> ReportPanels:
        """The best images for some texts, evenly spread over the gallery."""
        assert self.scores is not None, "evaluation, which needs all ranks, comes first"
        texts = len(self.gallery.texts)
        chosen = np.linspace(0, texts - 1, min(samples, texts), dtype=int)
        return ReportPanels(retrieval=[self._panel(self.scores, text) for text in chosen])

    def _panel(self, scores: Tensor, text: int) -> RetrievalPanel:
        best = scores[text].topk(min(SHOWN, scores.shape[1]))
        ranked = [
            RankedImage(
                self.gallery.images[image].permute(1, 2, 0).numpy(),
                score,
                self.gallery.text_image[text] == image,
                self.gallery.texts[self.gallery.image_texts[image][0]],  # every image of a gallery has a caption
            )
            for image, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        return RetrievalPanel(self.gallery.texts[text], ranked)

    def _images(self) -> Iterator[Tensor]:
        return iter(DataLoader(self.gallery.images, batch_size=self.settings.batch_size))

    def _texts(self) -> Iterator[tuple[Tensor, Tensor]]:
        texts, size = self.gallery.texts, self.settings.text_batch_size
        return (
            encode_texts(self.inputs.tokenizer, texts[start : start + size], self.inputs.max_tokens) for start in range(0, len(texts), size)
        )
