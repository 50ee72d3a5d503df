"""Statements about the embedded data set: of two pictures (NLVR2's layout) and of one (SNLI-VE's layout).

    OUT/nlvr_{train,val,test}.json             [{sentence, label, images: [path, path], identifier}]
    OUT/entailment_{train,val,test}.jsonl      {Flickr30K_ID, gold_label, sentence1, sentence2, pairID} a line
    OUT/statements.json                        parameters, counts and SHA-256 of these; written last

They are made of the scenes that `write_shapeworld` drew, image paths relative to OUT/images, and leave its files as they are.

Every sentence about two pictures stands twice, true of one pair and false of another, so that the text alone says nothing. Of a picture
there are three hypotheses, one a label. Those that tell what can be seen are true or contradicted; those that add what cannot be seen
("the red circle is heavy") are neutral where there is such an object, and contradicted where there is none. The text alone can tell the
label of two in three.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.files import replace_file
from dataset.prepare.output import is_written
from dataset.shapeworld_refer import (
    COLOR_BIT,
    RELATIONS,
    SHAPE_BIT,
    TEXTURE_BIT,
    Description,
    describe,
    fitting,
    holds,
    unique_descriptions,
)
from dataset.shapeworld_sample import make_scene
from dataset.shapeworld_scene import COLORS, SHAPES, TEXTURES, Scene, pick, picture_path, scene_rng
from dataset.shapeworld_text import captions
from dataset.shapeworld_words import indefinite, noun_phrase, relation_words

logger = logging.getLogger(__name__)

META = "statements.json"
NAMED = SHAPE_BIT | COLOR_BIT
ABOUT_PAIRS: dict[str, tuple[str, ...]] = {
    "left": ("the left picture has {}", "there is {} in the left picture"),
    "right": ("the right picture has {}", "there is {} in the right picture"),
    "both": ("both pictures have {}", "there is {} in both pictures"),
    "one": ("only one picture has {}", "there is {} in only one picture"),
}
SEEN = ("there is {}", "the picture has {}")
UNSEEN = ("heavy", "cold", "old", "new", "soft", "wet")
OPPOSITE = {"left_of": "right_of", "right_of": "left_of", "above": "below", "below": "above"}
RELATION_SHARE = 0.3
"""Of hypotheses about what can be seen: those that relate two objects."""
NEAR_SHARE = 0.5
"""Of pictures without what a sentence names: those that have its colour and its shape, on different objects."""


def write_statements(out: Path, seed: int, counts: dict[str, int], size: int) -> None:
    """Write the files, or do nothing where they already are.

    Args:
        out: the folder of the embedded data set.
        seed, size: of its scenes.
        counts: scenes of each split, as the folder has them. There are as many sentences about two pictures, twice each.
    """
    wanted = {"seed": seed, "scenes": counts, "probe": _probe(seed, size)}
    if is_written(out / META, wanted, lambda: _hash(out, counts)):
        return
    written: dict[str, int] = {}
    for split, count in counts.items():
        scenes = [make_scene(seed, split, index, size) for index in range(count)]
        pairs = pair_statements(scenes, split, seed)
        triples = [record for index, scene in enumerate(scenes) for record in hypotheses(scene, split, index, seed)]
        replace_file(out / f"nlvr_{split}.json", json.dumps(pairs) + "\n")
        replace_file(out / f"entailment_{split}.jsonl", "".join(json.dumps(record) + "\n" for record in triples))
        written |= {f"nlvr_{split}": len(pairs), f"entailment_{split}": len(triples)}
    replace_file(out / META, json.dumps({**wanted, "records": written, "sha256": _hash(out, counts)}, indent=2) + "\n")
    logger.info("%s: %d statements about two pictures, %d about one", out, *(_total(written, start) for start in ("nlvr", "entailment")))


def pair_statements(scenes: Sequence[Scene], split: str, seed: int) -> list[dict[str, Any]]:
    """As many sentences as there are scenes, each about a pair that makes it true and one that makes it false.

    Args:
        scenes: all scenes of a split; there must be some with and some without each described object.
        split, seed: of the scenes.
    """
    holders: dict[Description, list[int]] = defaultdict(list)
    for index, scene in enumerate(scenes):
        for description in _descriptions_of(scene):
            holders[description].append(index)
    usable = sorted((key for key, found in holders.items() if 2 <= len(found) <= len(scenes) - 2), key=str)
    records: list[dict[str, Any]] = []
    for number in range(len(scenes) if usable else 0):
        rng = scene_rng(seed, split, number, "pair statements")
        description = pick(rng, usable)
        kind = pick(rng, list(ABOUT_PAIRS))
        sentence = pick(rng, ABOUT_PAIRS[kind]).format(indefinite(noun_phrase(description, rng)))
        for pair, label in enumerate(rng.permutation(2)):
            first, second = _scenes_for(kind, bool(label), description, holders, len(scenes), rng)
            images = [picture_path(split, index) for index in (first, second)]
            record = {"sentence": sentence, "label": str(bool(label)), "images": images, "identifier": f"{split}-{number}-{pair}-0"}
            records.append(record)
    return records


def hypotheses(scene: Scene, split: str, index: int, seed: int) -> list[dict[str, Any]]:
    """Three hypotheses about one scene, one of each label, in random order; with a caption as the premise that models do not see."""
    rng = scene_rng(seed, split, index, "hypotheses")
    premise = captions(scene, rng)[0]
    present, absent = _present(scene, rng), _absent(scene, rng)
    texts = {
        "entailment": _relating(scene, rng, true=True) or pick(rng, SEEN).format(_named(present, rng)),
        "neutral": f"the {noun_phrase(present, rng)} is {pick(rng, UNSEEN)}",
        "contradiction": (_relating(scene, rng, true=False) or pick(rng, SEEN).format(_named(absent, rng)))
        if rng.random() < 0.5
        else f"the {noun_phrase(absent, rng)} is {pick(rng, UNSEEN)}",
    }
    image, labels = picture_path(split, index), list(texts)
    return [
        {
            "Flickr30K_ID": image,
            "gold_label": labels[place],
            "sentence1": premise,
            "sentence2": texts[labels[place]],
            "pairID": f"{split}-{index:06d}-{number}",
        }
        for number, place in enumerate(rng.permutation(len(labels)))
    ]


def _descriptions_of(scene: Scene) -> set[Description]:
    """What can be said of some object by colour and shape, or by one of them."""
    return {describe(item, said) for item in scene.objects for said in (NAMED, SHAPE_BIT, COLOR_BIT)}


def _scenes_for(
    kind: str, label: bool, description: Description, holders: dict[Description, list[int]], count: int, rng: np.random.Generator
) -> tuple[int, int]:
    """Two different scenes of which a sentence of this kind is true, or is not."""
    with_it = holders[description]
    has = {
        "left": (label, not label),
        "right": (not label, label),
        "both": (True, True) if label else _one_of_two(rng),
        "one": _one_of_two(rng) if label else (rng.random() < 0.5,) * 2,
    }[kind]
    found: list[int] = []
    for wanted in has:
        scene = pick(rng, with_it) if wanted else _without(description, holders, count, rng)
        while scene in found:
            scene = pick(rng, with_it) if wanted else _without(description, holders, count, rng, near=False)
        found.append(scene)
    return found[0], found[1]


def _one_of_two(rng: np.random.Generator) -> tuple[bool, bool]:
    first = bool(rng.random() < 0.5)
    return first, not first


def _without(
    description: Description, holders: dict[Description, list[int]], count: int, rng: np.random.Generator, near: bool = True
) -> int:
    """A scene without such an object; often one that has its colour and its shape elsewhere."""
    members = set(holders[description])
    if near and description.shape and description.color and rng.random() < NEAR_SHARE:
        parts = (holders[Description(shape=description.shape)], holders[Description(color=description.color)])
        close = sorted(set(parts[0]) & set(parts[1]) - members)
        if close:
            return pick(rng, close)
    while True:
        scene = int(rng.integers(count))
        if scene not in members:
            return scene


def _named(description: Description, rng: np.random.Generator) -> str:
    return indefinite(noun_phrase(description, rng))


def _present(scene: Scene, rng: np.random.Generator) -> Description:
    """Colour and shape of an object, now and then with its texture."""
    return describe(pick(rng, scene.objects), NAMED | (TEXTURE_BIT if rng.random() < 0.25 else 0))


def _absent(scene: Scene, rng: np.random.Generator) -> Description:
    """Like an object of the scene but for one word, so that it fits none."""
    values = {"shape": SHAPES, "color": COLORS, "texture": ("plain", *TEXTURES)}
    while True:
        like = _present(scene, rng)
        attribute = pick(rng, [name for name in values if getattr(like, name) is not None])
        changed = {name: getattr(like, name) for name in values} | {attribute: pick(rng, values[attribute])}
        description = Description(**changed)
        if not fitting(scene, description):
            return description


def _relating(scene: Scene, rng: np.random.Generator, true: bool) -> str | None:
    """Two objects, each the only one of its colour and shape, in their plain relation or in its opposite; None now and then, and where
    there are no such two."""
    if rng.random() >= RELATION_SHARE:
        return None
    single = [index for index in range(len(scene.objects)) if NAMED in unique_descriptions(scene, index)]
    found = [
        (a, b, name)
        for a in single
        for b in single
        for name in RELATIONS
        if a != b and holds(name, scene.objects[a], scene.objects[b], scene.size, strict=True)
    ]
    if not found:
        return None
    a, b, name = pick(rng, found)
    first, second = (_named(describe(scene.objects[index], NAMED), rng) for index in (a, b))
    return f"{first} is {relation_words(name if true else OPPOSITE[name], rng)} {second}"


def _probe(seed: int, size: int) -> str:
    """SHA-256 of what a few scenes give today."""
    scenes = [make_scene(seed, "probe", index, size) for index in range(8)]
    texts = [pair_statements(scenes, "probe", seed), *(hypotheses(scene, "probe", index, seed) for index, scene in enumerate(scenes))]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


def _hash(out: Path, counts: dict[str, int]) -> str:
    digest = hashlib.sha256()
    for split in counts:
        for name in (f"nlvr_{split}.json", f"entailment_{split}.jsonl"):
            digest.update((out / name).read_bytes())
    return digest.hexdigest()


def _total(written: dict[str, int], start: str) -> int:
    return sum(count for name, count in written.items() if name.startswith(start))
