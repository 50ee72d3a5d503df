"""Write the embedded data set.

    python scripts/make_shapeworld.py --out data/shapeworld --seed 1

Safe to run twice: a complete data set of the same parameters is left as it is.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script finds the project wherever it is started

from common.scripts import run_script
from dataset.shapeworld import write_shapeworld
from dataset.shapeworld_captions import write_captions
from dataset.shapeworld_clips import write_clips
from dataset.shapeworld_corpus import write_corpus
from dataset.shapeworld_languages import write_languages
from dataset.shapeworld_phrases import write_phrase_data
from dataset.shapeworld_probes import write_probes
from dataset.shapeworld_statements import write_statements

PARTS = ("captions", "probes", "corpus", "phrases")
"""Captions from left to right (captioning); labelled objects and sentences; texts and pictures that do not belong together (X-FM); phrases
and tags (MVP)."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Write the embedded data set: procedural scenes with captions, regions, expressions, statements and questions."
    )
    parser.add_argument("--out", type=Path, default=Path("data/shapeworld"), help="folder to write to (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="everything follows from it (default: %(default)s)")
    parser.add_argument("--train", type=int, default=6000, help="training scenes (default: %(default)s)")
    parser.add_argument("--validation", type=int, default=200, help="validation scenes (default: %(default)s)")
    parser.add_argument("--test", type=int, default=500, help="test scenes (default: %(default)s)")
    parser.add_argument("--size", type=int, default=48, help="side of the pictures in pixels (default: %(default)s)")
    parser.add_argument(
        "--also",
        nargs="+",
        default=[],
        choices=PARTS,
        metavar="PART",
        help=f"further parts that some recipes read, as their headers say: {', '.join(PARTS)} (default: none)",
    )
    parser.add_argument("--clips", type=int, default=0, help="training clips; 0: no clips at all (default: %(default)s)")
    parser.add_argument(
        "--parallel",
        type=int,
        default=0,
        help="also captions in English, German, French and Chinese, and parallel sentences about so many scenes (default: none)",
    )
    options = parser.parse_args()

    def write() -> None:
        write_shapeworld(options.out, options.seed, options.train, options.validation, options.test, options.size)
        counts = {"train": options.train, "val": options.validation, "test": options.test}
        write_statements(options.out, options.seed, counts, options.size)
        if options.clips:
            write_clips(options.out, options.seed, options.clips, options.validation, options.test, options.size)
        if options.parallel > 0:
            write_languages(options.out, options.seed, counts, options.size, options.parallel)
        if "captions" in options.also:
            write_captions(options.out, options.seed, counts, options.size)
        if "probes" in options.also:
            write_probes(options.out, options.seed, counts, options.size)
        if "corpus" in options.also:
            write_corpus(options.out, options.seed, options.train, options.size)
        if "phrases" in options.also:
            write_phrase_data(options.out, options.seed, counts, options.size)

    return run_script(write)


if __name__ == "__main__":
    sys.exit(main())
