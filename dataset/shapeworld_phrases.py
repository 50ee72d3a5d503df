"""The embedded data set for MVP: captions with phrase concepts, tags, and held-out phrases with their boxes.

    OUT/shards/concepts-*.tar       {caption, phrases, tags, elems: [{bb, caption}]} and the picture (`concepts` stream)
    OUT/phrases.json                the vocabulary of phrases
    OUT/phrases_{val,test}.json     [{image, caption, phrases: [{words, boxes}], width, height, tags, regions}], paths below OUT/images
    OUT/phrase_data.json            parameters and counts; written last

Tags are the shapes of the objects. No phrase of the training captions is told which object it means. They are made of the scenes that
`write_shapeworld` drew, and leave its files as they are.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from common.files import replace_file
from dataset.phrases import Phrase, PhraseVocabulary, phrases_of
from dataset.phrases.tagging import words_of
from dataset.shapeworld import encode_png
from dataset.shapeworld_refer import COLOR_BIT, EVERYTHING, SHAPE_BIT, SIZE_BIT, TEXTURE_BIT, describe, unique_descriptions
from dataset.shapeworld_sample import make_scene
from dataset.shapeworld_scene import Scene, pick, picture_path, scene_rng
from dataset.shapeworld_text import captions
from dataset.shapeworld_words import indefinite, noun_phrase
from dataset.shards import ShardWriter
from dataset.tokenizers import load_tokenizer

logger = logging.getLogger(__name__)

META = "phrase_data.json"
MIN_COUNT = 20
"""So many training captions must hold a phrase."""


def write_phrase_data(out: Path, seed: int, counts: dict[str, int], size: int) -> None:
    """Write the files, or do nothing where they already are.

    Args:
        out: the folder of the embedded data set.
        seed, size: of its scenes.
        counts: scenes of each split, as the folder has them.
    """
    wanted = {"seed": seed, "size": size, "scenes": counts, "min_count": MIN_COUNT, "probe": _probe(seed, size)}
    try:
        if json.loads((out / META).read_text(encoding="utf-8")).items() >= wanted.items():
            return
    except (OSError, ValueError, AttributeError):
        pass
    sentences: list[list[Phrase]] = []
    with ShardWriter(out / "shards", "concepts") as shard:
        for index in range(counts["train"]):
            scene = make_scene(seed, "train", index, size)
            texts = captions(scene, scene_rng(seed, "train", index, "captions"))
            found = [phrases_of(text) for text in texts]
            sentences += found
            annotation = {"caption": texts, "phrases": stored(found), "tags": tags_of_scene(scene), "elems": elements(scene)}
            shard.write(f"train-{index:06d}", encode_png(scene), annotation, extension="png")
    vocabulary = PhraseVocabulary.build([[p.parts for p in found] for found in sentences], load_tokenizer(out / "tokenizer"), MIN_COUNT)
    vocabulary.save(out / "phrases.json")
    for split in ("val", "test"):
        records = [held_out(make_scene(seed, split, index, size), seed, split, index) for index in range(counts[split])]
        replace_file(out / f"phrases_{split}.json", json.dumps(records) + "\n")
    sizes = {"phrases": len(vocabulary), "rows": vocabulary.rows}
    replace_file(out / META, json.dumps({**wanted, **sizes}, indent=2) + "\n")
    logger.info("%s: captions with phrases; a vocabulary of %d phrases up to id %d", out, len(vocabulary), vocabulary.rows - 1)


def stored(found: list[list[Phrase]]) -> list[list[Any]]:
    """Phrases of captions as shards hold them: [[[part, ...], [word, ...]], ...] for each."""
    return [[[list(phrase.parts), list(phrase.words)] for phrase in phrases] for phrases in found]


def tags_of_scene(scene: Scene) -> list[str]:
    """The shapes that can be seen, the nearest first."""
    return list(dict.fromkeys(item.shape for item in reversed(scene.objects)))


def elements(scene: Scene) -> list[dict[str, Any]]:
    """The objects' boxes with their shapes, as an annotated photograph has class names."""
    return [{"bb": list(item.box), "caption": item.shape} for item in scene.objects]


def held_out(scene: Scene, seed: int, split: str, index: int) -> dict[str, Any]:
    """A caption that lists the objects, and which words mean which box; every description fits one object alone."""
    rng = scene_rng(seed, split, index, "phrases")
    caption, phrases = "", []
    for place, target in enumerate(rng.permutation(len(scene.objects)).tolist()):
        text = indefinite(noun_phrase(describe(scene.objects[target], _said(scene, target, rng)), rng))
        caption += text if not caption else f" and {text}" if place == len(scene.objects) - 1 else f", {text}"
        end = len(words_of(caption))
        phrases.append({"words": list(range(end - len(words_of(text)), end)), "boxes": [list(scene.objects[target].box)]})
    return {
        "image": picture_path(split, index),
        "caption": caption,
        "phrases": phrases,
        "width": scene.size,
        "height": scene.size,
        "tags": tags_of_scene(scene),
        "regions": [list(item.box) for item in scene.objects],
    }


def _said(scene: Scene, target: int, rng: np.random.Generator) -> int:
    """Shape and colour, with more where they fit another object too."""
    said, unique = SHAPE_BIT | COLOR_BIT, unique_descriptions(scene, target)
    if said in unique:
        return said
    return pick(rng, [bits for bits in (said | TEXTURE_BIT, said | SIZE_BIT) if bits in unique] or [EVERYTHING])


def _probe(seed: int, size: int) -> str:
    """What a scene gives today: data of other code does not pass for complete."""
    scene = make_scene(seed, "probe", 0, size)
    texts = captions(scene, scene_rng(seed, "probe", 0, "captions"))
    return json.dumps([held_out(scene, seed, "probe", 0), stored([phrases_of(text) for text in texts])])
