"""MSR-VTT as it is downloaded to the lists that retrieval is trained and measured on (the 1k-A split).

    ROOT/MSRVTT_data.json               {videos: [{video_id, split}], sentences: [{video_id, caption}]}
    ROOT/MSRVTT_train.9k.csv            column video_id: the training clips
    ROOT/MSRVTT_JSFUSION_test.csv       columns video_id, sentence: the test clips, one caption each

    OUT/msrvtt_train.json               [{image, caption, image_id}], all captions of the training clips
    OUT/msrvtt_{val,test}.json          [{image, caption: [text, ...]}]; validation are clips in neither list or, where there are none as
                                        in the published split, 500 that are taken out of training, with all captions
    OUT/meta.json                       counts, SHA-256 of each file

Clips are named NAME.mp4, relative to the folder of videos.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from dataset.prepare.output import PreparedFolder, sha256_of, write_json
from dataset.prepare.raw import read_json

DATA, TRAIN, TEST = "MSRVTT_data.json", "MSRVTT_train.9k.csv", "MSRVTT_JSFUSION_test.csv"
ENTRIES = tuple(f"msrvtt_{split}.json" for split in ("train", "val", "test"))
VALIDATION = 500
"""Most clips of validation."""


@dataclass(frozen=True)
class MsrvttRequest:
    """What is asked of `prepare_msrvtt`: the folder of the downloaded files, the folder to write, and whether to replace what is there."""

    root: Path
    out: Path
    overwrite: bool = False


def prepare_msrvtt(request: MsrvttRequest) -> dict[str, Any]:
    """Write the lists, or do nothing where they already are.

    Returns:
        The content of meta.json.

    Raises:
        UserError: a file is missing or malformed, no clip is left for validation, or OUT holds something else.
    """
    root = request.root
    captions = _captions(root / DATA)
    train = [row["video_id"] for row in _rows(root / TRAIN, ("video_id",))]
    test = [(row["video_id"], row["sentence"]) for row in _rows(root / TEST, ("video_id", "sentence"))]
    unknown = [video for video in train if video not in captions]
    if unknown:
        raise UserError(f"{root / TRAIN}: {unknown[0]} has no caption in {DATA}.")
    taken = {*train, *(video for video, _ in test)}
    validation = [video for video in captions if video not in taken][:VALIDATION] or _last_of(train)
    train = [video for video in train if video not in set(validation)]
    asked = {"layout": "msrvtt", "files": {name: sha256_of(root / name) for name in (DATA, TRAIN, TEST)}}
    folder = PreparedFolder(request.out, ENTRIES)
    if (meta := folder.completed(asked)) is not None:
        return meta
    folder.check_free(request.overwrite)
    with folder as working:
        pairs = [{"image": f"{video}.mp4", "caption": text, "image_id": video} for video in train for text in captions[video]]
        write_json(working / "msrvtt_train.json", pairs)
        write_json(working / "msrvtt_val.json", [{"image": f"{video}.mp4", "caption": captions[video]} for video in validation])
        write_json(working / "msrvtt_test.json", [{"image": f"{video}.mp4", "caption": [text]} for video, text in test])
        counts = {"training_pairs": len(pairs), "validation_clips": len(validation), "test_clips": len(test)}
        return folder.finish({"request": asked, "counts": counts})


def _last_of(train: list[str]) -> list[str]:
    """Where the two lists cover all clips, as those of the published split do, a part of the training clips is held out."""
    return train[-min(VALIDATION, len(train) // 10) :] if len(train) >= 10 else train[-1:]


def _captions(file: Path) -> dict[str, list[str]]:
    """The captions of each clip, in the file's order."""
    content = read_json(file)
    found: dict[str, list[str]] = defaultdict(list)
    try:
        for sentence in content["sentences"]:
            found[sentence["video_id"]].append(sentence["caption"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{file}: sentences must be a list of {{video_id, caption}} ({error}).") from error
    return dict(found)


def _rows(file: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            rows = list(csv.DictReader(opened))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: cannot be read ({error}).") from error
    missing = [column for column in columns if not rows or not rows[0].get(column)]
    if missing:
        raise UserError(f"{file}: has no column {missing[0]}.")
    return rows
