"""X-FM's two claims in miniature: what stop_gradient and vl_guided_mim give to language, vision, and both (arXiv 2301.05065, section 4.4).

    python scripts/make_shapeworld.py --out data/shapeworld --seed 1 --also probes corpus
    python scripts/xfm_claims.py --data data/shapeworld --out runs/xfm_claims

Pre-trains configs/quickstart/xfm.yaml with each technique on and off, on three seeds, and measures every model by five fine-tunings: two
of language (acceptability and similarity of sentences, the text encoder alone), one of vision (a linear probe of the frozen image
encoder), two of both (retrieval, VQA). Each is a plain `run.py` command, shown before it runs; what is finished is left as it is, what
was interrupted goes on. At the end, and with --show at any time, prints a table of means and spreads over seeds and writes it to
OUT/claims.md.

Time: estimated, not measured, 15 minutes of one core for each setting on each seed (half of it pre-training: 600 steps of 12.7 GFLOP), so
an hour and a half on two cores for all twelve.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script finds the project wherever it is started

from common.errors import UserError
from common.files import replace_file
from common.scripts import run_script
from evaluation.labels import metric_label
from evaluation.tables import MISSING, Table, markdown, plain_text, read_result

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {
    "both techniques": (),
    "without stop_gradient": ("stop_gradient=false",),
    "without vl_guided_mim": ("vl_guided_mim=false",),
    "without either": ("stop_gradient=false", "vl_guided_mim=false"),
}
"""What is compared: name -> settings of the pre-training."""


@dataclass(frozen=True)
class Probe:
    """A fine-tuning that measures a pre-trained model."""

    name: str
    task: str
    metric: str
    """Its number, of those under "metrics" in metrics.json."""
    steps: int
    sets: tuple[str, ...] = ()

    @property
    def schedule(self) -> list[str]:
        """Settings of its length; evaluated once, at the end, where the last weights count."""
        return [f"schedule.steps={self.steps}", f"schedule.warmup_steps={self.steps // 20}", f"engine.evaluate_every={self.steps}"]


PROBES = (
    Probe("acceptability", "classification", "matthews", 400, ("head.text_layers=text",)),
    Probe("similarity", "classification", "spearman", 400, ("head.text_layers=text",)),
    Probe("linear_probe", "classification", "acc", 400),
    Probe("retrieval", "retrieval", "r_mean", 150),
    Probe("vqa", "vqa", "vqa_accuracy", 600),
)
"""Of language, of language, of vision, of both, of both; recipes of these names in configs/quickstart/."""
PRETRAINING = 600
"""Steps of pre-training."""


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    data: Path
    out: Path
    scale: float
    more: tuple[str, ...]


def main() -> int:
    """Run what is missing, then show the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("data/shapeworld"), help="the embedded data set (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/xfm_claims"), help="where the runs and the table go (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="(default: 1 2 3)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time, a core each (default: %(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the steps of all runs; 0.01 tries the command out")
    parser.add_argument("--show", action="store_true", help="only show what is finished")
    parser.add_argument("--set", nargs="*", default=[], dest="more", metavar="KEY=VALUE", help="settings of every run")
    options = parser.parse_args()
    given = Options(options.data, options.out, options.scale, tuple(options.more))

    def work() -> None:
        if not options.show:
            run_all(given, options.seeds, options.jobs)
        table = claims_table(given.out, options.seeds)
        replace_file(given.out / "claims.md", markdown(table) + "\n")
        say(plain_text(table))

    return run_script(work)


def run_all(options: Options, seeds: Sequence[int], jobs: int) -> None:
    """Every setting on every seed, one seed after the other, so that what is finished can be compared."""
    if not (options.data / "meta.json").is_file():
        how = f"python scripts/make_shapeworld.py --out {options.data} --seed 1 --also probes corpus"
        raise UserError(f"{options.data}: no data set there. Write it: {how}")
    cells = [(setting, seed) for seed in seeds for setting in SETTINGS]
    with ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(run_cell, options, setting, seed) for setting, seed in cells]
        try:
            for each in running:
                each.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def run_cell(options: Options, setting: str, seed: int) -> None:
    """One pre-training and its probes."""
    folder = cell(options.out, setting, seed)
    common = [f"seed={seed}", f"variables.data={options.data}", "engine.workers=0", "engine.threads=1", *options.more]
    length = max(round(PRETRAINING * options.scale), 2)
    schedule = [
        f"schedule.steps={length}",
        f"schedule.warmup_steps={length // 10}",
        "evaluation.retrieval=null",
        "evaluation.grounding=null",
    ]
    run("pretrain", "xfm", folder / "pretrain", [*schedule, *SETTINGS[setting], *common])
    for probe in PROBES:
        scaled = Probe(probe.name, probe.task, probe.metric, max(round(probe.steps * options.scale), 2))
        tokenizer = f"tokenizer.path={options.data}/tokenizer"
        start = [f"variables.init={folder / 'pretrain'}", tokenizer, "model.tied_mlm=false"]
        run(probe.task, probe.name, folder / probe.name, [*scaled.schedule, *probe.sets, *start, *common])


def cell(out: Path, setting: str, seed: int) -> Path:
    """Folder of one setting on one seed."""
    return out / setting.replace(" ", "-") / f"seed-{seed}"


def run(task: str, recipe: str, output: Path, sets: Sequence[str]) -> None:
    """One run.py command, unless it is finished. Raises UserError where it fails."""
    if (output / "metrics.json").is_file():
        return
    command = ["run.py", "--task", task, "--config", f"configs/quickstart/{recipe}.yaml", "--output_dir", str(output), "--set", *sets]
    say(shlex.join(["python", *command]))
    started = time.monotonic()
    output.mkdir(parents=True, exist_ok=True)
    with (output / "output.log").open("a", encoding="utf-8") as log:
        code = subprocess.run([sys.executable, *command], cwd=ROOT, check=False, stdout=log, stderr=log).returncode
    if code:
        raise UserError(
            f"{output}: ended with exit code {code}, see output.log there. The same command again goes on from its last checkpoint."
        )
    say(f"{output}: done in {time.monotonic() - started:.0f} s")


def claims_table(out: Path, seeds: Sequence[int]) -> Table:
    """A row for each setting, a column for each probe: mean over the seeds that are finished, with their standard deviation."""
    columns = ("pre-training", *(f"{probe.name}, {metric_label(probe.metric).text}" for probe in PROBES), "seeds")
    rows = []
    for setting in SETTINGS:
        found = {probe: [number(cell(out, setting, seed) / probe.name, probe.metric) for seed in seeds] for probe in PROBES}
        numbers = {probe: [value for value in values if value is not None] for probe, values in found.items()}
        finished = min(map(len, numbers.values()))
        rows.append((setting, *(spread(numbers[probe], probe.metric) for probe in PROBES), str(finished)))
    return Table(columns, tuple(rows), (False, *[True] * (len(PROBES) + 1)))


def number(folder: Path, metric: str) -> float | None:
    """A run's metric, under its own name or as the first one of a set; None where the run is not finished or has none."""
    metrics = read_result(folder).metrics or {}
    return metrics.get(metric, next((value for name, value in metrics.items() if name.rpartition("/")[2] == metric), None))


def spread(values: Sequence[float], metric: str) -> str:
    """Mean and standard deviation of a sample, with the digits of the metric."""
    if not values:
        return MISSING
    label = metric_label(metric)
    mean, digits = statistics.fmean(values), max(label.digits, 1)
    around = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean:.{digits}f}{around} {label.unit}".rstrip()


def say(text: str) -> None:
    """A line between the runs."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
