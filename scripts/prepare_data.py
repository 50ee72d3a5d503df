r"""Prepare a public data set for training: shards of its streams, retrieval lists and a tokenizer.

    python scripts/prepare_data.py coco --root data/coco --out data/coco_prepared --resize 320
    python scripts/prepare_data.py easy_vqa --out data/easy_vqa
    python scripts/prepare_data.py video --root videos --out data/videos --resize 256
    python scripts/prepare_data.py parallel --source news.de --target news.en --languages de en --out data/news_de_en
    python scripts/prepare_data.py parallel --tsv WikiMatrix.de-en.tsv.gz --columns 2 3 --score 1 1.04 --out data/wikimatrix/de-en
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

from common.errors import UserError
from common.scripts import run_script
from dataset.prepare.coco import CocoRequest, prepare_coco
from dataset.prepare.easy_vqa import EasyVqaRequest, prepare_easy_vqa
from dataset.prepare.msrvtt import MsrvttRequest, prepare_msrvtt
from dataset.prepare.pack import PackOptions
from dataset.prepare.parallel import ParallelRequest, prepare_parallel
from dataset.prepare.phrases import prepare_phrases
from dataset.prepare.progress import Progress
from dataset.prepare.video import VideoRequest, prepare_video
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
    video = data_sets.add_parser("video", parents=shared, help="a folder of videos with captions beside them")
    video.add_argument("--fps", type=float, default=2.0, help="frames of a second that are kept (default: %(default)s)")
    video.add_argument("--max_frames", type=int, default=32, help="most frames of a clip (default: %(default)s)")
    video.set_defaults(run=run_video)
    msrvtt = data_sets.add_parser("msrvtt", help="MSR-VTT, the lists of the 1k-A split for retrieval")
    msrvtt.add_argument("--root", type=Path, required=True, help="folder of MSRVTT_data.json and the two lists of clips")
    msrvtt.add_argument("--out", type=Path, required=True, help="folder to write")
    msrvtt.add_argument("--overwrite", action="store_true", help="replace what another request wrote to the output folder")
    msrvtt.set_defaults(run=run_msrvtt)
    add_parallel(data_sets.add_parser("parallel", help="parallel text: two files with a sentence a line, or columns of one"))
    add_phrases(data_sets).set_defaults(run=run_phrases)
    options = parser.parse_args(arguments)
    for name in ("resize", "quality", "max_samples", "vocab_size", "max_frames"):
        if getattr(options, name, None) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return options


def add_parallel(parser: argparse.ArgumentParser) -> None:
    """The options of parallel text."""
    parser.add_argument("--source", type=Path, help="a sentence a line; .gz is unpacked")
    parser.add_argument("--target", type=Path, help="their translations, line by line")
    parser.add_argument("--tsv", type=Path, help="a file with both in columns between tabs, in place of --source and --target")
    parser.add_argument("--columns", type=int, nargs=2, default=(1, 2), metavar="N", help="of the two texts, from 1 (default: 1 2)")
    parser.add_argument("--score", nargs=2, metavar=("N", "LEAST"), help="column with a score, and the least one that is taken")
    parser.add_argument("--languages", nargs=2, metavar="CODE", help="of the two texts, written beside them")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--max_samples", type=int, default=20_000, help="pairs a shard (default: %(default)s)")
    parser.add_argument("--max_bad", type=float, default=0.05, help="share of lines that may hold no pair (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace what another request wrote to the output folder")
    parser.set_defaults(run=run_parallel)


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


def run_video(options: argparse.Namespace) -> None:
    """Prepare a folder of videos and say what came of it."""
    request = VideoRequest(
        root=options.root,
        out=options.out,
        fps=options.fps,
        max_frames=options.max_frames,
        resize=options.resize,
        quality=options.quality,
        max_samples=options.max_samples,
        vocab=options.vocab,
        vocab_size=options.vocab_size,
        max_bad=options.max_bad,
        overwrite=options.overwrite,
    )
    show_counts(prepare_video(request, Progress)["counts"])


def run_msrvtt(options: argparse.Namespace) -> None:
    """Prepare MSR-VTT and say what came of it."""
    show_counts(prepare_msrvtt(MsrvttRequest(options.root, options.out, options.overwrite))["counts"])


def run_parallel(options: argparse.Namespace) -> None:
    """Prepare parallel text and say what came of it."""
    if min(options.columns) < 1:
        raise UserError(f"--columns {options.columns[0]} {options.columns[1]}: columns are counted from 1.")
    score = None
    if options.score is not None:
        try:
            score = int(options.score[0]), float(options.score[1])
        except ValueError as error:
            raise UserError(f"--score {' '.join(options.score)}: must be the number of a column and the least score.") from error
    request = ParallelRequest(
        out=options.out,
        source=options.source,
        target=options.target,
        tsv=options.tsv,
        columns=(options.columns[0], options.columns[1]),
        score=score,
        languages=None if options.languages is None else (options.languages[0], options.languages[1]),
        max_samples=options.max_samples,
        max_bad=options.max_bad,
        overwrite=options.overwrite,
    )
    show_counts(prepare_parallel(request, Progress("parallel"))["counts"])


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
