"""Statements of the embedded data set are true and false as they are labelled."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from dataset.shapeworld_sample import make_scene
from dataset.shapeworld_scene import COLORS, SHAPES, TEXTURES, Scene
from dataset.shapeworld_statements import META, UNSEEN, hypotheses, pair_statements, write_statements

COUNT, SEED, SIZE = 60, 5, 32


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(SEED, "val", index, SIZE) for index in range(COUNT)]


def holds_one(scene: Scene, text: str) -> bool:
    """Whether a scene has an object with every colour, shape and texture that the text names."""
    words = {word.rstrip("s") if word.rstrip("s") in (*SHAPES, "stripe", "dot") else word for word in text.split()}
    words |= {{"stripe": "striped", "dot": "dotted"}[word] for word in words & {"stripe", "dot"}}
    named = words & {*SHAPES, *COLORS, *TEXTURES, "plain"}
    assert named, text
    return any(named <= {item.shape, item.color, item.texture} for item in scene.objects)


def test_statements_about_pairs_have_the_labels_that_the_scenes_say(scenes: list[Scene]) -> None:
    records = pair_statements(scenes, "val", SEED)
    assert len(records) == 2 * COUNT
    by_sentence = defaultdict(list)
    for record in records:
        left, right = (holds_one(scenes[int(path[-10:-4])], record["sentence"]) for path in record["images"])
        sentence = record["sentence"]
        if "both pictures" in sentence:
            truth = left and right
        elif "only one" in sentence:
            truth = left != right
        else:
            truth = left if "left picture" in sentence else right
        assert record["label"] == str(truth), record
        assert record["images"][0] != record["images"][1]
        by_sentence[record["identifier"].split("-")[1]].append(record["label"])
    assert all(sorted(labels) == ["False", "True"] for labels in by_sentence.values())
    first = Counter(labels[0] for labels in by_sentence.values())
    assert min(first.values()) > COUNT // 4  # neither comes first as a rule


def test_hypotheses_have_the_labels_that_the_scene_says(scenes: list[Scene]) -> None:
    kinds: Counter[tuple[str, bool]] = Counter()
    for index, scene in enumerate(scenes):
        records = hypotheses(scene, "val", index, SEED)
        assert {record["gold_label"] for record in records} == {"contradiction", "neutral", "entailment"}
        for record in records:
            text, label = record["sentence2"], record["gold_label"]
            unseen = text.split()[-1] in UNSEEN
            relates = any(word in text.split() for word in ("left", "right", "above", "over", "below", "under"))
            if not relates:
                assert holds_one(scene, text) == (label != "contradiction"), record
            assert unseen == (label == "neutral") or label == "contradiction"
            kinds[label, unseen] += 1
    # a contradiction of either sort must be as likely, or the text would give the label away
    assert abs(kinds["contradiction", True] - kinds["contradiction", False]) < COUNT // 2


def test_relations_are_true_or_turned_round(scenes: list[Scene]) -> None:
    found = 0
    for index, scene in enumerate(scenes):
        for record in hypotheses(scene, "val", index, SEED):
            words = record["sentence2"].split()
            if "left" not in words and "right" not in words:
                continue
            side = "left" if "left" in words else "right"
            place = words.index(side)
            (first,), (second,) = (
                [item for item in scene.objects if {item.color, item.shape} <= set(part)] for part in (words[:place], words[place:])
            )
            is_left = first.middle()[0] < second.middle()[0]
            assert (is_left == (side == "left")) == (record["gold_label"] == "entailment")
            found += 1
    assert found > 3


def test_files_are_written_once_and_leave_the_rest_alone(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text("kept")
    counts = {"train": 12, "val": 6, "test": 6}
    write_statements(tmp_path, SEED, counts, SIZE)
    meta = json.loads((tmp_path / META).read_text())
    assert meta["records"] == {
        f"{kind}_{split}": factor * count for split, count in counts.items() for kind, factor in (("nlvr", 2), ("entailment", 3))
    }
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    write_statements(tmp_path, SEED, counts, SIZE)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    (tmp_path / "nlvr_val.json").write_text("[]")
    write_statements(tmp_path, SEED, counts, SIZE)
    assert len(json.loads((tmp_path / "nlvr_val.json").read_text())) == 12
    assert (tmp_path / "meta.json").read_text() == "kept"
