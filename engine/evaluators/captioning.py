"""Captions of held-out images."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Subset

from dataset.tasks.captioning_files import read_described
from dataset.tasks.retrieval import ImageFiles
from engine.captions import beam_settings, describer_of, texts_of
from engine.config.captioning import CaptioningConfig
from engine.evaluators.base import Inputs, share_of, spread
from evaluation.captioning import caption_metrics, official_metrics, words_of, write_captions
from evaluation.cider import CiderD
from evaluation.report import AttentionPanel, CaptionPanel, ReportPanels
from models.captioning import CaptioningModel
from models.vlm import VisionLanguageModel

SHOWN_MAPS = 4
"""Images whose attention a report shows."""


class CaptionEvaluator:
    """Describes every image of a file or folder.

    Args:
        path: of any layout (dataset/tasks/captioning_files.py).
        config: of the run.
        inputs: how images and texts become a model's inputs.
        image_root: the folder that image paths are relative to.
        guesses: captions to compare with, by name, that somebody gives to every image without looking.
        official: whether the published scorers are asked as well.
    """

    def __init__(
        self,
        path: Path,
        config: CaptioningConfig,
        inputs: Inputs,
        image_root: str,
        guesses: Mapping[str, str] | None = None,
        official: bool = False,
    ) -> None:
        assert config.data is not None, "the domain stage is not evaluated"
        self.config, self.inputs, self.guesses = config, inputs, guesses or {}
        self.described = read_described(path)
        self.images = ImageFiles([Path(image_root) / one.image for one in self.described], inputs.image_size, config.data.max_pixels)
        self.describer = describer_of(config, inputs.tokenizer)
        self.settings = beam_settings(config.evaluation, len(self.describer.prompt))
        self.scorers = config.evaluation.scorers if official else []
        self.captions: list[str] = []

    @property
    def known(self) -> bool:
        """Whether people's captions of all images are at hand."""
        return all(one.captions for one in self.described)

    @cached_property
    def scorer(self) -> CiderD:
        """Of single captions, where people's are known."""
        return CiderD([[words_of(text) for text in one.captions] for one in self.described])

    def __call__(self, model: VisionLanguageModel) -> dict[str, float]:
        """Metrics; nothing where captions are kept secret."""
        assert isinstance(model, CaptioningModel), "the model of this task"
        own: list[str] = []
        loader = DataLoader(Subset(self.images, list(share_of(len(self.images)))), batch_size=self.config.evaluation.batch_size)
        for batch in self.inputs.stoppable(loader):
            with torch.no_grad():
                written = self.describer.write(model, model.encode_images(batch.to(self.inputs.device)), self.settings)
            own += texts_of(self.inputs.tokenizer, written.tokens, self.describer.end)
        self.captions = [caption for share in self.inputs.interruption.gather(own) for caption in share]
        return self._metrics(self.captions)

    def baselines(self) -> dict[str, dict[str, float]]:
        """One caption for all images."""
        guesses = self.guesses.items() if self.known else ()
        return {name: self._metrics([guess] * len(self.described)) for name, guess in guesses}

    def panels(self, model: VisionLanguageModel, samples: int) -> ReportPanels:
        """Images spread over the set, and where the words of some captions look."""
        assert isinstance(model, CaptioningModel), "the model of this task"
        assert len(self.captions) == len(self.described), "evaluation, which needs all ranks, comes first"
        chosen = spread(range(len(self.described)), samples)
        maps = [self._attention(model, number) for number in chosen[:SHOWN_MAPS]]
        return ReportPanels(captions=[self._panel(number) for number in chosen], attention=maps)

    def write(self, path: Path) -> None:
        """Write the captions of the last evaluation as the servers of COCO and NoCaps take them."""
        write_captions(path, [(one.image_id, caption) for one, caption in zip(self.described, self.captions, strict=True)])

    def _metrics(self, captions: Sequence[str]) -> dict[str, float]:
        if not self.known:
            return {}
        references = [one.captions for one in self.described]
        found = caption_metrics(captions, references) | official_metrics(captions, references, self.scorers)
        for domain in sorted({one.domain for one in self.described} - {""}):
            part = [number for number, one in enumerate(self.described) if one.domain == domain]
            own = caption_metrics([captions[number] for number in part], [references[number] for number in part])
            found |= {f"{domain.replace('-', '_')}_{name}": value for name, value in own.items()}
        return found

    def _panel(self, number: int) -> CaptionPanel:
        given = self.described[number].captions
        image = self.images[number].permute(1, 2, 0).numpy()
        return CaptionPanel(image, self.captions[number], given[0] if given else "", self._score(number))

    def _score(self, number: int) -> float | None:
        return 100 * self.scorer.score(words_of(self.captions[number]), number) if self.known else None

    def _attention(self, model: CaptioningModel, number: int) -> AttentionPanel:
        tokenizer, image, prompt = self.inputs.tokenizer, self.images[number], len(self.describer.prompt)
        behind = tokenizer(self.captions[number], add_special_tokens=False)["input_ids"]
        assert isinstance(behind, list), "of one text"
        ids = torch.tensor([[*self.describer.prompt, *behind]], device=self.inputs.device)
        tokens = model.encode_images(image[None].to(self.inputs.device))
        maps = model.attention_maps(tokens, ids).mean(dim=1)[0, prompt:, 1:].float().cpu().numpy()  # without the global token
        side = self.config.model.vision.grid
        words = [str(word) for word in tokenizer.convert_ids_to_tokens(behind)]
        return AttentionPanel(image.permute(1, 2, 0).numpy(), words, maps.reshape(len(words), side, side))


def constant_captions(references: Sequence[Sequence[str]], most: int = 500) -> dict[str, str]:
    """What to say without looking: the training caption that people wrote most often, and the one that agrees best with those of other
    images, as CIDEr-D has it, found among some of them."""
    commonest = Counter(text for texts in references for text in texts).most_common(1)[0][0]
    some = [[words_of(text) for text in texts] for texts in references[:: max(1, len(references) // most)]]
    scorer = CiderD(some)
    candidates = sorted({" ".join(texts[0]) for texts in some})[:: max(1, len(some) // 100)]
    best = max(candidates, key=lambda text: sum(scorer.score(text.split(), image) for image in range(len(some))))
    return {"commonest caption": commonest, "best constant caption": best}
