"""The embedded data set in four languages: captions of its pictures, and parallel sentences about scenes that no picture shows.

    OUT/languages/captions_train.jsonl           {image, caption: {en: [text, ...], de: ..., fr: ..., zh: ...}}, a picture a line
    OUT/languages/parallel.jsonl                 {source, target, languages: [en, other]}, a pair a line (`parallel_text` stream)
    OUT/languages/retrieval_{val,test}_LANG.json [{image, caption: [text, ...]}]: the same sayings in each language
    OUT/languages/tokenizer/                     WordPiece vocabulary of all that training may read; a Chinese character is a word
    OUT/languages/meta.json                      request, counts, SHA-256 of each file; written last

Image paths are relative to OUT/images, whose pictures `write_shapeworld` drew.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dataset.prepare.output import write_json
from dataset.prepare.raw import read_json
from dataset.shapeworld import part_folder
from dataset.shapeworld_chinese import chinese
from dataset.shapeworld_english import english
from dataset.shapeworld_french import french
from dataset.shapeworld_german import german
from dataset.shapeworld_sample import make_scene
from dataset.shapeworld_sayings import Saying, sayings
from dataset.shapeworld_scene import Scene, picture_path, scene_rng
from dataset.tokenizers import train_wordpiece

logger = logging.getLogger(__name__)

LANGUAGES: dict[str, Callable[[Saying, np.random.Generator], str]] = {"en": english, "de": german, "fr": french, "zh": chinese}
"""What words a saying, by language; the first one is that of the pictures in training and of one side of each parallel pair."""
FOLDER = "languages"
PARALLEL = "parallel"
"""The split of the scenes that no picture shows."""
HELD_OUT = ("val", "test")
ENTRIES = (
    "captions_train.jsonl",
    "parallel.jsonl",
    "tokenizer",
    *(f"retrieval_{split}_{language}.json" for split in HELD_OUT for language in LANGUAGES),
)
VOCABULARY = 1000
"""An upper bound: some 200 words, 80 Chinese characters, letters and the pieces between."""
PROBES = 16


def write_languages(out: Path, seed: int, counts: dict[str, int], size: int, parallel: int) -> None:
    """Write the files, or do nothing where they already are.

    Args:
        out: the folder of the embedded data set.
        seed, size: of its scenes.
        counts: scenes of each split, as the folder has them.
        parallel: scenes that parallel sentences are about, five pairs each.

    Raises:
        UserError: the folder holds no embedded data set.
    """
    request = {"seed": seed, "size": size, "scenes": counts, "parallel": parallel, "probe": _probe(seed, size)}
    folder = part_folder(out, FOLDER, ENTRIES, request)
    if folder is None:
        return
    with folder as working:
        captions = [_captioned(seed, "train", index, size) for index in range(counts["train"])]
        _write_lines(working / "captions_train.jsonl", captions)
        for split in HELD_OUT:
            records = [_captioned(seed, split, index, size) for index in range(counts[split])]
            for language in LANGUAGES:
                found = [{"image": record["image"], "caption": record["caption"][language]} for record in records]
                write_json(working / f"retrieval_{split}_{language}.json", found)
        pairs = [pair for index in range(parallel) for pair in parallel_pairs(make_scene(seed, PARALLEL, index, size), seed, index)]
        _write_lines(working / "parallel.jsonl", pairs)
        train_wordpiece(_texts(out, captions, pairs), working / "tokenizer", VOCABULARY)
        found = {"captions": len(captions) * 5 * len(LANGUAGES), "pairs": len(pairs)}
        folder.finish({"request": request, "counts": found})
    logger.info("%s: %d captions of training pictures, %d parallel pairs", folder.out, *found.values())


def in_languages(scene: Scene, rng: np.random.Generator) -> dict[str, list[str]]:
    """Five captions in each language, the same five sayings in the same order."""
    said = sayings(scene, rng)
    return {language: [word(saying, rng) for saying in said] for language, word in LANGUAGES.items()}


def parallel_pairs(scene: Scene, seed: int, index: int) -> list[dict[str, Any]]:
    """A scene's five sayings in English and in one of the other languages, which take turns."""
    captions = in_languages(scene, scene_rng(seed, PARALLEL, index, "languages"))
    first, *others = LANGUAGES
    pairs = []
    for number, source in enumerate(captions[first]):
        other = others[(index + number) % len(others)]
        pairs.append({"source": source, "target": captions[other][number], "languages": [first, other]})
    return pairs


def _captioned(seed: int, split: str, index: int, size: int) -> dict[str, Any]:
    captions = in_languages(make_scene(seed, split, index, size), scene_rng(seed, split, index, "languages"))
    return {"image": picture_path(split, index), "caption": captions}


def _texts(out: Path, captions: list[dict[str, Any]], pairs: list[dict[str, Any]]) -> Iterator[str]:
    """What may be read in training: English captions and expressions, and both sides of all pairs."""
    yield from (text for record in captions for text in record["caption"][next(iter(LANGUAGES))])
    yield from (record["text"] for record in read_json(out / "grounding_train.json"))
    yield from (pair[side] for pair in pairs for side in ("source", "target"))


def _probe(seed: int, size: int) -> str:
    """SHA-256 of what a few scenes give today: files written by other code than this do not pass for complete."""
    scenes = [make_scene(seed, "probe", index, size) for index in range(PROBES)]
    texts = [in_languages(scene, scene_rng(seed, "probe", index, "languages")) for index, scene in enumerate(scenes)]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


def _write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
