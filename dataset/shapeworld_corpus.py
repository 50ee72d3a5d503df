"""Texts without pictures and pictures without texts, of scenes that the embedded data set has nowhere else.

OUT/unpaired/texts.txt           a document a line: one scene in three or four sentences (`text` stream)
OUT/unpaired/images-*.tar        pictures, their annotation is empty (`image` stream)
OUT/unpaired/meta.json           parameters and SHA-256 of these; written last
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from common.files import replace_file
from dataset.shapeworld import encode_png
from dataset.shapeworld_sample import make_scene
from dataset.shapeworld_scene import pick, scene_rng
from dataset.shapeworld_text import captions, expressions
from dataset.shards import ShardWriter

logger = logging.getLogger(__name__)

FOLDER, META, TEXTS = "unpaired", "meta.json", "texts.txt"
SENTENCES = (3, 3, 4)
"""Of a document; the last one names what was told of."""


def write_corpus(out: Path, seed: int, count: int, size: int) -> None:
    """Write the files, or do nothing where they already are.

    Args:
        out: the folder of the embedded data set.
        seed: from which everything follows.
        count: of documents, and of pictures.
        size: side of the pictures in pixels.
    """
    folder, probe = out / FOLDER, [document(seed, "probe", index) for index in range(8)]
    wanted = {"seed": seed, "count": count, "size": size, "probe": hashlib.sha256(json.dumps(probe).encode()).hexdigest()[:16]}
    if _is_complete(folder, wanted):
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    replace_file(folder / TEXTS, "".join(f"{document(seed, 'documents', index)}\n" for index in range(count)))
    with ShardWriter(folder, "images") as images:
        for index in range(count):
            picture = encode_png(make_scene(seed, "pictures", index, size))
            images.write(f"picture-{index:06d}", picture, {}, extension="png")
    replace_file(folder / META, json.dumps({**wanted, "sha256": _hash(folder)}, indent=2) + "\n")
    logger.info("%s: %d documents and as many pictures", folder, count)


def document(seed: int, split: str, index: int) -> str:
    """Document `index` of a split: sentences about one scene, joined by commas, which the data set's vocabulary has."""
    scene, rng = make_scene(seed, split, index), scene_rng(seed, split, index, "document")
    count = pick(rng, SENTENCES)
    named = [text for _, _, text in expressions(scene, 2, rng)]
    return ", ".join([*_some(captions(scene, rng), count - 1, rng), " and ".join(named)])


def _some(sentences: list[str], count: int, rng: np.random.Generator) -> list[str]:
    return [sentences[place] for place in rng.permutation(len(sentences))[:count]]


def _hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in [folder / TEXTS, *sorted(folder.glob("images-*.tar"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _is_complete(folder: Path, wanted: dict[str, Any]) -> bool:
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        return meta == {**wanted, "sha256": _hash(folder)}
    except (OSError, ValueError):
        return False
