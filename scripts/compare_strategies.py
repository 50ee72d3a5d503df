"""Show that losses and gradient norms do not depend on ranks, strategy or accumulation.

    python scripts/compare_strategies.py                    # 1, 2, 4 processes, every strategy, accumulation 1, 2, 4; about ten minutes
    python scripts/compare_strategies.py --nproc 2 --strategies fsdp zero3 --accumulation 2

Every combination takes the same few steps of the same small pre-training (image and region streams, all objectives, dropout off) and is
compared with one process that accumulates nothing. Prints a Markdown table of the largest relative difference of any loss and of the
gradient's norm in the first step, and, since Adam magnifies rounding, more loosely in the later ones; exit 1 if one is above its bound.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script finds the project wherever it is started

from common.errors import UserError
from common.scripts import run_script
from dataset.prepare.progress import Progress
from dataset.shapeworld import write_shapeworld

ROOT = Path(__file__).resolve().parents[1]
RECIPE = "configs/quickstart/pretrain.yaml"
GROUPS = 16  # the most ranks x micro-batches of any combination
SMALL = (
    f"streams.images.batch_size={GROUPS * 2}",
    f"streams.images.groups={GROUPS}",
    f"streams.regions.max_images={GROUPS}",
    f"streams.regions.batch_size={GROUPS * 2}",
    f"streams.regions.groups={GROUPS}",
    "streams.regions.objectives={itc: 1, itm: 1, mlm: 1, box: 1}",
    "evaluation.retrieval=null",
    "evaluation.grounding=null",
    "engine.workers=0",
    "engine.log_every=1",
    "engine.threads=1",
    "report.samples=0",
    "loggers.tensorboard=false",
)
STRATEGIES = {
    "ddp": ("engine.strategy=ddp",),
    "fsdp": ("engine.strategy=fsdp",),
    "zero1": ("engine.strategy=deepspeed", "engine.zero_stage=1"),
    "zero2": ("engine.strategy=deepspeed", "engine.zero_stage=2"),
    "zero3": ("engine.strategy=deepspeed", "engine.zero_stage=3"),
}
FIRST, LATER = 2e-5, 2e-3
"""Bounds of relative differences in the first step and in later ones."""
FLOOR = 1e-3
"""Losses smaller than this are compared in absolute terms, as parts of it."""


@dataclass(frozen=True)
class Combination:
    """One way to take the same steps."""

    nproc: int
    strategy: str
    accumulation: int


def take_steps(way: Combination, data: Path, folder: Path, steps: int) -> list[dict[str, float]]:
    """Train; the losses and gradient norm of every step."""
    output = folder / f"{way.strategy}-{way.nproc}-{way.accumulation}"
    sets = [
        *SMALL,
        *STRATEGIES[way.strategy],
        f"variables.data={data}",
        f"schedule.steps={steps}",
        "schedule.warmup_steps=0",
        f"engine.accumulation={way.accumulation}",
    ]
    command = ["run.py", "--task", "pretrain", "--config", RECIPE, "--output_dir", str(output), "--nproc", str(way.nproc), "--set", *sets]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{way}: exit code {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    wanted = [line for line in lines if line["kind"] == "train"]
    return [{name: value for name, value in line.items() if name in ("loss", "gradient_norm") or "/" in name} for line in wanted]


def largest_difference(ours: dict[str, float], reference: dict[str, float], norm: bool) -> float:
    """Largest relative difference, of the gradient's norm or of the losses."""
    names = [name for name in reference if (name == "gradient_norm") == norm]
    return max(abs(ours[name] - reference[name]) / max(abs(reference[name]), FLOOR) for name in names)


def compare(options: argparse.Namespace) -> None:
    """Run all combinations and print the table.

    Raises:
        UserError: a run failed, or differs by more than the bounds.
    """
    ways = [Combination(n, strategy, a) for strategy in options.strategies for n in options.nproc for a in options.accumulation]
    progress = Progress("combinations")
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shapeworld(folder / "data", seed=1, train=200, validation=4, test=4)
        reference = take_steps(Combination(1, "ddp", 1), folder / "data", folder / "reference", options.steps)
        print("| strategy | processes | accumulation | losses, step 1 | gradient norm, step 1 | losses, later | gradient norm, later |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        for number, way in enumerate(ways, 1):
            found = take_steps(way, folder / "data", folder, options.steps)
            pairs = list(zip(found, reference, strict=True))
            first = [largest_difference(*pairs[0], norm=norm) for norm in (False, True)]
            later = [max((largest_difference(*pair, norm=norm) for pair in pairs[1:]), default=0.0) for norm in (False, True)]
            cells = " | ".join(f"{value:.0e}" for value in (*first, *later))
            print(f"| {way.strategy} | {way.nproc} | {way.accumulation} | {cells} |", flush=True)
            if max(first) > FIRST or max(later) > LATER:
                failed.append(f"{way.strategy} x {way.nproc} x {way.accumulation}")
            progress(number, len(ways))
    if failed:
        raise UserError(f"more than {FIRST:g} (first step) or {LATER:g} (later) apart: {', '.join(failed)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nproc", type=int, nargs="+", default=[1, 2, 4], help="numbers of processes (default 1 2 4)")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=["ddp", "fsdp", "zero2", "zero3"], help="which strategies")
    parser.add_argument("--accumulation", type=int, nargs="+", default=[1, 2, 4], help="micro-batches of a step (default 1 2 4)")
    parser.add_argument("--steps", type=int, default=3, help="steps to compare (default 3)")
    options = parser.parse_args()
    return run_script(lambda: compare(options))


if __name__ == "__main__":
    sys.exit(main())
