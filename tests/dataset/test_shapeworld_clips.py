"""The embedded clips: captions that are true, and wrong ones that are true of the same frames backwards."""

import json
from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError
from dataset.clips import ClipReader
from dataset.records import open_source
from dataset.shapeworld_clips import ENTRIES, FRAMES, KINDS, captions, frames, make_clip, question, write_clips
from dataset.tasks.vqa_files import read_questions
from dataset.tokenizers import load_tokenizer


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> Path:
    out = tmp_path_factory.mktemp("shapeworld")
    for name in ("shards", "grounding_train.json"):
        (out / name).symlink_to(small_data / name)
    write_clips(out, seed=3, train=8, validation=8, test=8, size=32)
    return out / "clips"


def test_every_kind_has_a_twin_of_the_same_frames_backwards():
    for index in range(0, 2 * len(KINDS), 2):
        clip, twin = make_clip(1, "val", index), make_clip(1, "val", index + 1)
        assert clip.kind == KINDS[index // 2]
        assert np.array_equal(frames(clip, 32), frames(twin, 32)[::-1])
        assert not np.array_equal(frames(clip, 32), frames(twin, 32))
        assert captions(clip) == captions(twin.backwards())
        assert all(one != other for one, other in zip(captions(clip), captions(twin), strict=True))
        if clip.kind != "turn":  # the same words in another order
            assert sorted(captions(clip)[1].split()) == sorted(captions(twin)[1].split())


def test_motions_go_where_the_words_say():
    for index in range(0, 400, 2):
        clip = make_clip(5, "train", index)
        if clip.kind not in ("path", "turn"):
            continue
        mover = clip.actors[-1]
        moved = np.subtract(mover.centers[-1], mover.centers[0])
        if clip.kind == "path":
            axis = 0 if clip.words[1] in ("left", "right") else 1
            assert (moved[axis] > 0) == (clip.words[2] in ("right", "bottom"))
            assert abs(moved[axis]) > 0.3 > abs(moved[1 - axis])
        else:
            for word, part in zip(clip.words[1:], ((0, 1), (FRAMES - 2, FRAMES - 1)), strict=True):
                step = np.subtract(mover.centers[part[1]], mover.centers[part[0]])
                axis = 0 if word in ("left", "right") else 1
                assert abs(step[axis]) > abs(step[1 - axis])
                assert (step[axis] > 0) == (word in ("right", "down"))


def test_answers_are_about_the_order():
    for index in range(8):
        clip = make_clip(2, "val", index)
        text, answer = question(clip, np.random.default_rng(0))
        assert question(clip.backwards(), np.random.default_rng(0)) != (text, answer)
        assert answer in clip.words


def test_the_files_are_those_of_real_data_and_writing_again_changes_nothing(clips: Path):
    assert {path.name for path in clips.iterdir()} == {*ENTRIES, "meta.json"} - {"order_train.json"}
    source = open_source([str(clips / "shards/clips-*.tar")])
    assert len(source) == 8
    record = source[0]
    assert record.image is not None
    assert len(ClipReader(4, 10_000).video(record.image, None)) == 4
    order = json.loads((clips / "order_val.json").read_text())
    assert [item["caption"] for item in order[::2]] == [item["wrong"] for item in order[1::2]]
    tokenizer = load_tokenizer(clips / "tokenizer")
    assert tokenizer.unk_token_id not in tokenizer(order[0]["caption"])["input_ids"]
    questions = read_questions(clips / "questions_test.json")
    assert all((clips / "videos" / item.image).is_file() for item in questions)
    before = (clips / "meta.json").stat().st_mtime_ns
    write_clips(clips.parent, seed=3, train=8, validation=8, test=8, size=32)
    assert (clips / "meta.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="come in pairs"):
        write_clips(clips.parent, seed=3, train=7, validation=8, test=8, size=32)
