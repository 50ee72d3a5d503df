"""Turn unpacked data into tar shards.

    python scripts/make_shards.py data/cc3m/part-*.json --out data/shards --prefix cc3m            # JSON lines, images as base64 text
    python scripts/make_shards.py data/list.jsonl --image_root data/photos --out data/shards       # JSON lines, images as paths
    python scripts/make_shards.py data/list.json --image_root data/photos --out data/shards        # [{image, caption(s)[, elems]}, ...]
    python scripts/make_shards.py data/folder --out data/shards --resize 384                       # images with NAME.json or NAME.txt
    python scripts/make_shards.py imagenet/train --without_texts --out data/shards --prefix imagenet --resize 256  # images alone

Bad records are left out, counted, and named in OUT/bad_records.txt. Exit status: 0 done, 2 wrong input or too many bad records.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script finds the project wherever it is started

from common.errors import UserError
from common.scripts import run_script
from dataset.prepare.pack import PackOptions, pack, remove_shards, write_bad_records
from dataset.prepare.progress import Progress
from dataset.prepare.raw import open_raw


def count_or_share(text: str) -> int | float:
    """`20` is a count, `0.01` a share."""
    value: int | float = float(text) if "." in text else int(text)
    if value < 0 or (isinstance(value, float) and value > 1):
        raise argparse.ArgumentTypeError("give a count, or a share between 0.0 and 1.0")
    return value


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", nargs="+", help="a folder of images, a JSON list, or JSON-lines files (braces and globs may be quoted)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the shards")
    parser.add_argument("--prefix", default="samples", help="shards are called PREFIX-000000.tar ... (default: %(default)s)")
    parser.add_argument("--image_root", type=Path, help="folder that image paths are relative to; without it images are base64 text")
    parser.add_argument("--image_key", help='key of the image (default: "image" for paths, "binary" for base64 text)')
    parser.add_argument("--caption_key", default="caption", help="key of the captions (default: %(default)s)")
    parser.add_argument("--without_texts", action="store_true", help="images alone, for an `image` stream: annotations are left out")
    parser.add_argument("--max_samples", type=positive, default=1000, help="samples a shard (default: %(default)s)")
    parser.add_argument("--resize", type=positive, help="shrink images to this shortest side in pixels, boxes along with them")
    parser.add_argument("--quality", type=positive, default=90, help="JPEG quality of shrunk images (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=min(8, os.cpu_count() or 1), help="processes; 0: this one (default: %(default)s)")
    parser.add_argument(
        "--max_bad", type=count_or_share, default=0.01, help="bad records to accept, a count or a share such as 0.01 (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the shards of this prefix in the output folder")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    """Pack the input as the options say."""
    if next(options.out.glob(f"{options.prefix}-[0-9]*.tar"), None) is not None and not options.overwrite:
        raise UserError(f"{options.out}: holds {options.prefix}-*.tar already; choose another --prefix or --out, or add --overwrite")
    source = open_raw(options.input, options.image_root, options.image_key, texts=not options.without_texts)
    remove_shards(options.out, options.prefix)
    settings = PackOptions(
        max_samples=options.max_samples,
        resize=options.resize,
        quality=options.quality,
        caption_key=options.caption_key,
        workers=options.workers,
        texts=not options.without_texts,
    )
    report = pack(source, options.out, options.prefix, settings, Progress(options.prefix))
    print(
        f"{options.out}/{options.prefix}-*.tar: {report.samples:,} samples in {len(report.shards):,} shards, {report.elements:,} elements "
        f"({report.dropped_elements:,} dropped), {len(report.bad):,} bad records left out"
    )
    write_bad_records(options.out / "bad_records.txt", report.bad, report.records, options.max_bad)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    return run_script(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
