"""Captions of the embedded data set for captioning: every object of a picture, from left to right.

    OUT/captioning/train.json          [{image, caption, image_id}, ...], two captions a picture
    OUT/captioning/{val,test}.json     [{image, caption: [text, text]}, ...]
    OUT/captioning/meta.json           request, counts, SHA-256 of each file; written last

The captions of retrieval leave out, group and reorder as they like, so that two people who are both right say different things. Here one
caption names every object by colour and shape, and the other by size as well, in the same order: what is wrong is then the model's mistake.
Image paths are relative to OUT/images, whose pictures `write_shapeworld` drew. A picture that is mirrored needs its words in reverse.
"""

from __future__ import annotations

import logging
from pathlib import Path

from dataset.prepare.output import write_json
from dataset.shapeworld import caption_records, part_folder
from dataset.shapeworld_english import enumerated
from dataset.shapeworld_refer import COLOR_BIT, SHAPE_BIT, SIZE_BIT, describe
from dataset.shapeworld_sample import make_scene
from dataset.shapeworld_scene import Scene, picture_path, scene_rng
from dataset.shapeworld_words import indefinite, noun_phrase

logger = logging.getLogger(__name__)

FOLDER = "captioning"
SAID = (SHAPE_BIT | COLOR_BIT, SHAPE_BIT | COLOR_BIT | SIZE_BIT)
"""What of each object, by caption."""
PROBES = 8


def write_captions(out: Path, seed: int, counts: dict[str, int], size: int) -> None:
    """Write the files, or do nothing where they already are.

    Args:
        out: the folder of the embedded data set.
        seed, size: of its scenes.
        counts: scenes of each split, as the folder has them.

    Raises:
        UserError: the folder holds no embedded data set.
    """
    probe = [_captions_of(seed, "probe", index, size) for index in range(PROBES)]
    request = {"seed": seed, "size": size, "scenes": counts, "probe": probe}
    folder = part_folder(out, FOLDER, [f"{split}.json" for split in counts], request)
    if folder is None:
        return
    with folder as working:
        for split, count in counts.items():
            captions = [_captions_of(seed, split, index, size) for index in range(count)]
            records = (caption_records(picture_path(split, index), index, texts, split == "train") for index, texts in enumerate(captions))
            write_json(working / f"{split}.json", [record for found in records for record in found])
        folder.finish({"request": request, "counts": {split: count * len(SAID) for split, count in counts.items()}})
    logger.info("%s: %d captions", folder.out, sum(counts.values()) * len(SAID))


def from_left_to_right(scene: Scene) -> list[int]:
    """The objects by where their boxes' middles are."""
    return sorted(range(len(scene.objects)), key=lambda index: scene.objects[index].middle()[0])


def _captions_of(seed: int, split: str, index: int, size: int) -> list[str]:
    """Of scene `index`: one caption for each of `SAID`."""
    scene, rng = make_scene(seed, split, index, size), scene_rng(seed, split, index, "captioning")
    objects = [scene.objects[place] for place in from_left_to_right(scene)]
    return [enumerated([indefinite(noun_phrase(describe(item, said), rng)) for item in objects], "and") for said in SAID]
