"""The embedded data set: reproducible, true to its scenes, unambiguous, written once and in the layouts of real data."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from common.errors import UserError
from dataset.shapeworld import content_hash, encode_png, write_shapeworld
from dataset.shapeworld_draw import PALETTE, draw, footprint, object_mask
from dataset.shapeworld_questions import questions
from dataset.shapeworld_sample import make_scene
from dataset.shapeworld_scene import COLORS, SHAPES, Scene, SceneObject, scene_rng
from dataset.shapeworld_text import captions, expressions, region_elements
from dataset.shards import ShardSource

SCENES = 150
NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5}
PLURALS = {("crosses" if shape == "cross" else shape + "s"): shape for shape in SHAPES}
SYNONYMS = {"little": "small", "big": "large", "stripes": "striped", "dots": "dotted", "over": "above", "under": "below"}
ADJECTIVES = {
    **dict.fromkeys(COLORS, "color"),
    **dict.fromkeys(("small", "large"), "size"),
    **dict.fromkeys(("striped", "dotted", "plain"), "texture"),
}
COUNTED = re.compile(r"\b(two|three|four|five) ((?:\w+ )*?\w+s(?: with (?:stripes|dots))?)\b")
EXTREMES = {
    "leftmost": lambda item: item.middle()[0],
    "rightmost": lambda item: -item.middle()[0],
    **dict.fromkeys(("highest", "topmost"), lambda item: item.middle()[1]),
    **dict.fromkeys(("lowest", "bottom"), lambda item: -item.middle()[1]),
    **dict.fromkeys(("largest", "biggest"), lambda item: -item.box[2] * item.box[3]),
    "smallest": lambda item: item.box[2] * item.box[3],
}
RELATIONS = {
    "left": lambda a, b: a.middle()[0] < b.middle()[0],
    "right": lambda a, b: a.middle()[0] > b.middle()[0],
    "above": lambda a, b: a.middle()[1] < b.middle()[1],
    "below": lambda a, b: a.middle()[1] > b.middle()[1],
}


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(7, "train", index) for index in range(SCENES)]


def reader_finds(scene: Scene, phrase: str) -> list[SceneObject]:
    """An independent reader: the objects that a noun phrase, extreme or relation can mean, from its words alone."""
    words = [SYNONYMS.get(word, word) for word in phrase.split()]
    for place, word in enumerate(words):
        if word in RELATIONS:
            anchors = reader_finds(scene, " ".join(words[place + 1 :]))
            found = reader_finds(scene, " ".join(words[:place]))
            return [a for a in found if any(a is not b and RELATIONS[word](a, b) for b in anchors)]
    found = list(scene.objects)
    for word in words:
        if word in ADJECTIVES:
            found = [item for item in found if getattr(item, ADJECTIVES[word]) == word]
        elif word in SHAPES or word in PLURALS:
            found = [item for item in found if item.shape == PLURALS.get(word, word)]
        elif word not in (*EXTREMES, "a", "an", "the", "with", "shape", "shapes", "that", "is", "to", "of", "and", "also", "besides"):
            raise AssertionError(f"the reader does not know {word!r} in {phrase!r}")
    for word in words:
        if word in EXTREMES:
            best = min(EXTREMES[word](item) for item in found)
            found = [item for item in found if EXTREMES[word](item) == best]
    return found


def test_a_scene_is_a_pure_function_of_seed_split_and_index() -> None:
    assert make_scene(3, "val", 5) == make_scene(3, "val", 5)
    pictures = {encode_png(make_scene(*name)) for name in [(3, "val", 5), (4, "val", 5), (3, "test", 5), (3, "val", 6)]}
    assert len(pictures) == 4


def test_splits_share_no_picture() -> None:
    pictures = [{encode_png(make_scene(1, split, index)) for index in range(60)} for split in ("train", "val", "test")]
    assert len(set.union(*pictures)) == 180


def test_a_scene_looks_alike_at_any_size() -> None:
    small, large = make_scene(1, "train", 2, size=48), make_scene(1, "train", 2, size=96)
    assert [item.attributes() for item in small.objects] == [item.attributes() for item in large.objects]
    shrunk = cv2.resize(draw(large), (48, 48), interpolation=cv2.INTER_AREA)
    assert np.abs(shrunk.astype(int) - draw(small)).mean() < 12


def test_boxes_are_tight_and_inside_the_picture(scenes: list[Scene]) -> None:
    for scene in scenes:
        for item in scene.objects:
            x, y, w, h = item.box
            assert 0 <= x < x + w <= scene.size
            assert 0 <= y < y + h <= scene.size
            mask = object_mask(item, scene.size)
            inside = mask[y : y + h, x : x + w]
            assert mask.sum() == inside.sum()
            assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


def test_a_picture_differs_from_its_ground_in_the_boxes_alone(scenes: list[Scene]) -> None:
    for scene in scenes[:40]:
        changed = (draw(scene) != draw(Scene(scene.size, (), scene.background))).any(axis=2)
        unexplained = changed.copy()
        for item in scene.objects:
            x, y, w, h = item.box
            assert changed[y : y + h, x : x + w].mean() > 0.2
            unexplained[max(0, y - 1) : y + h + 1, max(0, x - 1) : x + w + 1] = False  # a rim of faint edge pixels may stand out
        assert not unexplained.any()


def test_every_object_stays_mostly_visible(scenes: list[Scene]) -> None:
    for scene in scenes:
        grounds = [footprint(item, 96) for item in scene.objects]
        for place, ground in enumerate(grounds):
            covered = np.any([np.zeros_like(ground), *grounds[place + 1 :]], axis=0)
            assert (ground & ~covered).sum() >= 0.6 * ground.sum()


def test_no_two_objects_are_alike_and_many_share_most_attributes(scenes: list[Scene]) -> None:
    similar = 0
    for scene in scenes:
        looks = [item.attributes() for item in scene.objects]
        assert len(set(looks)) == len(looks)
        similar += any(sum(x == y for x, y in zip(a, b, strict=True)) >= 2 for a in looks for b in looks if a != b)
    assert similar > SCENES / 2


def test_referring_expressions_mean_one_object(scenes: list[Scene]) -> None:
    kinds: set[str] = set()
    for index, scene in enumerate(scenes):
        for target, reference, text in expressions(scene, 3, scene_rng(7, "train", index, "expressions")):
            assert reader_finds(scene, text) == [scene.objects[target]], text
            kinds.add(reference.kind)
    assert kinds == {"attributes", "extreme", "relation"}


def test_captions_are_five_different_and_say_true_numbers(scenes: list[Scene]) -> None:
    for index, scene in enumerate(scenes):
        sentences = captions(scene, scene_rng(7, "train", index, "captions"))
        assert len(set(sentences)) == 5
        counted = 0
        for sentence in sentences:
            for number, phrase in COUNTED.findall(sentence):
                counted += 1
                assert len(reader_finds(scene, phrase.replace("objects", "shapes"))) == NUMBERS[number], sentence
        assert counted >= 2


def test_relations_in_captions_hold(scenes: list[Scene]) -> None:
    thing = r"an? (?:\w+ )*?(?:" + "|".join(SHAPES) + r")(?: with (?:stripes|dots))?"
    relation = re.compile(rf"({thing}) (?:is )?(?:to the )?(left|right|above|over|below|under)(?: of)? ({thing})")
    seen = 0
    for index, scene in enumerate(scenes):
        for sentence in captions(scene, scene_rng(7, "train", index, "captions")):
            for first, word, second in relation.findall(sentence):
                seen += 1
                holds = RELATIONS[SYNONYMS.get(str(word), str(word))]
                pairs = [(a, b) for a in reader_finds(scene, first) for b in reader_finds(scene, second)]
                assert any(a is not b and holds(a, b) for a, b in pairs), sentence
    assert seen > SCENES


def test_region_phrases_belong_to_their_boxes(scenes: list[Scene]) -> None:
    kinds: dict[str, int] = dict.fromkeys(("object", "group", "part"), 0)
    for index, scene in enumerate(scenes):
        elements = region_elements(scene, scene_rng(7, "train", index, "regions"))
        assert {tuple(element["bb"]) for element in elements} >= {item.box for item in scene.objects}
        for element in elements:
            x, y, w, h = element["bb"]
            assert 0 <= x < x + w <= scene.size
            assert 0 <= y < y + h <= scene.size
            names = [element["caption"]] if isinstance(element["caption"], str) else element["caption"]
            for text in [f"{attribute} {name}".strip() for name in names for attribute in element.get("attributes", [""])]:
                kinds[check_region(scene, text, (x, y, w, h))] += 1
            assert not any(side in attribute for attribute in element.get("attributes", []) for side in ("left", "right"))
    assert min(kinds.values()) > SCENES / 3


def check_region(scene: Scene, text: str, box: tuple[int, int, int, int]) -> str:
    """Assert that a region phrase belongs to its box; returns what kind of phrase it is."""
    x, y, w, h = box
    if half := re.match(r"(left|right|top|upper|bottom|lower) half of the (.*)", text):
        (whole,) = reader_finds(scene, half[2])
        middle = whole.middle()
        ends = {"left": x + w - middle[0], "right": middle[0] - x, "top": y + h - middle[1], "bottom": middle[1] - y}
        side = (half[1] or "").replace("upper", "top").replace("lower", "bottom")
        assert abs(ends[side]) <= 1.5, text
        return "part"
    group = re.match(r"(?:the pair of|both|(?:the |all )?(?:two|three|four|five)) (.*)", text)
    members = reader_finds(scene, group[1] if group else text)
    if group:
        number = next((NUMBERS[word] for word in text.split() if word in NUMBERS), 2)
        assert len(members) == number, text
    else:
        assert len(members) == 1, text
    left, top = min(item.box[0] for item in members), min(item.box[1] for item in members)
    right, bottom = (max(item.box[axis] + item.box[axis + 2] for item in members) for axis in (0, 1))
    assert box == (left, top, right - left, bottom - top), text
    return "group" if group else "object"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "shapeworld"
    write_shapeworld(out, seed=5, train=30, validation=4, test=6)
    return out


def test_the_same_arguments_give_the_same_bytes(written: Path, tmp_path: Path) -> None:
    write_shapeworld(tmp_path / "again", seed=5, train=30, validation=4, test=6)
    write_shapeworld(tmp_path / "other", seed=6, train=30, validation=4, test=6)
    assert content_hash(tmp_path / "again") == content_hash(written)
    assert content_hash(tmp_path / "other") != content_hash(written)


def test_layouts_are_those_of_real_data(written: Path) -> None:
    for split, count in {"train": 30, "val": 4, "test": 6}.items():
        retrieval = json.loads((written / f"retrieval_{split}.json").read_text())
        grounding = json.loads((written / f"grounding_{split}.json").read_text())
        assert len({record["image"] for record in retrieval}) == count
        assert all(isinstance(record["caption"], str if split == "train" else list) for record in retrieval)
        assert len({record["ref_id"] for record in grounding}) == len(grounding) >= count
        for record in grounding:
            picture = cv2.imread(str(written / "images" / record["image"]))
            assert picture is not None
            assert picture.shape[:2] == (record["height"], record["width"])
            assert record["bbox"] in record["candidates"]
    assert {record["image_id"] for record in json.loads((written / "retrieval_train.json").read_text())} == set(range(30))


def test_shards_hold_the_training_scenes_with_captions_and_regions(written: Path) -> None:
    for prefix, keys in {"images": {"caption"}, "regions": {"caption", "elems"}}.items():
        with tarfile.open(written / "shards" / f"{prefix}-000000.tar") as shard:
            members = {member.name: shard.extractfile(member) for member in shard.getmembers()}
            assert len(members) == 60
            for index in range(30):
                picture, annotation = members[f"train-{index:06d}.png"], members[f"train-{index:06d}.json"]
                assert picture is not None
                assert annotation is not None
                assert picture.read() == (written / "images" / "train" / f"train-{index:06d}.png").read_bytes()
                assert set(json.loads(annotation.read())) == keys
        records = ShardSource([str(written / "shards" / f"{prefix}-*.tar")])
        assert len(records) == 30
        assert set(records[7].annotation) == keys


def test_the_tokenizer_has_a_whole_token_for_every_common_word(written: Path) -> None:
    vocabulary = (written / "tokenizer" / "vocab.txt").read_text(encoding="utf-8").split("\n")
    assert {"[MASK]", "circle", "red", "striped", "left", "shapes"} <= set(vocabulary)
    assert len(vocabulary) <= 1001


def test_a_second_run_does_nothing(written: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    write_shapeworld(written, seed=5, train=30, validation=4, test=6)
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == before


def test_damaged_interrupted_or_other_data_is_written_anew(tmp_path: Path) -> None:
    out = tmp_path / "data"
    write_shapeworld(out, seed=5, train=8, validation=2, test=2)
    whole = content_hash(out)
    (out / "notes.txt").write_text("mine")
    (out / "retrieval_val.json").write_text("[]")
    write_shapeworld(out, seed=5, train=8, validation=2, test=2)
    assert content_hash(out) == whole
    write_shapeworld(out, seed=5, train=4, validation=2, test=2)
    assert len(list((out / "images" / "train").iterdir())) == 4
    assert (out / "notes.txt").read_text() == "mine"


def test_data_of_an_earlier_generator_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setitem(PALETTE, "red", (200, 0, 0))
        write_shapeworld(tmp_path, seed=5, train=8, validation=2, test=2)
        earlier = content_hash(tmp_path)
    write_shapeworld(tmp_path, seed=5, train=8, validation=2, test=2)
    assert content_hash(tmp_path) != earlier


def test_an_interrupted_run_leaves_nothing_that_looks_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "data"
    with monkeypatch.context() as patched:
        patched.setattr("dataset.shapeworld.train_wordpiece", fail)
        with pytest.raises(KeyboardInterrupt):
            write_shapeworld(out, seed=5, train=4, validation=2, test=2)
    assert not (out / "meta.json").exists()
    write_shapeworld(out, seed=5, train=4, validation=2, test=2)
    assert json.loads((out / "meta.json").read_text())["sha256"] == content_hash(out)
    assert not (out / ".unfinished").exists()


def test_foreign_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match="images"):
        write_shapeworld(tmp_path, seed=5, train=4, validation=2, test=2)


@pytest.mark.parametrize("bad", [{"train": 0}, {"test": -1}, {"size": 8}, {"seed": -1}])
def test_arguments_out_of_range_are_named(tmp_path: Path, bad: dict[str, int]) -> None:
    with pytest.raises(UserError, match=next(iter(bad))):
        write_shapeworld(tmp_path, **{"seed": 1, "train": 2, "validation": 2, "test": 2, **bad})


def test_the_answers_to_embedded_questions_are_true(scenes: list[Scene]) -> None:
    kinds: dict[str, int] = {}
    for index, scene in enumerate(scenes):
        for asked in questions(scene, 6, scene_rng(7, "train", index, "questions")):
            words = asked.question.removesuffix("?")
            if match := re.fullmatch("is there (.+)", words):
                expected = "yes" if reader_finds(scene, match[1]) else "no"
            elif match := re.fullmatch("how many (.+) are there", words):
                expected = ("none", "one", *NUMBERS)[len(reader_finds(scene, match[1]))]
            elif match := re.fullmatch("(what color|what shape|is) (is )?(the .+?)( plain striped or dotted)?", words):
                attribute = {"what color": "color", "what shape": "shape"}.get(match[1], "texture" if match[4] else "")
                if attribute:
                    (item,) = reader_finds(scene, match[3])
                    expected = getattr(item, attribute)
                else:
                    first, relation, second = re.split(" (?:to the )?(left of|right of|above|over|below|under) ", match[3], maxsplit=1)
                    (a,), (b,) = reader_finds(scene, first), reader_finds(scene, second)
                    holds = RELATIONS[SYNONYMS.get(relation, relation).removesuffix(" of")](a, b)
                    expected = "yes" if holds else "no"
            else:
                raise AssertionError(asked.question)
            assert asked.answer == expected, (asked, scene)
            kinds[expected] = kinds.get(expected, 0) + 1
    assert set(kinds) >= {"yes", "no", "one", "red", "circle", "dotted"}
    assert 0.8 < kinds["yes"] / kinds["no"] < 1.25
