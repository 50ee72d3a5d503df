r"""Prepare a public data set for training: shards of its streams, retrieval lists and a tokenizer.

    python scripts/prepare_data.py coco --root data/coco --out data/coco_prepared --resize 320
    python scripts/prepare_data.py easy_vqa --out data/easy_vqa
    python scripts/prepare_data.py phrases --shards 'data/coco_prepared/shards/regions-*.tar' --tokenizer data/coco_prepared/tokenizer \
        --out data/coco_concepts

Safe to run twice: the outcome of the same request is left as it is. Exit status: 0 done, 2 wrong input or too many bad records.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script finds the project wherever it is started

from common.scripts import run_script
from dataset.prepare.coco import CocoRequest, prepare_coco
from dataset.prepare.easy_vqa import EasyVqaRequest, prepare_easy_vqa
from dataset.prepare.pack import PackOptions
from dataset.prepare.phrases import prepare_phrases
from dataset.prepare.progress import Progress
from scripts.concept_options import add_phrases, phrase_request

RESIZE = (
    "shrink images in shards to this shortest side in pixels, boxes along with them; 320 for training at 224 px and 544 at 384 px, less "
    "(256, 448) is faster and softer, more (384, 672) nearly as sharp as the originals"
)


def common_options() -> argparse.ArgumentParser:
    """What every data set's subcommand takes."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--root", type=Path, required=True, help="the data set's folder as it was downloaded")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--resize", type=int, help=RESIZE)
    parser.add_argument("--quality", type=int, default=90, help="JPEG quality of shrunk images (default: %(default)s)")
    parser.add_argument("--max_samples", type=int, default=1000, help="samples a shard (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=min(8, os.cpu_count() or 1), help="processes; 0: this one (default: %(default)s)")
    parser.add_argument("--max_bad", type=float, default=0.01, help="share of records that may be bad (default: %(default)s)")
    parser.add_argument("--vocab", type=Path, help="BertTokenizer folder to take over; without it a vocabulary is trained on the texts")
    parser.add_argument("--vocab_size", type=int, default=10_000, help="upper bound of a trained vocabulary (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace what another request wrote to the output folder")
    return parser


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data_sets = parser.add_subparsers(dest="data_set", required=True)
    shared = [common_options()]
    coco = data_sets.add_parser("coco", parents=shared, help="MS COCO captions and instances, or any set in its layout")
    coco.add_argument("--split", default="train2017", help="split that is trained on (default: %(default)s)")
    coco.add_argument("--val_split", default="val2017", help='validation split, "none" for none (default: %(default)s)')
    coco.set_defaults(run=run_coco)
    easy_vqa = data_sets.add_parser("easy_vqa", help="easy-VQA, from the package easy-vqa: pictures of shapes with questions")
    easy_vqa.add_argument("--root", type=Path, help="the package's folder data (default: that of the installed package)")
    easy_vqa.add_argument("--out", type=Path, required=True, help="folder to write")
    easy_vqa.add_argument("--overwrite", action="store_true", help="replace what another request wrote to the output folder")
    easy_vqa.set_defaults(run=run_easy_vqa)
    add_phrases(data_sets).set_defaults(run=run_phrases)
    options = parser.parse_args(arguments)
    for name in ("resize", "quality", "max_samples", "vocab_size"):
        if getattr(options, name, None) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return options


def pack_options(options: argparse.Namespace) -> PackOptions:
    """How images are stored, from the shared options."""
    return PackOptions(max_samples=options.max_samples, resize=options.resize, quality=options.quality, workers=options.workers)


def run_coco(options: argparse.Namespace) -> None:
    """Prepare COCO and say what came of it."""
    request = CocoRequest(
        root=options.root,
        out=options.out,
        split=options.split,
        val_split=None if options.val_split in ("", "none") else options.val_split,
        pack=pack_options(options),
        vocab=options.vocab,
        vocab_size=options.vocab_size,
        max_bad=options.max_bad,
        overwrite=options.overwrite,
    )
    show_counts(prepare_coco(request, Progress)["counts"])


def run_easy_vqa(options: argparse.Namespace) -> None:
    """Prepare easy-VQA and say what came of it."""
    show_counts(prepare_easy_vqa(EasyVqaRequest(options.out, options.root, options.overwrite))["counts"])


def run_phrases(options: argparse.Namespace) -> None:
    """Add phrases and tags to shards and say what came of it."""
    show_counts(prepare_phrases(phrase_request(options), Progress("phrases"))["counts"])


def show_counts(counts: dict[str, int]) -> None:
    """A line each."""
    for name, count in counts.items():
        print(f"{count:>10,}  {name.replace('_', ' ')}")


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    return run_script(lambda: options.run(options))


if __name__ == "__main__":
    sys.exit(main())
