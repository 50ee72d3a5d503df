"""MS COCO captions and instances (any set in COCO's layout) to both pre-training streams and the retrieval lists.

    ROOT/annotations/{captions,instances}_{split}.json and ROOT/{split}/ or ROOT/images/{split}/

    OUT/shards/images-*.tar            training images with their captions
    OUT/shards/regions-*.tar           training images with their objects (box, class name) and captions
    OUT/retrieval_train.json           [{image, caption, image_id}]
    OUT/retrieval_val.json             [{image, caption: [...]}]
    OUT/retrieval_train_gallery.json   the training images in the evaluation layout, to see how well they are fitted
    OUT/tokenizer/, OUT/bad_records.txt (if there are any), OUT/meta.json (request, counts, SHA-256 of each file)

Image paths in the lists are relative to ROOT.
"""

import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import UserError
from dataset.prepare.output import PreparedFolder, sha256_of, write_json
from dataset.prepare.pack import PackOptions, PackReport, fit_element, pack, write_bad_records
from dataset.prepare.raw import read_image_file, read_json
from dataset.prepare.tokenizer import provide_tokenizer
from dataset.records import Record

logger = logging.getLogger(__name__)

LAYOUT = "coco"
VERSION = 1  # raise it when the same input comes to give other output

ProgressOf = Callable[[str], Callable[[int, int], None]]
"""Makes the progress callback of one named part of the work."""


@dataclass(frozen=True)
class CocoImage:
    """One image: id, path relative to the root, captions, usable elements {bb, caption}."""

    id: int | str
    path: str
    captions: list[str]
    elements: list[dict[str, Any]]


@dataclass
class CocoSplit:
    """The annotated images of a split in the order of the captions file, and what was left out."""

    images: list[CocoImage]
    counts: dict[str, int] = field(default_factory=dict)


class CocoRecords:
    """A split as a record source: images with captions, or images with elements (and captions)."""

    def __init__(self, root: Path, images: list[CocoImage], with_elements: bool) -> None:
        self.root = root
        self.with_elements = with_elements
        self.images = [image for image in images if (image.elements if with_elements else image.captions)]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Record:
        image = self.images[index]
        annotation: dict[str, Any] = {"caption": image.captions} if image.captions else {}
        if self.with_elements:
            annotation = {"elems": image.elements, **annotation}
        return Record(Path(image.path).stem, read_image_file(self.root / image.path, f"image {image.id}"), annotation)


@dataclass(frozen=True)
class CocoRequest:
    """What is asked of `prepare_coco`.

    Attributes:
        root: COCO's folder.
        out: folder to write; what it holds of an earlier request is replaced only with `overwrite`.
        split, val_split: names of the splits; no validation where the latter is None.
        pack: how images are stored.
        vocab: folder of a BertTokenizer to take over; None trains one.
        vocab_size: upper bound of the entries of a trained vocabulary.
        max_bad: how many records may be bad, or, as a float, which share.
        overwrite: replace what another request wrote.
    """

    root: Path
    out: Path
    split: str = "train2017"
    val_split: str | None = "val2017"
    pack: PackOptions = field(default_factory=PackOptions)
    vocab: Path | None = None
    vocab_size: int = 10_000
    max_bad: int | float = 0.01
    overwrite: bool = False


def prepare_coco(request: CocoRequest, progress: ProgressOf | None = None) -> dict[str, Any]:
    """Write the prepared data set, or do nothing where the same request has been carried out already.

    Returns:
        The content of meta.json.

    Raises:
        UserError: files are missing or damaged, too many records are bad, or OUT holds something else.
    """
    splits = [split for split in (request.split, request.val_split) if split is not None]
    annotations = {split: annotation_files(request.root, split) for split in splits}
    asked = _fingerprint(request, annotations)
    output = PreparedFolder(request.out, ENTRIES)
    done = output.completed(asked)
    if done is not None:
        logger.info("%s: complete already", request.out)
        return done
    output.check_free(request.overwrite)
    loaded = {split: load_split(request.root, split, *files) for split, files in annotations.items()}
    with output as folder:
        reports = _write_streams(request, loaded[request.split], folder, progress)
        counts = _write_lists(request, loaded, folder)
        texts = [text for image in loaded[request.split].images for text in _texts(image)]
        counts["tokenizer_entries"] = provide_tokenizer(folder / "tokenizer", texts, request.vocab, request.vocab_size)
        counts |= {f"{name}_{key}": value for name, report in reports.items() for key, value in _report_counts(report).items()}
        counts |= {f"{split}_{key}": value for split, part in loaded.items() for key, value in part.counts.items()}
        bad = [f"{name}: {message}" for name, report in reports.items() for message in report.bad]
        # beside the folder under way, so that the list stays when too many are bad
        write_bad_records(request.out / "bad_records.txt", bad, sum(report.records for report in reports.values()), request.max_bad)
        return output.finish({"request": asked, "counts": counts})


LISTS = ("retrieval_train.json", "retrieval_val.json", "retrieval_train_gallery.json")
ENTRIES = ("shards", "tokenizer", *LISTS)


def annotation_files(root: Path, split: str) -> tuple[Path, Path]:
    """The captions and instances files of a split.

    Raises:
        UserError: the root or a file is missing.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; --root is COCO's folder with annotations/ and the image folders in it")
    folder = root / "annotations"
    files = folder / f"captions_{split}.json", folder / f"instances_{split}.json"
    for file in files:
        if not file.is_file():
            present = ", ".join(sorted(path.name for path in folder.glob("*.json"))) or "no JSON files"
            raise UserError(f"{file}: no such file; {folder} holds {present}")
    return files


def load_split(root: Path, split: str, captions_file: Path, instances_file: Path) -> CocoSplit:
    """Read a split's annotations.

    Crowd regions are left out. Boxes are cut to the image; those of less than a pixel's width or height are left out.

    Raises:
        UserError: a file is damaged or not in COCO's layout, or the image folder is missing.
    """
    folder = next((name for name in (split, f"images/{split}") if (root / name).is_dir()), None)
    if folder is None:
        raise UserError(f"{root / split}: no such folder; the images of split {split} belong there")
    counts = {"captions": 0, "objects": 0, "crowds_left_out": 0, "boxes_left_out": 0, "images_without_objects": 0}
    content = read_json(captions_file)
    captions = _captions(captions_file, content)
    instances = _objects(instances_file, read_json(instances_file), counts)
    images: list[CocoImage] = []
    for image in _rows(captions_file, content, "images", "id", "file_name", "width", "height"):
        size = (image["width"], image["height"])
        if not all(isinstance(side, int) and side > 0 for side in size):
            raise UserError(f"{captions_file}: image {image['id']} is {size[0]} x {size[1]} pixels; sizes are positive whole numbers")
        fitted = [fit_element(element, size, size) for element in instances.get(image["id"], ())]
        elements = [element for element in fitted if element is not None]
        counts["boxes_left_out"] += len(fitted) - len(elements)
        counts["objects"] += len(elements)
        counts["images_without_objects"] += not elements
        texts = captions.get(image["id"], [])
        counts["captions"] += len(texts)
        images.append(CocoImage(image["id"], f"{folder}/{image['file_name']}", texts, elements))
    return CocoSplit(images, {"images": len(images), **counts})


def _captions(file: Path, content: Any) -> dict[int | str, list[str]]:
    captions: dict[int | str, list[str]] = defaultdict(list)
    for row in _rows(file, content, "annotations", "image_id", "caption"):
        text = " ".join(str(row["caption"]).split())  # some captions end in a line break
        if text:
            captions[row["image_id"]].append(text)
    return captions


def _objects(file: Path, content: Any, counts: dict[str, int]) -> dict[int | str, list[dict[str, Any]]]:
    names = {row["id"]: row["name"] for row in _rows(file, content, "categories", "id", "name")}
    objects: dict[int | str, list[dict[str, Any]]] = defaultdict(list)
    for row in _rows(file, content, "annotations", "image_id", "bbox", "category_id"):
        if row.get("iscrowd"):
            counts["crowds_left_out"] += 1
        elif row["category_id"] not in names:
            raise UserError(
                f"{file}: annotation of image {row['image_id']} has category {row['category_id']}, which categories do not hold"
            )
        else:
            objects[row["image_id"]].append({"bb": row["bbox"], "caption": names[row["category_id"]]})
    return objects


def _rows(file: Path, content: Any, section: str, *keys: str) -> list[dict[str, Any]]:
    """One section of an annotation file, each row with these keys. Raises UserError."""
    rows = content.get(section) if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise UserError(f'{file}: has no list "{section}"; it is not an annotation file in COCO\'s layout')
    for number, row in enumerate(rows):
        missing = [key for key in keys if not isinstance(row, dict) or key not in row]
        if missing:
            raise UserError(f"{file}: {section}[{number}] has no {', '.join(missing)}; it is not an annotation file in COCO's layout")
    return rows


def _fingerprint(request: CocoRequest, annotations: dict[str, tuple[Path, Path]]) -> dict[str, Any]:
    """What the output depends on, apart from the images themselves; the same wherever the folders lie."""
    return {
        "layout": LAYOUT,
        "version": VERSION,
        "split": request.split,
        "val_split": request.val_split,
        "resize": request.pack.resize,
        "quality": request.pack.quality,
        "max_samples": request.pack.max_samples,
        "vocab": None if request.vocab is None else str(request.vocab),
        "vocab_size": request.vocab_size,
        "annotations": {file.name: sha256_of(file) for files in annotations.values() for file in files},
    }


def _write_streams(request: CocoRequest, split: CocoSplit, folder: Path, progress: ProgressOf | None) -> dict[str, PackReport]:
    reports: dict[str, PackReport] = {}
    for name, with_elements in (("images", False), ("regions", True)):
        source = CocoRecords(request.root, split.images, with_elements)
        if not len(source):
            raise UserError(f"{request.root}: no image of split {request.split} has {'objects' if with_elements else 'captions'}")
        reports[name] = pack(source, folder / "shards", name, request.pack, progress(name) if progress else None)
    return reports


def _write_lists(request: CocoRequest, loaded: dict[str, CocoSplit], folder: Path) -> dict[str, int]:
    """Write the retrieval lists, of images that exist; returns their lengths."""
    lists: dict[str, list[dict[str, Any]]] = {}
    train = _present(request.root, loaded[request.split])
    lists[LISTS[0]] = [{"image": image.path, "caption": text, "image_id": image.id} for image in train for text in image.captions]
    if request.val_split is not None:
        lists[LISTS[1]] = [{"image": image.path, "caption": image.captions} for image in _present(request.root, loaded[request.val_split])]
    lists[LISTS[2]] = [{"image": image.path, "caption": image.captions} for image in train]
    for name, rows in lists.items():
        write_json(folder / name, rows)
    return {name.removesuffix(".json"): len(rows) for name, rows in lists.items()}


def _present(root: Path, split: CocoSplit) -> list[CocoImage]:
    """The images with captions whose files exist; counts the others. Raises UserError where none is left."""
    captioned = [image for image in split.images if image.captions]
    if not captioned:
        raise UserError(f"{root}: no image of a split has captions")
    present = [image for image in captioned if (root / image.path).is_file()]
    split.counts["images_missing"] = len(captioned) - len(present)
    if not present:
        raise UserError(f"{root}: none of the {len(captioned):,} captioned images is there, the first is {captioned[0].path}")
    if len(present) < len(captioned):
        logger.warning("%s: %d of %d captioned images are missing", root, len(captioned) - len(present), len(captioned))
    return present


def _texts(image: CocoImage) -> list[str]:
    return image.captions + [element["caption"] for element in image.elements]


def _report_counts(report: PackReport) -> dict[str, int]:
    counts = {"samples": report.samples, "shards": len(report.shards), "bad_records": len(report.bad)}
    return counts | ({"elements": report.elements, "dropped_elements": report.dropped_elements} if report.elements else {})
