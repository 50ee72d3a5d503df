"""Object tags of images by models: a classifier of timm, or any of our dual encoders that scores words. Neither sees a caption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from dataset.tokenizers import encode_texts, load_tokenizer
from dataset.transforms import decode_image, squash
from engine.config.loader import load_config
from engine.weights import find_weights
from models.checkpoints import load_checkpoint
from models.vlm import VisionLanguageModel

PROMPT = "a photo of {}"


class ClassifierTagger:
    """The likeliest classes of a timm classifier.

    Args:
        name: of the model; its weights are downloaded unless the name is one of a local folder ("local-dir:PATH").
        words: names of the classes in their order; None: the model's own, which ImageNet classifiers have.
        top: how many.

    Raises:
        UserError: there is no such model, or its classes have no names.
    """

    def __init__(self, name: str, words: list[str] | None, top: int) -> None:
        import timm

        try:
            self.model: Any = timm.create_model(name, pretrained=True).eval()
        except (RuntimeError, OSError, ValueError) as error:
            raise UserError(f"--tagger: timm cannot load {name} ({str(error).splitlines()[0]})") from error
        self.words = class_names(self.model, words)
        self.top = min(top, len(self.words))
        config = timm.data.resolve_data_config({}, model=self.model)  # pyright: ignore[reportAttributeAccessIssue]
        self.transform: Any = timm.data.create_transform(**config)  # pyright: ignore[reportAttributeAccessIssue]

    @torch.no_grad()
    def __call__(self, image: bytes) -> list[str]:
        """See `Tagger`. Raises BadRecord."""
        logits: Tensor = self.model(self.transform(decode_image(image))[None])[0]
        return [self.words[place] for place in logits.topk(self.top).indices.tolist()]


def class_names(model: Any, words: list[str] | None) -> list[str]:
    """The names of a classifier's classes: those given, or those that timm knows of ImageNet, cut at the first comma.

    Raises:
        UserError: there are not as many as classes.
    """
    import timm

    if words is None:
        subset = timm.data.infer_imagenet_subset(model)  # pyright: ignore[reportAttributeAccessIssue]
        if subset is None:
            raise UserError(f"--tag_words: needed, the model's {model.num_classes} classes are not those of ImageNet")
        info = timm.data.ImageNetInfo(subset)  # pyright: ignore[reportAttributeAccessIssue]
        words = [info.index_to_description(index).split(",")[0].lower() for index in range(model.num_classes)]
    if len(words) != model.num_classes:
        raise UserError(f"--tag_words: names {len(words)} classes, but the model has {model.num_classes}")
    return words


class ZeroShotTagger:
    """The words whose features are nearest to an image's, by a model that was trained here.

    Args:
        run: folder of a run with a contrastive objective.
        words: what may be seen.
        top: how many.

    Raises:
        UserError: the folder holds no such run.
    """

    def __init__(self, run: Path, words: list[str], top: int) -> None:
        config = load_config(run / "config.yaml").config
        if config.model.mvp is not None:
            raise UserError(f"--tagger: {run} trained MVP, whose images have tags already; name a run of another model")
        self.size, self.words, self.top = config.model.vision.image_size, words, min(top, len(words))
        self.model = VisionLanguageModel(config.model, ["itc"]).eval()
        load_checkpoint(self.model, find_weights(run))
        tokenizer = load_tokenizer(config.tokenizer.path)
        ids, mask = encode_texts(tokenizer, [PROMPT.format(word) for word in words], config.tokenizer.max_tokens)
        with torch.no_grad():
            self.features = self.model.text_features(self.model.encode_text(ids, mask))  # [W, E]

    @torch.no_grad()
    def __call__(self, image: bytes) -> list[str]:
        """See `Tagger`. Raises BadRecord."""
        pixels = torch.tensor(squash(decode_image(image), self.size)).permute(2, 0, 1)[None]  # [1, 3, S, S]
        features = self.model.image_features(self.model.encode_images(pixels)[:, 0])  # [1, E]
        return [self.words[place] for place in (features @ self.features.T)[0].topk(self.top).indices.tolist()]
