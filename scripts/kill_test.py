"""Kill a training again and again at random moments, and check that nothing is lost.

    python scripts/kill_test.py --kills 200              # one process; --nproc 2 for two

Trains a small model on the embedded data twice: undisturbed, and under SIGKILL. Moments are drawn evenly over the life of an attempt,
start-up included; every fourth kill waits for a checkpoint that is being written and falls into that. With two processes, half of the
kills hit one of them only. After each kill the same start again must go on at least from the last complete checkpoint, and every loss in
metrics.jsonl must be the undisturbed run's; in the end weights and optimizer state must be the same bit for bit.

So that a start takes a moment and not many seconds, attempts are forked from a process that has imported everything already; apart from
that they are what `run.py` runs. Linux and CPU only. Exit status: 0 all promises kept, 1 one was broken (it says which; the folder stays).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script finds the project wherever it is started

from common.errors import UserError
from common.scripts import run_script

STEPS_PER_KILL, CHECKPOINT_EVERY = 4, 3
PATIENCE = 5.0
"""Seconds that the processes left over by a kill have to notice it."""
CLOCK = ("time", "samples_per_second", "seconds_per_step", "data_wait_share")
"""What differs from one run to the next."""


def settings(data: Path, steps: int, seed: int) -> dict[str, Any]:
    """A run whose steps take a blink, with every source of randomness switched on."""
    regions = {"kind": "region_text", "shards": str(data / "shards/regions-*.tar"), "batch_size": 8, "max_images": 4, "groups": 2}
    return {
        "task": "pretrain",
        "seed": seed,
        "model": {
            "vision": {"image_size": 32, "patch_size": 8, "width": 32, "depth": 1, "heads": 2, "drop_path": 0.1},
            "text": {"width": 32, "layers": 1, "heads": 2, "intermediate": 64, "vocab_size": 400, "max_positions": 48, "dropout": 0.1},
            "fusion": {"layers": 1},
            "projection_dim": 8,
        },
        "tokenizer": {"path": str(data / "tokenizer"), "max_tokens": 40},
        "streams": {
            "images": {"kind": "image_text", "shards": str(data / "shards/images-*.tar"), "batch_size": 4, "groups": 2},
            "regions": regions,
        },
        "optimizer": {"lr": 1e-3},
        "schedule": {"steps": steps, "warmup_steps": 0.25},
        "engine": {"workers": 0, "log_every": 1, "checkpoint_every": CHECKPOINT_EVERY, "threads": 1},
        "loggers": {"tensorboard": False},
        "report": {"samples": 1},
    }


class Broken(Exception):
    """A promise was broken."""


class Attempt:
    """One start of a run, in processes of its own."""

    def __init__(self, call: Callable[[], int], log: Path, nproc: int) -> None:
        self.log = log
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.left = {_fork(call, log, rank, nproc, port) for rank in range(nproc)}
        self.codes: list[int] = []

    def running(self) -> bool:
        """True until the first process has ended."""
        self._reap(os.WNOHANG)
        return not self.codes and bool(self.left)

    def wait(self, seconds: float) -> None:
        """Wait until all have ended, or for so long."""
        end = time.monotonic() + seconds
        while self.left and time.monotonic() < end:
            self._reap(os.WNOHANG)
            time.sleep(0.001)

    def kill(self, victims: int, draw: random.Random) -> None:
        """SIGKILL some of the processes; the others, which may notice and leave by themselves, a while later."""
        for pid in draw.sample(sorted(self.left), min(victims, len(self.left))):
            os.kill(pid, signal.SIGKILL)
        self.wait(PATIENCE)
        for pid in self.left:
            os.kill(pid, signal.SIGKILL)
        self._reap(0)

    def _reap(self, how: int) -> None:
        for pid in list(self.left):
            ended, status = os.waitpid(pid, how)
            if ended:
                self.left.discard(pid)
                self.codes.append(os.waitstatus_to_exitcode(status))


def _fork(call: Callable[[], int], log: Path, rank: int, nproc: int, port: int) -> int:
    pid = os.fork()
    return pid or _be_child(call, log, rank, nproc, port)


def _be_child(call: Callable[[], int], log: Path, rank: int, nproc: int, port: int) -> NoReturn:
    """Run in a forked process, which looks to the code as one that torchrun started."""
    code = 1
    try:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(file, stream)
        if nproc > 1:
            ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": nproc, "LOCAL_WORLD_SIZE": nproc, "MASTER_PORT": port}
            os.environ |= {key: str(value) for key, value in ranks.items()} | {"MASTER_ADDR": "127.0.0.1"}
        code = call()
    except BaseException:  # also what ends a program: a child must never come back to the loop that forked it
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@dataclass
class Kills:
    """How the killing goes."""

    wanted: int
    nproc: int
    draw: random.Random
    done: int = 0
    rounds: int = 0
    where: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)

    def show(self, step: int, steps: int, code: str = "") -> None:
        """A line about the last kill, with the time left."""
        elapsed = time.monotonic() - self.began
        left = timedelta(seconds=round(elapsed / max(self.done, 1) * (self.wanted - self.done)))
        print(f"kill {self.done}/{self.wanted}  {code}  checkpoint at step {step}/{steps}  ETA {left}", flush=True)


class Run:
    """The folder of one run, looked at from outside."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log_seen = 0
        self.before: set[tuple[str, int]] = set()

    def begin(self) -> None:
        """A new attempt: what earlier ones left is not its work."""
        self.before = self._partial() | self._metrics()

    def losses(self) -> dict[int, dict[str, Any]]:
        """What metrics.jsonl holds, by step; a last line that a kill cut short is left out."""
        file = self.folder / "metrics.jsonl"
        found: dict[int, dict[str, Any]] = {}
        lines = file.read_text().splitlines() if file.is_file() else []
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                if number == len(lines):
                    break
                raise Broken(f"{file}, line {number}: torn") from None
            if record["kind"] == "train":
                if record["step"] in found:
                    raise Broken(f"{file}: step {record['step']} stands there twice")
                found[record["step"]] = {key: value for key, value in record.items() if key not in CLOCK}
        return found

    def checkpoint(self) -> int:
        """Step of the last complete checkpoint; 0 where there is none."""
        from engine.checkpoints import CHECKPOINTS, LATEST

        file = self.folder / CHECKPOINTS / LATEST
        return int(file.read_text().strip().removeprefix("step-")) if file.is_file() else 0

    def saving(self) -> bool:
        """True while this attempt writes a checkpoint."""
        return bool(self._partial() - self.before)

    def training(self) -> bool:
        """True from when this attempt has opened metrics.jsonl, which it writes anew."""
        return bool(self._metrics() - self.before)

    def _partial(self) -> set[tuple[str, int]]:
        """Checkpoints that are not whole, whose folders have a name with a dot, as name and inode."""
        from engine.checkpoints import CHECKPOINTS

        try:
            return {(entry.name, entry.inode()) for entry in os.scandir(self.folder / CHECKPOINTS) if entry.name.startswith(".")}
        except FileNotFoundError:
            return set()

    def _metrics(self) -> set[tuple[str, int]]:
        file = self.folder / "metrics.jsonl"
        return {(file.name, file.stat().st_ino)} if file.is_file() else set()

    def resumed_at(self) -> int | None:
        """The step that the last attempt went on from, if it came so far as to say so."""
        file = self.folder / "log.txt"
        text = file.read_text()[self.log_seen :] if file.is_file() else ""
        self.log_seen += len(text)
        steps = [line.rsplit("step ", 1)[1] for line in text.splitlines() if "continuing from" in line or "training was finished" in line]
        return int(steps[-1]) if steps else None

    def tensors(self) -> dict[str, bytes]:
        """All tensor files of the last checkpoint."""
        from engine.checkpoints import CHECKPOINTS

        folder = self.folder / CHECKPOINTS / f"step-{self.checkpoint():08d}"
        return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.safetensors"))}


@dataclass(frozen=True)
class Undisturbed:
    """What the run is when nobody disturbs it."""

    losses: dict[int, dict[str, Any]]
    tensors: dict[str, bytes]
    start: float
    """Seconds to the first step."""
    interval: float
    """Seconds from one checkpoint to the next."""


def run_undisturbed(call: Callable[[Path], int], folder: Path, nproc: int, steps: int) -> Undisturbed:
    """Run to the end, and take the time."""
    run = Run(folder)
    begun = time.monotonic()
    attempt = Attempt(lambda: call(folder), folder.with_suffix(".log"), nproc)
    start = 0.0
    while attempt.running():
        if not start and (folder / "metrics.jsonl").is_file() and (folder / "metrics.jsonl").stat().st_size:
            start = time.monotonic() - begun
        time.sleep(0.005)
    attempt.wait(60.0)
    if attempt.codes != [0] * nproc or run.checkpoint() != steps:
        raise UserError(f"the undisturbed run failed; see {attempt.log}.")
    seconds = time.monotonic() - begun
    return Undisturbed(run.losses(), run.tensors(), start, (seconds - start) / steps * CHECKPOINT_EVERY)


def disturb(call: Callable[[Path], int], folder: Path, steps: int, kills: Kills, whole: Undisturbed) -> None:
    """Kill and start again until the run is through its end, or all kills are spent and it may end in peace."""
    run, fruitless = Run(folder), 0
    while True:
        before = run.checkpoint()
        run.begin()
        begun = time.monotonic()
        attempt = Attempt(lambda: call(folder), folder.with_suffix(".log"), kills.nproc)
        if kills.done < kills.wanted:
            # evenly over the start and some checkpoints; longer where attempt after attempt came to none
            span = (whole.start + 3 * whole.interval) * 1.5 ** max(fruitless - 4, 0)
            _live(attempt, run, kills, begun + kills.draw.uniform(0.0, span), begun + 2 * span + 1.0)
        else:
            attempt.wait(600.0)
        ended = not attempt.running()
        if ended:
            attempt.wait(60.0)
        phase = _phase(run, whole)
        if not ended:
            attempt.kill(kills.nproc if kills.nproc == 1 or kills.draw.random() < 0.5 else 1, kills.draw)
            kills.done += 1
            kills.where[phase] += 1
        _check(run, before, whole)
        fruitless = 0 if run.checkpoint() > before else fruitless + 1
        if ended:
            if attempt.codes != [0] * kills.nproc:
                raise Broken(f"an attempt that nobody killed ended with exit codes {attempt.codes}; see {attempt.log}")
            break
        if kills.done % max(kills.wanted // 20, 1) == 0:
            kills.show(run.checkpoint(), steps, f"({phase})")
    kills.rounds += 1
    if run.losses() != whole.losses:
        raise Broken(f"{folder}: metrics.jsonl does not hold the steps of the undisturbed run")
    if run.tensors() != whole.tensors:
        raise Broken(f"{folder}: weights or optimizer state differ from the undisturbed run's")


def _live(attempt: Attempt, run: Run, kills: Kills, until: float, latest: float) -> None:
    """Let an attempt live; every fourth on until it writes a checkpoint, and some milliseconds of that."""
    while attempt.running() and time.monotonic() < until:
        time.sleep(0.0005)
    if kills.done % 4 == 3:
        while attempt.running() and time.monotonic() < latest and not run.saving():
            pass  # a sleep would miss it
        time.sleep(kills.draw.uniform(0.0, 0.01))


def _phase(run: Run, whole: Undisturbed) -> str:
    """What an attempt was at."""
    if run.saving():
        return "writing a checkpoint"
    if not run.training():
        return "starting"
    return "after the last step" if len(run.losses()) == len(whole.losses) else "training"


def _check(run: Run, before: int, whole: Undisturbed) -> None:
    resumed = run.resumed_at()
    if resumed is not None and resumed < before:
        raise Broken(f"{run.folder}: went on from step {resumed}, but the checkpoint of step {before} was complete")
    if run.checkpoint() < before:
        raise Broken(f"{run.folder}: the last checkpoint is now of step {run.checkpoint()}, and was of step {before}")
    for step, numbers in run.losses().items():
        wrong = [name for name in numbers.keys() | whole.losses[step].keys() if numbers.get(name) != whole.losses[step].get(name)]
        if wrong:
            name = "loss" if "loss" in wrong else wrong[0]
            raise Broken(f"{run.folder}: {name} of step {step} is {numbers.get(name)}, undisturbed {whole.losses[step].get(name)}")


def rounds(call: Callable[[Path], int], out: Path, steps: int, kills: Kills, whole: Undisturbed) -> Iterator[Path]:
    """Disturbed runs, until all kills are spent."""
    while kills.done < kills.wanted:
        folder = out / f"disturbed-{kills.rounds + 1}"
        disturb(call, folder, steps, kills, whole)
        yield folder


def kill_test(options: argparse.Namespace, out: Path) -> bool:
    """The whole test; True if all promises were kept."""
    from common.compat import ensure_torchvision

    ensure_torchvision()  # before the task is imported
    import torch

    from dataset.shapeworld import write_shapeworld
    from engine.launch import TASKS, Start, guard
    from engine.launch.entry import load_script, run_here

    torch.set_num_threads(1)
    main = load_script(TASKS["pretrain"].script).main
    steps = options.steps or max(options.kills * STEPS_PER_KILL, 12)
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise UserError(f"--out {out}: is not empty. Choose a new folder.")
    config = out / "config.yaml"
    config.write_text(json.dumps(settings(out / "data", steps, options.seed)))

    def call(folder: Path) -> int:
        return guard(lambda: run_here(main, Start("pretrain", config, folder)))

    def write_data() -> int:
        return guard(lambda: write_shapeworld(out / "data", seed=3, train=24, validation=6, test=6, size=32))

    Attempt(write_data, out / "data.log", 1).wait(300.0)  # in a process of its own: this one must stay without threads
    print(f"undisturbed run of {steps} steps on {options.nproc} process{'es' if options.nproc > 1 else ''}, in {out}", flush=True)
    whole = run_undisturbed(call, out / "undisturbed", options.nproc, steps)
    print(f"  {whole.start:.1f} s to the first step, {whole.interval * 1000:.0f} ms between checkpoints", flush=True)
    kills = Kills(options.kills, options.nproc, random.Random(options.seed))
    try:
        for folder in rounds(call, out, steps, kills, whole):
            print(f"{folder.name}: ended after {kills.done} kills, equal to the undisturbed run bit for bit", flush=True)
    except Broken as broken:
        print(f"BROKEN after {kills.done} kills: {broken}", flush=True)
        return False
    share = ", ".join(f"{count} {phase}" for phase, count in kills.where.most_common())
    print(f"{kills.done} kills ({share}) in {time.monotonic() - kills.began:.0f} s; every restart went on, nothing was lost")
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument("--nproc", type=int, default=1, choices=(1, 2), help="processes of the run (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the run and of the moments (default: %(default)s)")
    parser.add_argument("--steps", type=int, help=f"length of the run (default: {STEPS_PER_KILL} a kill)")
    parser.add_argument("--out", type=Path, help="a new folder to work in (default: a temporary one, removed when all is well)")
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}  # before torch is imported
    out = (options.out or Path(tempfile.mkdtemp(prefix="kill-test-"))).resolve()
    kept: list[bool] = []
    status = run_script(lambda: kept.append(kill_test(options, out)))
    if options.out is None and kept == [True]:
        shutil.rmtree(out)
    return status or (0 if kept == [True] else 1)


if __name__ == "__main__":
    sys.exit(main())
