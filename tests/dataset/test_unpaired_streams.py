"""Texts without images, images without texts, and hidden patches of images with texts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import BadRecord, UserError
from dataset.batches import MixedBatches
from dataset.config import AugmentationConfig, ImageTextStream, MaskingConfig, PatchMaskingConfig, TokenizerConfig
from dataset.records import open_source
from dataset.shapeworld_corpus import document, write_corpus
from dataset.shards import ShardWriter
from dataset.streams.build import build_stream
from dataset.streams.unpaired_config import ImageStream, TextStream
from dataset.tokenizers import load_tokenizer
from fake_records import encoded, picture, small_tokenizer

PLAIN = AugmentationConfig(crop_scale=None, flip=0.0, rand_augment=False)
PATCHES = PatchMaskingConfig(patches=6, min_block=2)
WORDS = ("red", "blue", "circle", "square", "left", "of")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer, documents in three kinds of files, and pictures in shards."""
    out = tmp_path_factory.mktemp("unpaired")
    small_tokenizer(out / "tokenizer")
    long = " ".join(WORDS[number % len(WORDS)] for number in range(100))
    documents = ["a red circle", long, "the blue square"]
    (out / "lines.txt").write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    (out / "lines.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in documents), encoding="utf-8")
    with ShardWriter(out, "texts") as texts, ShardWriter(out, "pictures") as pictures:
        for number, text in enumerate(documents):
            texts.write(f"t{number}", None, {"text": [text]})
            pictures.write(f"p{number}", encoded(picture(number)), {"caption": "a red circle"}, extension="png")
    return out


def build(folder: Path, config: TextStream | ImageStream | ImageTextStream):
    tokenizer = load_tokenizer(folder / "tokenizer")
    return build_stream("some", config, tokenizer, TokenizerConfig(path="unused", max_tokens=24), image_size=32, patch_size=8)


@pytest.mark.parametrize(("files", "key"), [("lines.txt", "text"), ("lines.jsonl", "body"), ("texts-*.tar", "text")])
def test_documents_are_read_from_plain_text_json_lines_and_shards(folder: Path, files: str, key: str) -> None:
    stream = build(folder, TextStream(shards=str(folder / files), text_key=key, batch_size=3, max_tokens=16))
    assert len(stream) == 3
    samples = [stream.sample(index, np.random.default_rng(index)) for index in range(3)]
    assert [samples[0].rows[0].text, samples[2].rows[0].text] == ["a red circle", "the blue square"]
    batch = stream.collate([samples], [np.random.default_rng(0)])
    assert "image" not in batch
    assert batch["text_ids"].shape == batch["text_mask"].shape == batch["text_ids_masked"].shape == (3, 16)
    assert batch["text_mask"].sum(dim=1)[1] == 16  # the long document fills its row
    assert batch["masked_positions"].shape == batch["mlm_labels"].shape


def test_a_long_document_gives_another_part_at_each_visit_and_rows_keep_their_length(folder: Path) -> None:
    stream = build(folder, TextStream(shards=str(folder / "lines.txt"), batch_size=1, max_tokens=16))
    parts = {str(stream.sample(1, np.random.default_rng(seed)).rows[0].text) for seed in range(30)}
    assert len(parts) == len(WORDS)  # the document repeats its words
    assert all(len(part.split()) == 14 for part in parts)
    again = [stream.sample(1, np.random.default_rng(5)).rows[0].text for _ in range(2)]
    assert again[0] == again[1]


def test_whole_words_of_documents_are_hidden_together_where_the_recipe_says_so(folder: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(folder / "tokenizer")
    pieces = len(tokenizer("stared", add_special_tokens=False)["input_ids"])  # pyright: ignore[reportArgumentType]
    assert pieces > 1
    file = tmp_path / "words.txt"
    file.write_text("stared blue stared\n")
    together: dict[bool, int] = {}
    for whole in (True, False):
        masking = MaskingConfig(probability=pieces / (2 * pieces + 3), max_masks=20, skipgram_probability=0.0, whole_word=whole)
        stream = build(folder, TextStream(shards=str(file), batch_size=1, masking=masking))
        rngs = [np.random.default_rng(seed) for seed in range(100)]
        positions = stream.collate([[stream.sample(0, rng) for rng in rngs]], [np.random.default_rng(0)])["masked_positions"]
        words = [set(range(1, pieces + 1)), set(range(pieces + 2, 2 * pieces + 2))]
        together[whole] = sum(set(row) in words for row in positions.tolist())
    assert together[True] > 2 * together[False] > 0


@pytest.mark.parametrize(("content", "reason"), [(b" \xff bad\n", "line 1: not UTF-8 text"), (b"{}\n", "the document has no words")])
def test_documents_that_cannot_be_used_are_named(folder: Path, tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / ("bad.txt" if reason.startswith("line") else "empty.jsonl")
    file.write_bytes(content if file.suffix == ".txt" else b'{"text": "  "}\n')
    stream = build(folder, TextStream(shards=str(file), batch_size=1))
    with pytest.raises(BadRecord, match=reason):
        stream.sample(0, np.random.default_rng(0))


def test_plain_text_is_refused_where_images_are_needed(folder: Path) -> None:
    with pytest.raises(UserError, match=r"holds \.txt files"):
        open_source(str(folder / "lines.txt"))


def test_images_alone_hide_the_asked_number_of_patches_anew_for_each_sample(folder: Path) -> None:
    config = ImageStream(shards=str(folder / "pictures-*.tar"), batch_size=3, augmentation=PLAIN, patch_masking=PATCHES)
    stream = build(folder, config)
    batches = MixedBatches({"some": stream}, seed=1)
    first, second = (batches[step]["some"].tensors for step in range(2))
    assert set(first) == {"image", "patch_hidden"}
    assert first["image"].shape == (3, 3, 32, 32)
    assert first["patch_hidden"].dtype == torch.bool
    assert first["patch_hidden"].shape == (3, 16)
    assert (first["patch_hidden"].sum(dim=1) == 6).all()
    assert len({tuple(row) for batch in (first, second) for row in batch["patch_hidden"].tolist()}) > 3
    torch.testing.assert_close(batches[0]["some"].tensors["patch_hidden"], first["patch_hidden"])


def test_pairs_hide_patches_only_for_masked_image_modelling_and_stay_the_same_otherwise(folder: Path) -> None:
    settings = {"shards": str(folder / "pictures-*.tar"), "batch_size": 3, "patch_masking": PATCHES}
    with_mim = build(folder, ImageTextStream(**settings, objectives={"itc": 1.0, "mim": 1.0}))
    without = build(folder, ImageTextStream(**settings, objectives={"itc": 1.0}))
    tensors = MixedBatches({"some": with_mim}, seed=1)[0]["some"].tensors
    plain = MixedBatches({"some": without}, seed=1)[0]["some"].tensors
    assert (tensors.pop("patch_hidden").sum(dim=1) == 6).all()
    assert set(tensors) == set(plain)
    assert all(torch.equal(tensors[name], plain[name]) for name in plain)


def test_the_corpus_is_written_once_and_again_where_it_was_damaged(tmp_path: Path) -> None:
    write_corpus(tmp_path, seed=1, count=4, size=32)
    texts = tmp_path / "unpaired" / "texts.txt"
    lines = texts.read_text().splitlines()
    assert lines == [document(1, "documents", index) for index in range(4)]
    assert len(open_source(str(tmp_path / "unpaired" / "images-*.tar"))) == 4
    before = texts.stat().st_mtime_ns
    write_corpus(tmp_path, seed=1, count=4, size=32)
    assert texts.stat().st_mtime_ns == before
    texts.write_text("damaged\n")
    write_corpus(tmp_path, seed=1, count=4, size=32)
    assert texts.read_text().splitlines() == lines
