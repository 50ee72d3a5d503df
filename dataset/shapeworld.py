"""The embedded data set: seeded procedural scenes, written in the layouts that real data uses. No download.

    OUT/shards/images-*.tar     training scenes with captions (`image_text` stream)
    OUT/shards/regions-*.tar    training scenes with captions and region phrases with boxes (`region_text` stream)
    OUT/images/{train,val,test}/KEY.png
    OUT/retrieval_{train,val,test}.json, OUT/grounding_{train,val,test}.json    image paths relative to OUT/images
    OUT/vqa_{train,val,test}.json, OUT/vqa_answers.json                         questions with answers, and all answers
    OUT/tokenizer/              WordPiece vocabulary of the training texts
    OUT/meta.json               parameters, a probe of the generating code, counts, SHA-256 of all the above; written last

Scene `i` of a split is a pure function of (seed, split, i): see `shapeworld_sample.make_scene`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from common.errors import UserError
from dataset.masks import encode_mask
from dataset.prepare.output import PreparedFolder
from dataset.shapeworld_draw import draw, object_mask
from dataset.shapeworld_questions import ANSWERS, question_record, questions
from dataset.shapeworld_sample import make_scene
from dataset.shapeworld_scene import Scene, scene_rng
from dataset.shapeworld_text import captions, expressions, region_elements
from dataset.shards import ShardWriter
from dataset.tokenizers import train_wordpiece

GENERATOR = "shapeworld"
SPLITS = ("train", "val", "test")
ENTRIES = (
    "shards",
    "images",
    "tokenizer",
    *(f"{task}_{split}.json" for task in ("retrieval", "grounding", "vqa") for split in SPLITS),
    "vqa_answers.json",
)
UNFINISHED = ".unfinished"
PROBES = 16
VOCABULARY = 1000  # an upper bound: about 80 words, their letters and the pieces between
MIN_SIZE, MAX_SEED = 32, 2**63
LOG_SECONDS = 5.0

logger = logging.getLogger(__name__)


@dataclass
class SplitRecords:
    """What the annotation files of one split will hold."""

    retrieval: list[dict[str, Any]] = field(default_factory=list)
    grounding: list[dict[str, Any]] = field(default_factory=list)
    vqa: list[dict[str, Any]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    """Every text of the split but the questions, for the vocabulary."""


def write_shapeworld(out: Path, seed: int, train: int = 6000, validation: int = 200, test: int = 500, size: int = 48) -> None:
    """Write the data set, or do nothing where it already is.

    Args:
        out: the folder; made where absent. What else it holds is left alone.
        seed: from which everything follows; the same arguments give the same bytes.
        train, validation, test: numbers of scenes.
        size: side of the pictures in pixels.

    Raises:
        UserError: an argument is out of range, or the folder holds files of the same names from another source.
    """
    wanted = _checked({"seed": seed, "train": train, "validation": validation, "test": test, "size": size})
    wanted = {"generator": GENERATOR, **wanted, "probe": _probe(seed, size)}
    if _is_complete(out, wanted):
        logger.info("%s: complete already", out)
        return
    _refuse_foreign(out)
    unfinished = out / UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    counts = _write_all(unfinished, seed, dict(zip(SPLITS, (train, validation, test), strict=True)), size)
    meta = {**wanted, "counts": counts, "sha256": content_hash(unfinished)}
    _write_json(unfinished / "meta.json", meta, indent=2)
    _move_in(unfinished, out)
    logger.info("%s: %s, sha256 %s", out, ", ".join(f"{count} {name}" for name, count in counts.items()), meta["sha256"][:12])


def content_hash(folder: Path) -> str:
    """SHA-256 over names and bytes of everything the data set consists of, apart from meta.json."""
    digest = hashlib.sha256()
    for entry in ENTRIES:
        top = folder / entry
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file():
                content = path.read_bytes()
                digest.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode())
                digest.update(content)
    return digest.hexdigest()


def _checked(parameters: dict[str, int]) -> dict[str, int]:
    lowest = {"seed": 0, "size": MIN_SIZE}
    for name, value in parameters.items():
        if value < lowest.get(name, 1):
            raise UserError(f"shapeworld: {name} is {value}, it must be at least {lowest.get(name, 1)}")
    if parameters["seed"] >= MAX_SEED:
        raise UserError(f"shapeworld: seed is {parameters['seed']}, it must be below 2**63")
    return parameters


def _read_meta(out: Path) -> dict[str, Any]:
    """The content of meta.json; empty where it is absent or not ours."""
    try:
        meta = json.loads((out / "meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return meta if isinstance(meta, dict) and meta.get("generator") == GENERATOR else {}


def _is_complete(out: Path, wanted: dict[str, Any]) -> bool:
    meta = _read_meta(out)
    return all(meta.get(name) == value for name, value in wanted.items()) and meta.get("sha256") == content_hash(out)


def _probe(seed: int, size: int) -> str:
    """SHA-256 of what a few scenes give today: data written by other code than this does not pass for complete."""
    digest = hashlib.sha256()
    for index in range(PROBES):
        scene = make_scene(seed, "probe", index, size)
        rngs = {purpose: scene_rng(seed, "probe", index, purpose) for purpose in ("captions", "regions", "expressions", "questions")}
        texts = [captions(scene, rngs["captions"]), region_elements(scene, rngs["regions"])]
        texts.append([text for _, _, text in expressions(scene, 3, rngs["expressions"])])
        texts.append([list(asked) for asked in questions(scene, 4, rngs["questions"])])
        texts.append([encode_mask(object_mask(item, size)) for item in scene.objects])
        digest.update(draw(scene).tobytes() + json.dumps(texts).encode())
    return digest.hexdigest()[:16]


def _refuse_foreign(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder for the data set")
    present = [name for name in (*ENTRIES, "meta.json") if (out / name).exists()]
    if present and not _read_meta(out) and not (out / UNFINISHED).exists():
        raise UserError(f"{out} holds {present[0]} but not the embedded data set's meta.json; name another folder, or remove it first")


def _write_all(folder: Path, seed: int, scenes: dict[str, int], size: int) -> dict[str, int]:
    """Write every file but meta.json; returns how much of what there is."""
    counts = {"scenes": sum(scenes.values()), "captions": 0, "regions": 0, "expressions": 0, "questions": 0}
    texts: list[str] = []
    start = time.monotonic()
    for split, count in scenes.items():
        records = SplitRecords()
        (folder / "images" / split).mkdir(parents=True)
        if split == "train":
            with ShardWriter(folder / "shards", "images") as images, ShardWriter(folder / "shards", "regions") as regions:
                counts["regions"] = _write_split(folder, seed, split, count, size, records, (images, regions))
            texts = records.texts
        else:
            _write_split(folder, seed, split, count, size, records, None)
        _write_json(folder / f"retrieval_{split}.json", records.retrieval)
        _write_json(folder / f"grounding_{split}.json", records.grounding)
        _write_json(folder / f"vqa_{split}.json", records.vqa)
        counts["questions"] += len(records.vqa)
        counts["expressions"] += len(records.grounding)
        counts["captions"] += sum(1 if split == "train" else len(record["caption"]) for record in records.retrieval)
    _write_json(folder / "vqa_answers.json", ANSWERS)
    train_wordpiece(texts, folder / "tokenizer", VOCABULARY)
    logger.info("wrote %d scenes in %.1f s", counts["scenes"], time.monotonic() - start)
    return counts


def part_folder(out: Path, name: str, entries: Sequence[str], request: dict[str, Any]) -> PreparedFolder | None:
    """The folder OUT/NAME for files that are about the data set's pictures; None where it holds the outcome of this very request.

    Raises:
        UserError: OUT holds no embedded data set.
    """
    folder = PreparedFolder(out / name, entries)
    if folder.completed(request) is not None:
        logger.info("%s: complete already", folder.out)
        return None
    if not (out / "meta.json").is_file():
        raise UserError(f"{out}: holds no embedded data set, whose pictures the captions are of.")
    return folder


def caption_records(image: str, index: int, texts: list[str], training: bool) -> list[dict[str, Any]]:
    """Captions of picture `index` in the layout of retrieval and captioning: a record each in training, else all in one."""
    if training:
        return [{"image": image, "caption": text, "image_id": index} for text in texts]
    return [{"image": image, "caption": texts}]


def _write_split(
    folder: Path, seed: int, split: str, count: int, size: int, records: SplitRecords, shards: tuple[ShardWriter, ShardWriter] | None
) -> int:
    """Write one split's pictures and shards and fill its records; returns the number of region phrases."""
    start = logged = time.monotonic()
    regions = 0
    for index in range(count):
        scene = make_scene(seed, split, index, size)
        key, picture = f"{split}-{index:06d}", encode_png(scene)
        (folder / "images" / split / f"{key}.png").write_bytes(picture)
        sentences = captions(scene, scene_rng(seed, split, index, "captions"))
        records.retrieval += caption_records(f"{split}/{key}.png", index, sentences, split == "train")
        _add_grounding(records, scene, seed, split, key, index)
        _add_questions(records, scene, seed, split, key, index)
        if shards is not None:
            elements = region_elements(scene, scene_rng(seed, split, index, "regions"))
            shards[0].write(key, picture, {"caption": sentences}, extension="png")
            shards[1].write(key, picture, {"elems": elements, "caption": sentences}, extension="png")
            records.texts += [*sentences, *(text for element in elements for text in _element_texts(element))]
            regions += len(elements)
        if time.monotonic() - logged > LOG_SECONDS:
            logged = time.monotonic()
            logger.info("%s: %d of %d scenes, %.0f a second", split, index + 1, count, (index + 1) / (logged - start))
    return regions


def _add_grounding(records: SplitRecords, scene: Scene, seed: int, split: str, key: str, index: int) -> None:
    """Two or three expressions of a training scene, one or two of any other."""
    rng = scene_rng(seed, split, index, "expressions")
    wanted = int(rng.integers(2, 4) if split == "train" else rng.integers(1, 3))
    boxes = [list(item.box) for item in scene.objects]
    for target, reference, text in expressions(scene, wanted, rng):
        record = {"image": f"{split}/{key}.png", "text": text, "ref_id": len(records.grounding), "bbox": boxes[target]}
        record |= {"width": scene.size, "height": scene.size, "candidates": boxes, "kind": reference.kind}
        if split != "train":
            record["segmentation"] = encode_mask(object_mask(scene.objects[target], scene.size))
        records.grounding.append(record)
        records.texts.append(text)


def _add_questions(records: SplitRecords, scene: Scene, seed: int, split: str, key: str, index: int) -> None:
    """Four questions about a training scene, two about any other."""
    rng = scene_rng(seed, split, index, "questions")
    asked = questions(scene, 4 if split == "train" else 2, rng)
    records.vqa += [question_record(item, f"{split}/{key}.png", len(records.vqa) + place) for place, item in enumerate(asked)]


def _element_texts(element: dict[str, Any]) -> list[str]:
    caption = element["caption"]
    return [*([caption] if isinstance(caption, str) else caption), *element.get("attributes", ())]


def encode_png(scene: Scene) -> bytes:
    """The picture as a PNG file."""
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(draw(scene)[..., ::-1]))
    if not done:
        raise RuntimeError("OpenCV could not write a PNG")
    return encoded.tobytes()


def _write_json(path: Path, content: Any, indent: int | None = None) -> None:
    path.write_text(json.dumps(content, indent=indent) + "\n", encoding="utf-8")


def _move_in(unfinished: Path, out: Path) -> None:
    """Put finished files in their place. meta.json goes first and comes last, so that no moment in between looks complete."""
    (out / "meta.json").unlink(missing_ok=True)
    for name in ENTRIES:
        old = out / name
        if old.is_dir():
            shutil.rmtree(old)
        os.replace(unfinished / name, old)
    os.replace(unfinished / "meta.json", out / "meta.json")
    shutil.rmtree(unfinished)
