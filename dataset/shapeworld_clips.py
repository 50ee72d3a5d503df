"""Clips of the embedded data set: shapes that move, turn into other colours or follow one another, and captions that need the order.

    OUT/clips/shards/clips-*.tar              training clips as mp4 with captions (`video_text` stream)
    OUT/clips/videos/{val,test}/KEY.mp4
    OUT/clips/retrieval_{val,test}.json       [{image, caption: [text, ...]}], paths relative to OUT/clips/videos
    OUT/clips/order_{val,test}.json           [{image, caption, wrong, kind}]
    OUT/clips/retrieval_train.json            [{image, caption, image_id}] of the first training clips, which are files, too
    OUT/clips/questions_{train,val,test}.json, answers.json    questions about clips, in the layout of MSRVTT-QA
    OUT/clips/tokenizer/                      WordPiece vocabulary of the training texts of pictures and clips
    OUT/clips/meta.json                       parameters and SHA-256 of all the above; written last

Every clip of validation and test stands beside the same frames played backwards. What is said of the one is wrong of the other, so whoever
does not know the order of the frames is right about half of them, no more. Clip `i` is a pure function of (seed, split, i).
"""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from common.errors import UserError
from dataset.prepare.output import PreparedFolder, write_json
from dataset.shapeworld_draw import draw
from dataset.shapeworld_sample import make_scene
from dataset.shapeworld_scene import Background, Scene, SceneObject, pick, scene_rng
from dataset.shards import ShardSource, ShardWriter
from dataset.text import caption_texts
from dataset.tokenizers import train_wordpiece

Kind = Literal["path", "turn", "color", "succession"]
KINDS: tuple[Kind, ...] = ("path", "turn", "color", "succession")
FRAMES = 8
FRAMES_PER_SECOND = 4
COLORS, SHAPES = ("red", "green", "blue", "yellow"), ("circle", "square", "triangle")
Place = tuple[int, int]
"""Column and row of a quarter of the picture."""
PLACES: tuple[Place, ...] = ((0, 0), (1, 0), (0, 1), (1, 1))
SIDES = {(0, 0): "left", (0, 1): "right", (1, 0): "top", (1, 1): "bottom"}
"""Of an axis (0: columns) and a half."""
DIRECTIONS = {(0, 0): "left", (0, 1): "right", (1, 0): "up", (1, 1): "down"}
"""The way to a half along an axis."""
FILES_FOR_TRAINING = 64
ENTRIES = (
    "shards",
    "videos",
    "tokenizer",
    "answers.json",
    *(f"{name}_{split}.json" for name in ("retrieval", "order", "questions") for split in ("train", "val", "test")),
)
VOCABULARY = 1000
FOLDER = "clips"
VERSION = 1  # raise it when the same request comes to give other clips

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Look:
    """Colour and shape of an object."""

    color: str
    shape: str

    def __str__(self) -> str:
        return f"{self.color} {self.shape}"


@dataclass(frozen=True)
class Actor:
    """An object over the whole clip."""

    looks: tuple[Look | None, ...]
    """Of each frame; None: not to be seen."""
    centers: tuple[tuple[float, float], ...]
    """x, y of each frame, as shares of the side."""
    radius: float


@dataclass(frozen=True)
class Clip:
    """One clip and what is true of it."""

    actors: tuple[Actor, ...]
    background: Background
    kind: Kind
    still: Look
    """The object that stays as it is."""
    words: tuple[str, ...]
    """What happens, in order: of path, turn: who moves, and from where to where, or first and second direction; of color: shape, first and
    second colour; of succession: the first and the second object."""

    def backwards(self) -> Clip:
        """The same frames in the opposite order."""
        actors = tuple(Actor(actor.looks[::-1], actor.centers[::-1], actor.radius) for actor in self.actors)
        return replace(self, actors=actors, words=_reversed_words(self.kind, self.words))


def make_clip(seed: int, split: str, index: int, size: int = 48) -> Clip:
    """Clip `index` of a split. Odd ones are the ones before them, backwards."""
    rng = scene_rng(seed, split, index // 2, "clip")
    background = make_scene(seed, f"clips-{split}", index // 2, size).background
    kind = KINDS[index // 2 % len(KINDS)]
    clip = _MAKERS[kind](rng, background)
    return clip.backwards() if index % 2 else clip


def captions(clip: Clip) -> list[str]:
    """What can be said of a clip: how it ends, whose one word follows from nothing but the order; and all of it."""
    event = _event(clip.kind, clip.words)
    if clip.kind in ("color", "succession"):
        return [_end(clip.kind, clip.words), f"{event} beside the {clip.still}"]
    return [_end(clip.kind, clip.words), f"{event} while the {clip.still} stays"]


def frames(clip: Clip, size: int) -> np.ndarray:
    """The pictures, uint8 [FRAMES, size, size, 3], RGB."""
    return np.stack([draw(_scene(clip, number, size)) for number in range(FRAMES)])


def question(clip: Clip, rng: np.random.Generator) -> tuple[str, str]:
    """A question about a clip, and its answer."""
    first, second = clip.words[-2:]
    last = bool(rng.random() < 0.5)
    answer = second if last else first
    match clip.kind:
        case "path":
            return f"on which side does the {clip.words[0]} {'end' if last else 'begin'}", answer
        case "turn":
            return f"which way does the {clip.words[0]} move {'last' if last else 'first'}", answer
        case "color":
            return f"which color has the {clip.words[0]} at the {'end' if last else 'beginning'}", answer
        case "succession":
            return f"which object is seen {'last' if last else 'first'}", answer


def write_clips(out: Path, seed: int, train: int, validation: int, test: int, size: int = 48) -> dict[str, Any]:
    """Write the clips, or do nothing where they already are.

    Args:
        out: the folder of the embedded data set, whose training texts the vocabulary is for as well.
        seed: from which everything follows.
        train, validation, test: numbers of clips, even.
        size: side of the pictures in pixels.

    Returns:
        The content of meta.json.

    Raises:
        UserError: a number is odd, the pictures are not there, the folder holds other clips, or OpenCV has no encoder of mp4.
    """
    counts = {"train": train, "val": validation, "test": test}
    for name, count in counts.items():
        if count < 2 or count % 2:
            raise UserError(f"clips: {name} is {count}; clips come in pairs, so it must be even and at least 2")
    request = {"generator": FOLDER, "version": VERSION, "seed": seed, "size": size, **counts}
    folder = PreparedFolder(out / FOLDER, ENTRIES)
    if (meta := folder.completed(request)) is not None:
        return meta
    folder.check_free(overwrite=False)
    with folder as working:
        said = [*_texts_of_pictures(out), *_write_training(working, seed, train, size)]
        for split in ("val", "test"):
            _write_held_out(working, seed, split, counts[split], size)
        train_wordpiece(said, working / "tokenizer", VOCABULARY)
        meta = folder.finish({"request": request})
    logger.info("%s: %s", out / FOLDER, ", ".join(f"{count} {name}" for name, count in counts.items()))
    return meta


def encode_mp4(pictures: np.ndarray) -> bytes:
    """Pictures uint8 [T, H, W, 3], RGB, as an mp4 file (MPEG-4 part 2, which every decoder reads).

    Raises:
        UserError: OpenCV was built without FFmpeg.
    """
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        code = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(file.name, cv2.CAP_FFMPEG, code, FRAMES_PER_SECOND, (pictures.shape[2], pictures.shape[1]))
        if not writer.isOpened():
            raise UserError("clips: this OpenCV cannot write mp4 files; install opencv-python-headless from its wheel")
        for picture in pictures:
            writer.write(np.ascontiguousarray(picture[..., ::-1]))
        writer.release()
        return Path(file.name).read_bytes()


def _texts_of_pictures(out: Path) -> list[str]:
    """Every training text about pictures but the questions."""
    source = ShardSource([str(out / "shards" / "regions-*.tar")])
    said = [record["text"] for record in json.loads((out / "grounding_train.json").read_bytes())]
    for number in range(len(source)):
        annotation = source[number].annotation
        said += caption_texts(annotation["caption"])
        said += [text for element in annotation["elems"] for key in ("caption", "attributes") for text in caption_texts(element.get(key))]
    return said


def _write_training(folder: Path, seed: int, count: int, size: int) -> list[str]:
    """Shards, and some training clips as files; returns all texts."""
    said: list[str] = []
    pairs: list[dict[str, Any]] = []
    asked: list[dict[str, Any]] = []
    (folder / "videos" / "train").mkdir(parents=True)
    with ShardWriter(folder / "shards", "clips") as shards:
        for index in range(count):
            clip, key = make_clip(seed, "train", index, size), f"clip-{index:06d}"
            file, texts = encode_mp4(frames(clip, size)), captions(clip)
            shards.write(key, file, {"caption": texts}, extension="mp4")
            said += texts
            if index < FILES_FOR_TRAINING:
                (folder / "videos" / "train" / f"{key}.mp4").write_bytes(file)
                pairs += [{"image": f"train/{key}.mp4", "caption": text, "image_id": index} for text in texts]
                asked.append(_asked(clip, seed, "train", index, f"train/{key}.mp4"))
                said.append(asked[-1]["question"])
    write_json(folder / "retrieval_train.json", pairs)
    write_json(folder / "questions_train.json", asked)
    write_json(folder / "answers.json", _answers())
    return said


def _write_held_out(folder: Path, seed: int, split: str, count: int, size: int) -> None:
    (folder / "videos" / split).mkdir(parents=True)
    retrieval, order, asked = [], [], []
    for index in range(count):
        clip, name = make_clip(seed, split, index, size), f"{split}/clip-{index:06d}.mp4"
        (folder / "videos" / name).write_bytes(encode_mp4(frames(clip, size)))
        right, wrong = captions(clip)[1], captions(clip.backwards())[1]
        retrieval.append({"image": name, "caption": [right]})
        order.append({"image": name, "caption": right, "wrong": wrong, "kind": clip.kind})
        asked.append(_asked(clip, seed, split, index, name))
    write_json(folder / f"retrieval_{split}.json", retrieval)
    write_json(folder / f"order_{split}.json", order)
    write_json(folder / f"questions_{split}.json", asked)


def _asked(clip: Clip, seed: int, split: str, index: int, name: str) -> dict[str, Any]:
    text, answer = question(clip, scene_rng(seed, split, index, "clip question"))
    return {"video_id": name, "question": text, "answer": answer, "question_id": index}


def _answers() -> list[str]:
    looks = [str(Look(color, shape)) for color in COLORS for shape in SHAPES]
    return [*dict.fromkeys([*SIDES.values(), *DIRECTIONS.values(), *COLORS, *looks])]


def _event(kind: Kind, words: tuple[str, ...]) -> str:
    match kind:
        case "path":
            return f"the {words[0]} moves from {words[1]} to {words[2]}"
        case "turn":
            return f"the {words[0]} moves {words[1]} and then {words[2]}"
        case "color":
            return f"the {words[0]} turns from {words[1]} to {words[2]}"
        case "succession":
            return f"first the {words[0]} and then the {words[1]} is seen"


def _end(kind: Kind, words: tuple[str, ...]) -> str:
    match kind:
        case "path":
            return f"the {words[0]} moves to {words[2]}"
        case "turn":
            return f"the {words[0]} moves {words[2]} at the end"
        case "color":
            return f"the {words[0]} turns {words[2]}"
        case "succession":
            return f"the {words[1]} is seen last"


def _reversed_words(kind: Kind, words: tuple[str, ...]) -> tuple[str, ...]:
    *who, first, second = words
    if kind == "turn":
        opposite = {"left": "right", "right": "left", "up": "down", "down": "up"}
        first, second = opposite[first], opposite[second]
    return (*who, second, first)


def _path(rng: np.random.Generator, background: Background) -> Clip:
    mover, still = _two_looks(rng)
    axis, start, lane = (int(rng.integers(2)) for _ in range(3))
    ends = [_place(axis, half, lane) for half in (start, 1 - start)]
    stays = _place(axis, int(rng.integers(2)), 1 - lane)
    words = (str(mover), SIDES[axis, start], SIDES[axis, 1 - start])
    return Clip((_still(still, stays, rng), _moving(mover, ends, rng)), background, "path", still, words)


def _turn(rng: np.random.Generator, background: Background) -> Clip:
    mover, still = _two_looks(rng)
    start, axis = pick(rng, PLACES), int(rng.integers(2))
    corner = _shifted(start, axis)
    end = _shifted(corner, 1 - axis)
    stays = _shifted(start, 1 - axis)  # the quarter that the path leaves out
    words = (str(mover), DIRECTIONS[axis, corner[axis]], DIRECTIONS[1 - axis, end[1 - axis]])
    return Clip((_still(still, stays, rng), _moving(mover, [start, corner, end], rng)), background, "turn", still, words)


def _color(rng: np.random.Generator, background: Background) -> Clip:
    first, still = _two_looks(rng)
    second = Look(pick(rng, [color for color in COLORS if color != first.color]), first.shape)
    here, there = _two_places(rng)
    actor = replace(_still(first, here, rng), looks=(first,) * (FRAMES // 2) + (second,) * (FRAMES // 2))
    return Clip((_still(still, there, rng), actor), background, "color", still, (first.shape, first.color, second.color))


def _succession(rng: np.random.Generator, background: Background) -> Clip:
    first, still = _two_looks(rng)
    second = pick(rng, [Look(color, shape) for color in COLORS for shape in SHAPES if Look(color, shape) not in (first, still)])
    here, there = _two_places(rng)
    half = FRAMES // 2
    actors = [_still(first, here, rng), _still(second, here, rng)]
    actors[0] = replace(actors[0], looks=(first,) * half + (None,) * half)
    actors[1] = replace(actors[1], looks=(None,) * half + (second,) * half)
    return Clip((_still(still, there, rng), *actors), background, "succession", still, (str(first), str(second)))


_MAKERS = {"path": _path, "turn": _turn, "color": _color, "succession": _succession}


def _two_looks(rng: np.random.Generator) -> tuple[Look, Look]:
    looks = [Look(color, shape) for color in COLORS for shape in SHAPES]
    first, second = rng.permutation(len(looks))[:2].tolist()
    return looks[first], looks[second]


def _two_places(rng: np.random.Generator) -> tuple[Place, Place]:
    first, second = rng.permutation(len(PLACES))[:2].tolist()
    return PLACES[first], PLACES[second]


def _place(axis: int, along: int, across: int) -> Place:
    return (along, across) if axis == 0 else (across, along)


def _shifted(place: Place, axis: int) -> Place:
    return (1 - place[0], place[1]) if axis == 0 else (place[0], 1 - place[1])


def _center(place: Place, rng: np.random.Generator) -> tuple[float, float]:
    x, y = (0.27 + 0.46 * half + float(rng.uniform(-0.05, 0.05)) for half in place)
    return x, y


def _still(look: Look, place: Place, rng: np.random.Generator) -> Actor:
    return Actor((look,) * FRAMES, (_center(place, rng),) * FRAMES, float(rng.uniform(0.15, 0.19)))


def _moving(look: Look, places: list[Place], rng: np.random.Generator) -> Actor:
    """An object that goes from place to place at an even pace, from the first frame to the last."""
    stops = np.array([_center(place, rng) for place in places])  # [K, 2]
    times = np.linspace(0, len(stops) - 1, FRAMES)
    along = [tuple(float(np.interp(time, range(len(stops)), stops[:, axis])) for axis in (0, 1)) for time in times]
    return Actor((look,) * FRAMES, tuple((x, y) for x, y in along), float(rng.uniform(0.15, 0.19)))


def _scene(clip: Clip, number: int, size: int) -> Scene:
    seen = []
    for actor in clip.actors:
        look = actor.looks[number]
        if look is not None:
            seen.append(SceneObject(look.shape, look.color, "plain", "small", actor.centers[number], actor.radius, 0.0, (0, 0, 1, 1)))
    return Scene(size, tuple(seen), clip.background)
