"""From nothing to numbers on the embedded data set: write it, pre-train, fine-tune retrieval and grounding, evaluate.

Run by scripts/quickstart.sh, which sets up the environment first. Every stage is a plain `run.py` command, shown before it runs, and
continues where it was if the script is interrupted and started again.
"""

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

from evaluation.tables import plain_text, side_by_side

ROOT = Path(__file__).resolve().parents[1]
CLAIM = ["streams.regions=null", "evaluation.grounding=null"]
RETRIEVAL = ("tr_r1", "tr_r5", "tr_r10", "ir_r1", "ir_r5", "ir_r10")
GROUNDING = ("accuracy", "mean_iou")


def main() -> int:
    """Run the stages; returns an exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=1, help="of data order, initial weights and all other draws (default 1)")
    parser.add_argument("--data", type=Path, default=Path("data/shapeworld"), help="where the data set is, or will be written")
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="where the runs go")
    parser.add_argument(
        "--without-regions", action="store_true", help="the paper's claim in miniature: the same run without the region objectives"
    )
    options = parser.parse_args()
    started = time.monotonic()
    folder = options.out / f"seed-{options.seed}"
    pretrained = folder / ("pretrain-without-regions" if options.without_regions else "pretrain")
    grounded = folder / ("grounding-without-regions" if options.without_regions else "grounding")
    stage("data", [sys.executable, "scripts/make_shapeworld.py", "--out", str(options.data)], started)
    common = [f"variables.data={options.data}", f"seed={options.seed}"]
    train("pretrain", pretrained, [*common, *(CLAIM if options.without_regions else [])], started)
    if not options.without_regions:
        train("retrieval", folder / "retrieval", [*common, f"variables.init={pretrained}"], started)
    fresh_head = ["initialize.allow_missing=[box_head*]"] if options.without_regions else []  # no stream had boxes
    train("grounding", grounded, [*common, f"variables.init={pretrained}", *fresh_head], started)
    say(f"all stages done in {time.monotonic() - started:.0f} s")
    show(options.out)
    say(f"Look at {folder}/*/report.html: losses, boxes, retrieved images, attention.")
    if not (folder / "grounding-without-regions/metrics.json").is_file():
        say(f"Without the region objectives: bash scripts/quickstart.sh --without-regions --seed {options.seed}")
    return 0


def train(task: str, output: Path, overrides: list[str], started: float) -> None:
    """One run.py command."""
    config = f"configs/quickstart/{task}.yaml"
    stage(task, [sys.executable, "run.py", "--task", task, "--config", config, "--output_dir", str(output), "--set", *overrides], started)


def stage(name: str, command: list[str], started: float) -> None:
    """Run a command of the project; its failure ends the script with the same exit code."""
    say(f"[{time.monotonic() - started:4.0f} s] {name}: {shlex.join(['python', *command[1:]])}")
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code:
        say(f"{name} failed with exit code {code}; the same command again continues from its last checkpoint.")
        sys.exit(code if code > 0 else 128 - code)


def show(out: Path) -> None:
    """The table of all seeds that have run, baselines beside each number."""
    seeds = sorted(out.glob("seed-*"), key=lambda folder: int(folder.name.removeprefix("seed-")))
    for title, name, metrics in (
        ("Retrieval on 500 held-out scenes", "retrieval", RETRIEVAL),
        ("Grounding of held-out referring expressions", "grounding", GROUNDING),
        ("Grounding after pre-training without the region objectives", "grounding-without-regions", GROUNDING),
    ):
        runs = {seed.name.replace("-", " "): seed / name for seed in seeds if (seed / name / "metrics.json").is_file()}
        if runs:
            print(f"\n{title}\n{plain_text(side_by_side(runs, metrics))}")
    print(flush=True)


def say(text: str) -> None:
    """A line between the stages."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
