"""What a run folder says about itself: the settings, the code and the machine; and whether a start belongs to it."""

import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from common.errors import UserError
from common.files import replace_file
from engine.checkpoints.layout import CHECKPOINTS
from engine.config.document import describe, read_document
from engine.config.loader import LoadedConfig
from engine.config.render import config_values, config_yaml
from engine.config.schema import RunConfig
from engine.config.variables import interpolate
from evaluation.tables import METRICS_FILE

ROOT = Path(__file__).resolve().parents[1]
CONFIG, ENVIRONMENT = "config.yaml", "environment.json"
PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "tokenizers",
    "accelerate",
    "safetensors",
    "numpy",
    "pydantic",
    "opencv-python-headless",
)
FREE = (
    "storage",
    "loggers",
    "report",
    "engine.strategy",
    "engine.zero_stage",
    "engine.activation_checkpointing",
    "engine.compile",
    "engine.attention",
    "engine.streams",
    "model.savings",
    "tokenizer.padding",
    "engine.max_nonfinite",
    "engine.workers",
    "engine.log_every",
    "engine.checkpoint_every",
    "engine.keep_checkpoints",
    "engine.max_bad_share",
    "engine.threads",
    "engine.stall_warning",
    "engine.timeout",
)
"""Settings that may change between two starts of one run, because the trained weights do not depend on them."""


def refuse_other_run(output_dir: Path, config: RunConfig) -> None:
    """Make sure that a folder is new, holds a run that never came to a checkpoint or a result, or a run of this same config.

    Raises:
        UserError: naming the first setting that differs.
    """
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"--output_dir {output_dir}: is a file.")
    started = (output_dir / CHECKPOINTS).is_dir() or (output_dir / METRICS_FILE).is_file()
    if not started or not (output_dir / CONFIG).is_file():
        return
    before = dict(_leaves(interpolate(read_document(output_dir / CONFIG), {}).values))
    now = dict(_leaves(config_values(config)))
    for key in (*now, *(key for key in before if key not in now)):
        same = key in before and key in now and before[key] == now[key]
        if not same and not any(key == free or key.startswith(f"{free}.") for free in free_settings(config)):
            old, new = (describe(values[key]) if key in values else "not set" for values in (before, now))
            raise UserError(
                f"--output_dir {output_dir}: holds a run with other settings, first {key}: {old} there, {new} here. "
                "Choose another folder, or give the same settings to continue that run."
            )


def free_settings(config: RunConfig) -> tuple[str, ...]:
    """`FREE`; accumulation as well, where losses do not depend on it."""
    exact = config.gradient_mode == "exact" and config.engine.accumulate_contrast == "batch"
    return (*FREE, "engine.accumulation") if exact else FREE


def record_run(output_dir: Path, loaded: LoadedConfig) -> None:
    """Write config.yaml and environment.json. A folder that is started again keeps a list of its earlier starts."""
    earlier = _earlier_starts(output_dir / ENVIRONMENT)
    replace_file(output_dir / CONFIG, config_yaml(loaded.config, loaded))
    replace_file(output_dir / ENVIRONMENT, json.dumps({**environment(), "earlier_starts": earlier}, indent=2) + "\n")


def environment() -> dict[str, Any]:
    """Code, packages, command and machine of this process."""
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "git": git_state(ROOT),
        "command": sys.argv,
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "host": socket.gethostname(),
        "system": platform.platform(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of a checkout, and whether its tracked files differ from it; None outside a checkout."""
    if not (folder / ".git").exists():
        return None
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "changed": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _earlier_starts(file: Path) -> list[dict[str, Any]]:
    try:
        last = json.loads(file.read_text())
        return [*last.get("earlier_starts", []), {key: last.get(key) for key in ("started", "git", "command", "host", "processes")}]
    except (OSError, ValueError, AttributeError):
        return []  # nothing earlier, or nothing readable: not worth stopping a run for


def _leaves(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting that is not a mapping of others, as dotted key and value."""
    if isinstance(values, dict) and (values or not prefix):
        for key, value in values.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, values
