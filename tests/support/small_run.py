"""A run small enough for a test: 24 scenes, a model of a few thousand parameters, one step in a blink."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from dataset.shapeworld import write_shapeworld
from engine.checkpoints import SavedTensors
from warm_start import run_warm

ROOT = Path(__file__).parents[2]
MODEL = {
    "vision": {"image_size": 32, "patch_size": 8, "width": 16, "depth": 1, "heads": 2, "drop_path": 0.1},
    "text": {"width": 16, "layers": 1, "heads": 2, "intermediate": 32, "vocab_size": 400, "max_positions": 48, "dropout": 0.1},
    "fusion": {"layers": 1},
    "projection_dim": 8,
}


def write_data(out: Path) -> Path:
    """A tiny embedded data set."""
    write_shapeworld(out, seed=3, train=24, validation=6, test=6, size=32)
    return out


def pretrain_settings(data: Path, steps: int) -> dict[str, Any]:
    """Settings of a pre-training run with every source of randomness switched on."""
    return {
        "task": "pretrain",
        "seed": 7,
        "model": MODEL,
        "tokenizer": {"path": str(data / "tokenizer"), "max_tokens": 40},
        "streams": {
            "images": {"kind": "image_text", "shards": str(data / "shards/images-*.tar"), "batch_size": 8, "groups": 2},
            "regions": {
                "kind": "region_text",
                "shards": str(data / "shards/regions-*.tar"),
                "batch_size": 12,
                "max_images": 4,
                "groups": 2,
            },
        },
        "optimizer": {"lr": 1e-3},
        "schedule": {"steps": steps, "warmup_steps": 0.25},
        "engine": {"workers": 0, "log_every": 1, "checkpoint_every": 3, "threads": 1},
        "loggers": {"tensorboard": False},
        "report": {"samples": 2},
    }


def without_dropout(settings: dict[str, Any]) -> dict[str, Any]:
    """The same run without dropout and stochastic depth, which draw from one stream a rank; everything else is a function of the sample."""
    model = settings["model"]
    still = {"vision": model["vision"] | {"drop_path": 0.0}, "text": model["text"] | {"dropout": 0.0}}
    return settings | {"model": model | still}


def task_settings(task: str, data: Path, steps: int) -> dict[str, Any]:
    """Settings of a fine-tuning run."""
    settings = pretrain_settings(data, steps)
    del settings["streams"]
    kind = "retrieval" if task == "captioning" else task
    files = {split: str(data / f"{kind}_{name}.json") for split, name in (("train", "train"), ("validation", "val"), ("test", "test"))}
    more = {"answers": str(data / "vqa_answers.json")} if task == "vqa" else {}
    return settings | {"task": task, "data": files | more | {"image_root": str(data / "images"), "batch_size": 8}}


def write_config(path: Path, settings: dict[str, Any]) -> Path:
    """Write settings as a config file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    YAML(typ="safe").dump(settings, path)
    return path


def command(task: str, config: Path, output: Path, *more: str) -> list[str]:
    """The command line of a run."""
    return [sys.executable, str(ROOT / "run.py"), "--task", task, "--config", str(config), "--output_dir", str(output), *more]


def run(task: str, config: Path, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run to the end in a process of its own."""
    return run_warm(command(task, config, output, *more))


def saved(output: Path, step: int, kind: str) -> SavedTensors:
    """The tensors of a checkpoint, "model" or "optimizer", whichever ranks wrote them."""
    return SavedTensors((output / "checkpoints" / f"step-{step:08d}").glob(f"{kind}*.safetensors"))


def forget_after(output: Path, step: int) -> None:
    """Take away all that a run saved after a step, as if it had been killed then."""
    folder = output / "checkpoints"
    for later in folder.glob("step-*"):
        if int(later.name.removeprefix("step-")) > step:
            shutil.rmtree(later)
    (folder / "latest").write_text(f"step-{step:08d}")


TIMES = ("kind", "time", "samples_per_second", "seconds_per_step", "data_wait_share")


def curve(output: Path, kind: str = "train") -> dict[int, dict[str, float]]:
    """What a run logged, by step, without the clock."""
    records = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return {
        record["step"]: {key: value for key, value in record.items() if key not in TIMES} for record in records if record["kind"] == kind
    }
