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
from dataset.shapeworld_phrases import write_phrase_data
from dataset.shapeworld_statements import write_statements


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
    options = parser.parse_args()

    def write() -> None:
        write_shapeworld(options.out, options.seed, options.train, options.validation, options.test, options.size)
        counts = {"train": options.train, "val": options.validation, "test": options.test}
        write_statements(options.out, options.seed, counts, options.size)
        write_phrase_data(options.out, options.seed, counts, options.size)

    return run_script(write)


if __name__ == "__main__":
    sys.exit(main())
