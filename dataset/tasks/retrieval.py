"""Image-text retrieval: training pairs, and the gallery that is searched in evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from common.errors import BadRecord, UserError
from dataset.clips import ClipReader, augment_clip, is_clip, read_still, squash_clip
from dataset.config import RetrievalData
from dataset.streams.base import Sample, TextRow, TextSide, image_tensor, naming, single_rows
from dataset.tasks.files import JsonStream, warn_of_count
from dataset.tasks.galleries import GallerySource, read_gallery
from dataset.text import caption_texts, names_a_side, pick_caption, pre_caption
from dataset.tokenizers import pad_texts, token_lists
from dataset.transforms import MAX_PIXELS, augment_image, decode_image, read_image, squash


class RetrievalTrain(JsonStream):
    """A stream of image-caption pairs; sample_ids are the images, so captions of one image are not each other's negatives.

    Args, errors: as `JsonStream`; files hold [{image, caption, image_id}]. `frames` is the number of frames of a clip, None where the
    model takes images.
    """

    def __init__(self, config: RetrievalData, text: TextSide, image_size: int, name: str = "pairs", frames: int | None = None) -> None:
        super().__init__(config, ("image", "caption", "image_id"), text, image_size, name)
        self.config = config
        self.clips = None if frames is None else ClipReader(frames, config.max_pixels, config.decoder, config.augmentation.decode)
        files = config.train if isinstance(config.train, str) else ", ".join(config.train)
        warn_of_count(files, "captions", len(self.records), config.expected_of("train"))
        numbers: dict[str, int] = {}  # image ids are numbers or names; equal ids in two files are the same image
        self.image_numbers = [numbers.setdefault(str(record["image_id"]), len(numbers)) for _, _, record in self.records]

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        file, number, record = self.records[index]
        where = f"{file}, record {number}"
        augmentation = self.config.augmentation
        may_flip = not (augmentation.careful_flip and names_a_side(caption_texts(record["caption"])))
        with naming(where):
            caption = pre_caption(pick_caption(record["caption"], rng), self.config.max_words, self.config.punctuation)
            path = Path(self.config.image_root) / record["image"]
            if self.clips is not None:
                frames = self.clips.file(path, rng)
                pixels = augment_clip(frames, self.image_size, augmentation, self.config.frame_changes, rng, may_flip)
            else:
                image = read_still(path, self.config.max_pixels, augmentation.decode)
                pixels = augment_image(image, self.image_size, augmentation, rng, may_flip)
        return Sample(where, pixels, (TextRow(caption, self.image_numbers[index]),), rng)

    def collate(self, groups: list[list[Sample]], rngs: list[np.random.Generator]) -> dict[str, Tensor]:
        images, rows = single_rows(groups)
        return {"image": image_tensor(images)} | self.text.tensors(rows)


class RetrievalGallery:
    """The images or clips and captions of an evaluation split.

    Args:
        source: the file and its layout.
        image_size: side of the model's input in pixels.
        max_pixels: larger images are refused.
        frames: of a clip; a gallery with any clip in it is one of clips. None: there are images alone.

    Attributes:
        texts: all captions, image by image.
        text_image: for each caption the number of its image.
        image_texts: for each image the numbers of its captions.
        images: data set of uint8 [3, S, S], of clips [F, 3, S, S].

    Raises:
        UserError: the file is missing or malformed, or an image has no caption.
    """

    def __init__(self, source: GallerySource, image_size: int, max_pixels: int = MAX_PIXELS, frames: int | None = None) -> None:
        self.texts: list[str] = []
        self.text_image: list[int] = []
        self.image_texts: list[list[int]] = []
        found = read_gallery(source)
        for number, image in enumerate(found):
            self.image_texts.append(list(range(len(self.texts), len(self.texts) + len(image.captions))))
            self.text_image += [number] * len(image.captions)
            self.texts += image.captions
        images = [image.image for image in found]
        clips = [image for image in images if isinstance(image, Path) and is_clip(image)]
        if clips and frames is None:
            raise UserError(f"{source.file}: {clips[0].name} is a clip. Set model.vision.frames to the number of frames.")
        reader = ClipReader(frames, max_pixels, source.decoder) if clips and frames is not None else None
        self.images = ImageFiles(images, image_size, max_pixels, reader)


class ImageFiles(Dataset[Tensor]):
    """Image files, or their contents, as uint8 [3, S, S], squashed to the square; with a reader of clips, files of them as [F, 3, S, S].

    One that cannot be read is a UserError: evaluation skips nothing.
    """

    def __init__(
        self, images: Sequence[Path | bytes], image_size: int, max_pixels: int = MAX_PIXELS, clips: ClipReader | None = None
    ) -> None:
        self.clips = clips
        self.sources = images
        self.image_size = image_size
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Tensor:
        source = self.sources[index]
        try:
            if self.clips is not None and isinstance(source, Path):
                return image_tensor([squash_clip(self.clips.file(source, None), self.image_size)])[0]
            image = decode_image(source, self.max_pixels) if isinstance(source, bytes) else read_image(source, self.max_pixels)
        except BadRecord as error:
            raise UserError(f"{f'image {index}' if isinstance(source, bytes) else source}: {error}.") from error
        return image_tensor([squash(image, self.image_size)])[0]


class TextBatch(NamedTuple):
    """Texts of a gallery to be encoded together."""

    numbers: Tensor
    """[R] which they are."""
    ids: Tensor
    """[R, L] token ids."""
    mask: Tensor
    """[R, L] True for tokens."""


def batches_by_length(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int, size: int) -> Iterator[TextBatch]:
    """All texts, `size` at a time, from the shortest to the longest, so that next to nothing is padded."""
    rows = token_lists(tokenizer, texts, max_tokens)
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        yield TextBatch(torch.tensor(chosen), *pad_texts(tokenizer, [rows[number] for number in chosen], max_tokens))
