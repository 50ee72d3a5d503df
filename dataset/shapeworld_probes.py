"""Probes of language, of vision, and of attributes, made of the embedded data set's scenes and written in the layouts that real data has.

    OUT/probe_images/{train,val,test}/COLOR_SHAPE/KEY.png    one object a picture, 36 classes (ImageFolder)
    OUT/glue/CoLA/{train,dev,test,heldout}.tsv               captions (1), and the same with two neighbouring words swapped (0)
    OUT/glue/STS-B/{train,dev,test,heldout}.tsv              pairs of phrases, and 5 times the share of the object's properties they share
    OUT/ovad.json                                            colour, size and texture of every object of OUT/images/test (OVAD)
    OUT/probes.json                                          parameters, counts and SHA-256 of these; written last

As in GLUE, test.tsv has no labels; heldout.tsv has the labels of the same records, in the form of dev.tsv. An acceptable sentence and its
spoilt form have the same words, so that words alone say nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from common.files import replace_file
from dataset.prepare.output import is_written
from dataset.shapeworld import encode_png
from dataset.shapeworld_refer import EVERYTHING, Description, describe
from dataset.shapeworld_sample import make_scene
from dataset.shapeworld_scene import ATTRIBUTES, COLORS, SHAPES, SIZES, TEXTURES, Scene, SceneObject, pick, scene_rng
from dataset.shapeworld_text import captions
from dataset.shapeworld_words import PLURALS, SIZE_WORDS, noun_phrase

logger = logging.getLogger(__name__)

META = "probes.json"
FILES = ("train", "dev", "test", "heldout")
"""Of a task of GLUE; the last two hold the same records."""
VALUES = {"shape": SHAPES, "color": COLORS, "texture": TEXTURES, "size": SIZES}
SEEN = ("color", "size", "texture")
"""What OVAD's layout asks of every object, beside what it is."""
NOUNS = {*SHAPES, *(PLURALS.get(shape, f"{shape}s") for shape in SHAPES), "shape", "shapes"}
ADJECTIVES = {*COLORS, *TEXTURES, *(word for words in SIZE_WORDS.values() for word in words)}
SCORE = 5.0
IMAGE_SHARE, TEXT_SHARE = 3, 2
"""One training picture and one training text a so many scenes of the data set."""
HEAD, MEDIUM = 1 / 3, 0.18
"""Share of objects from which on an attribute is called frequent, or less so; the rest is the tail."""


def write_probes(out: Path, seed: int, counts: dict[str, int], size: int) -> None:
    """Write the probes, or do nothing where they already are.

    Args:
        out: the folder of the embedded data set, whose test pictures the attributes are about.
        seed, size: of its scenes.
        counts: scenes of train, val and test; probes have as many records, of training a third and half.
    """
    wanted = {"seed": seed, "scenes": counts, "size": size, "probe": _probe(seed, size)}
    if is_written(out / META, wanted, lambda: _hash(out)):
        return
    written = _write_images(out, seed, counts, size)
    for folder, records in (("CoLA", _acceptability(seed, counts, size)), ("STS-B", _similarity(seed, counts, size))):
        for name, text in records:
            (out / "glue" / folder).mkdir(parents=True, exist_ok=True)
            replace_file(out / "glue" / folder / f"{name}.tsv", text)
    replace_file(out / "ovad.json", json.dumps(attributes(seed, counts["test"], size)) + "\n")
    meta = {**wanted, "images": written, "sha256": _hash(out)}
    replace_file(out / META, json.dumps(meta, indent=2) + "\n")
    logger.info("%s: %d pictures of one object, and probes of language and attributes", out, written)


def one_object(seed: int, split: str, index: int, size: int) -> Scene:
    """A scene with one object, none of the data set's own."""
    scene = make_scene(seed, f"probe {split}", index, size)
    return replace(scene, objects=scene.objects[:1])


def spoil(sentence: str, rng: np.random.Generator) -> str:
    """The sentence with two neighbouring words swapped that cannot change places: not two adjectives, whose order is a matter of taste,
    and not two that are alike."""
    words = sentence.split(" ")
    places = [place for place in range(len(words) - 1) if _fixed_order(words[place], words[place + 1])]
    place = pick(rng, places)
    words[place], words[place + 1] = words[place + 1], words[place]
    return " ".join(words)


def _fixed_order(first: str, second: str) -> bool:
    first, second = (word.strip(",:") for word in (first, second))
    return first != second and not {first, second} <= ADJECTIVES and not {first, second} <= NOUNS


def similar_pair(item: SceneObject, rng: np.random.Generator) -> tuple[str, str, float]:
    """Two full descriptions, of an object and of one like it in a random number of properties, each in words of its own; with 5 times the
    share of properties that are the same."""
    own = describe(item, EVERYTHING)
    changed = rng.permutation(len(ATTRIBUTES))[: int(rng.integers(len(ATTRIBUTES) + 1))]
    other = {name: getattr(own, name) for name in ATTRIBUTES}
    for place in changed:
        name = ATTRIBUTES[place]
        other[name] = pick(rng, [value for value in VALUES[name] if value != other[name]])
    phrases = noun_phrase(own, rng), noun_phrase(Description(**other), rng)
    return *phrases, SCORE * (1 - len(changed) / len(ATTRIBUTES))


def attributes(seed: int, scenes: int, size: int) -> dict[str, Any]:
    """Properties of all objects of the test pictures, in the layout of OVAD: 1 for those an object has, 0 for the others."""
    names = [(kind, value) for kind in SEEN for value in VALUES[kind]]
    images, annotations = [], []
    for index in range(scenes):
        scene = make_scene(seed, "test", index, size)
        images.append({"id": index, "width": size, "height": size, "file_name": f"test/test-{index:06d}.png"})
        for item in scene.objects:
            has = [int(getattr(item, kind) == value) for kind, value in names]
            about = {"category_id": SHAPES.index(item.shape), "area": item.box[2] * item.box[3], "iscrowd": 0, "att_vec": has}
            annotations.append({"id": len(annotations) + 1, "image_id": index, "bbox": list(item.box), **about})
    shares = np.mean([annotation["att_vec"] for annotation in annotations], axis=0)
    described = [
        {
            "id": number,
            "name": f"{kind}:{_words(kind, value)}",
            "type": kind,
            "parent_type": kind,
            "is_has_att": "is",
            "freq_set": _group(share),
        }
        for number, ((kind, value), share) in enumerate(zip(names, shares, strict=True))
    ]
    categories = [{"id": number, "name": shape} for number, shape in enumerate(SHAPES)]
    return {"images": images, "categories": categories, "attributes": described, "annotations": annotations}


def _words(kind: str, value: str) -> str:
    """A value and its synonyms."""
    return "/".join(dict.fromkeys(SIZE_WORDS[value])) if kind == "size" else value


def _group(share: float) -> str:
    return "head" if share >= HEAD else "medium" if share >= MEDIUM else "tail"


def _write_images(out: Path, seed: int, counts: dict[str, int], size: int) -> int:
    """Pictures of one object; every split has a folder of every class, be it empty."""
    shutil.rmtree(out / "probe_images", ignore_errors=True)
    written = 0
    for split, count in counts.items():
        folder = out / "probe_images" / split
        for color in COLORS:
            for shape in SHAPES:
                (folder / f"{color}_{shape}").mkdir(parents=True)
        for index in range(_shared(split, count, IMAGE_SHARE)):
            scene = one_object(seed, split, index, size)
            item = scene.objects[0]
            (folder / f"{item.color}_{item.shape}" / f"{split}-{index:06d}.png").write_bytes(encode_png(scene))
            written += 1
    return written


def _shared(split: str, count: int, share: int) -> int:
    return max(1, count // share) if split == "train" else count


def _scenes(seed: int, counts: dict[str, int], size: int, purpose: str) -> Iterator[tuple[str, list[tuple[Scene, np.random.Generator]]]]:
    """Scenes of texts for train, dev and heldout, none of the data set's own."""
    for split, name in (("train", "train"), ("val", "dev"), ("test", "heldout")):
        numbers = range(_shared(split, counts[split], TEXT_SHARE))
        yield name, [(make_scene(seed, f"text {split}", index, size), scene_rng(seed, split, index, purpose)) for index in numbers]


def _acceptability(seed: int, counts: dict[str, int], size: int) -> Iterator[tuple[str, str]]:
    """CoLA's files: source, label, mark of the authors, sentence, without a header."""
    for name, scenes in _scenes(seed, counts, size, "acceptability"):
        pairs = [(text, spoil(text, rng)) for scene, rng in scenes for text in captions(scene, rng)[:1]]
        rows = [(label, text) for pair in pairs for label, text in zip((1, 0), pair, strict=True)]
        yield name, "".join(f"sw\t{label}\t{'' if label else '*'}\t{text}\n" for label, text in rows)
        if name == "heldout":
            yield "test", "index\tsentence\n" + "".join(f"{number}\t{text}\n" for number, (_, text) in enumerate(rows))


def _similarity(seed: int, counts: dict[str, int], size: int) -> Iterator[tuple[str, str]]:
    """STS-B's files, with a header."""
    columns = ("index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2")
    for name, scenes in _scenes(seed, counts, size, "similarity"):
        found = [similar_pair(item, rng) for scene, rng in scenes for item in scene.objects[:2]]
        rows = [("\t".join((str(number), *["none"] * 6, *pair)), value) for number, (*pair, value) in enumerate(found)]
        yield name, "\t".join((*columns, "score")) + "\n" + "".join(f"{row}\t{value:.3f}\n" for row, value in rows)
        if name == "heldout":
            yield "test", "\t".join(columns) + "\n" + "".join(f"{row}\n" for row, _ in rows)


def _probe(seed: int, size: int) -> str:
    """SHA-256 of what a few scenes give today."""
    few: dict[str, int] = {"train": 2, "val": 2, "test": 2}
    texts = [*_acceptability(seed, few, size), *_similarity(seed, few, size), attributes(seed, 2, size)]
    pictures = [encode_png(one_object(seed, "train", index, size)) for index in range(2)]
    return hashlib.sha256(json.dumps(texts).encode() + b"".join(pictures)).hexdigest()[:16]


def _hash(out: Path) -> str:
    digest = hashlib.sha256()
    tables = [out / "glue" / folder / f"{name}.tsv" for folder in ("CoLA", "STS-B") for name in FILES]
    for path in [*tables, out / "ovad.json", *sorted((out / "probe_images").rglob("*.png"))]:
        digest.update(path.relative_to(out).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()
