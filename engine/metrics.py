"""Numbers of a run: a JSON-lines file always, TensorBoard and Weights & Biases by config."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from common.errors import UserError
from common.files import replace_file
from engine.config.schema import LoggerSettings

Kind = Literal["train", "validation", "test"]


class MetricsLog:
    """Writes metrics.jsonl and its optional copies. Only the main rank holds one."""

    def __init__(self, output_dir: Path, settings: LoggerSettings, resumed_step: int) -> None:
        self.file = output_dir / "metrics.jsonl"
        drop_after(self.file, resumed_step)
        self.stream = self.file.open("a", buffering=1)
        self.board: Any = None
        self.wandb: Any = None
        if settings.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(output_dir / "tensorboard"), purge_step=resumed_step + 1)
        if settings.wandb is not None:
            try:
                import wandb  # pyright: ignore[reportMissingImports]
            except ImportError as error:
                raise UserError("loggers.wandb is set, but the package wandb is not installed: pip install wandb.") from error
            self.wandb = wandb.init(project=settings.wandb.project, name=settings.wandb.name, dir=str(output_dir), resume="allow")

    def write(self, kind: Kind, step: int, values: Mapping[str, float]) -> None:
        """Record numbers at a step."""
        self.stream.write(json.dumps({"step": step, "time": round(time.time(), 3), "kind": kind, **values}) + "\n")
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(f"{kind}/{name}", value, step)
        if self.wandb is not None:
            self.wandb.log({f"{kind}/{name}": value for name, value in values.items()}, step=step)

    def close(self) -> None:
        """Flush everything."""
        self.stream.close()
        if self.board is not None:
            self.board.close()
        if self.wandb is not None:
            self.wandb.finish()


def drop_after(file: Path, step: int) -> None:
    """Remove the lines of steps that a resumed run will take again, and a last line that a kill cut short."""
    if not file.is_file():
        return
    kept = []
    for line in file.read_text().splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if record["step"] <= step:
            kept.append(line)
    replace_file(file, "".join(f"{line}\n" for line in kept))
