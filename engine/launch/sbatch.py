"""A batch file for SLURM that starts a run, lets it save before its time is over, and puts it back in the queue."""

import os
import re
import shlex
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from engine.launch.entry import ROOT, Start
from engine.launch.outcome import REQUEUE

NOTICE = 180
"""Seconds before the end of its time at which SLURM asks the run to save and stop."""
_CPUS_PER_GPU = 8

_TEMPLATE = """\
#!/usr/bin/env bash
# {title}
# Written by `python run.py sbatch`; edit it as you like and hand it to `sbatch`.
{directives}

cd {folder} || exit 1

# The same command on every node: it takes nodes, addresses and GPUs from the environment that srun sets.
# Signals are answered by the run, on all nodes together: srun must not end the other nodes when the first is done, and this shell waits.
trap ':' TERM USR1
srun --kill-on-bad-exit=0 --wait=0 --cpus-per-task="${{SLURM_CPUS_PER_TASK:-1}}" \\
  {command}
code=$?

# {requeue}: the run was asked to stop and has saved a checkpoint. The next start continues from it. A job that somebody cancels, or that
# SLURM itself takes down to queue it again, is not running any more by now and is left alone.
if [ "$code" -eq {requeue} ] && [ "$(squeue -h -j "$SLURM_JOB_ID" -o %T)" = RUNNING ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


@dataclass(frozen=True)
class Job:
    """What is asked of SLURM."""

    nodes: int
    gpus: int
    """Per node; 0 trains on processors."""
    cpus: int | None = None
    """Per node."""
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    restarts: int = 0


def add_job_options(parser: ArgumentParser) -> None:
    """What `run.py sbatch` takes beside the run's own options."""
    parser.add_argument("--nodes", type=int, required=True, metavar="N", help="nodes of the job")
    parser.add_argument("--gpus", type=int, required=True, metavar="N", help="GPUs a node, one process each; 0 trains on processors")
    parser.add_argument("--cpus", type=int, metavar="N", help=f"processor cores a node (default: {_CPUS_PER_GPU} a GPU)")
    parser.add_argument("--time", metavar="TIME", help="time limit as SLURM writes it, such as 24:00:00")
    parser.add_argument("--partition", metavar="NAME")
    parser.add_argument("--account", metavar="NAME")
    parser.add_argument("--max-restarts", type=int, default=0, metavar="N", help="restarts within the job after a failure (default 0)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: standard output")


def job_of(options: Namespace) -> Job:
    """Read what `add_job_options` added.

    Raises:
        UserError: for a number or a word that cannot be.
    """
    for name, least in (("nodes", 1), ("gpus", 0), ("cpus", 1), ("max_restarts", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} {value}: must be at least {least}.")
    if options.time is not None and not re.fullmatch(r"\d+(-\d+(:\d+){0,2}|(:\d+){0,2})", options.time):
        raise UserError(f"--time {options.time}: must be MINUTES, H:MM:SS or DAYS-HOURS, such as 24:00:00.")
    for name in ("partition", "account"):
        if getattr(options, name) is not None and not re.fullmatch(r"[\w.,@:+-]+", getattr(options, name)):
            raise UserError(f"--{name} {getattr(options, name)}: is not a name.")
    return Job(options.nodes, options.gpus, options.cpus, options.time, options.partition, options.account, options.max_restarts)


def sbatch_file(job: Job, start: Start) -> str:
    """The text of the file."""
    words = [sys.executable, str(ROOT / "run.py"), "--task", start.task, *start.arguments()]
    words += ["--nproc", str(job.gpus or 1)] + (["--max-restarts", str(job.restarts)] if job.restarts else [])
    with_gpus = f" with {_counted(job.gpus, 'GPU')}" + (" each" if job.nodes > 1 else "") if job.gpus else ""
    title = f"{start.task} with {start.config} into {start.output_dir}: {_counted(job.nodes, 'node')}{with_gpus}."
    return _TEMPLATE.format(
        title=" ".join(title.split()),
        directives="\n".join(_directives(job, start)),
        folder=shlex.quote(os.getcwd()),
        command=_folded(words),
        requeue=REQUEUE,
    )


def _directives(job: Job, start: Start) -> list[str]:
    name = re.sub(r"[^\w.-]+", "-", start.output_dir.name) or start.task
    lines = [
        f"#SBATCH --job-name={name}",
        f"#SBATCH --nodes={job.nodes}",
        "# One launcher a node; it starts one process a GPU.",
        "#SBATCH --ntasks-per-node=1",
        f"#SBATCH --cpus-per-task={job.cpus or max(job.gpus, 1) * _CPUS_PER_GPU}",
    ]
    lines += [f"#SBATCH --gpus-per-node={job.gpus}"] if job.gpus else []
    lines += [
        f"#SBATCH --{key}={value}" for key, value in (("time", job.time), ("partition", job.partition), ("account", job.account)) if value
    ]
    return [
        *lines,
        "# A job that is taken off its nodes, or asks for it below, starts again with the same number and adds to the same log.",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "#SBATCH --output=slurm-%x-%j.out",
        f"# {NOTICE} s before the time is over the run (not this shell) is asked to save and stop.",
        f"#SBATCH --signal=USR1@{NOTICE}",
    ]


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")


def _folded(words: list[str]) -> str:
    """A command with an option a line, quoted for the shell."""
    lines = [[words[0], words[1]]]
    for word in words[2:]:
        if word.startswith("--"):
            lines.append([word])
        else:
            lines[-1].append(word)
    return " \\\n    ".join(shlex.join(line) for line in lines)
