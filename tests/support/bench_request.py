"""A measurement small enough for a test: a model of a few thousand parameters, and nothing that its config points at exists."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.bench.report import BenchRequest
from engine.config.loader import load_config
from small_run import pretrain_settings, task_settings, write_config


def bench_config(folder: Path, task: str = "pretrain") -> Path:
    """Write a config whose data and tokenizer are nowhere."""
    nowhere = Path("nowhere")
    settings = pretrain_settings(nowhere, 10) if task == "pretrain" else task_settings(task, nowhere, 10)
    return write_config(folder / f"{task}.yaml", settings)


def bench_request(folder: Path, *overrides: str, task: str = "pretrain", **more: Any) -> BenchRequest:
    """A request for it."""
    path = bench_config(folder, task)
    config = load_config(path, overrides).config
    return replace(BenchRequest(config, path, overrides, steps=2, warmup=1, seed=config.seed), **more)
