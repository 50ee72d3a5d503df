"""Published figures, and a result beside them: samples/s divided by each machine's own matmul peak."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from common.errors import UserError
from common.settings import Settings
from engine.config.document import parse_yaml
from engine.config.schema import PretrainConfig, RunConfig

Amount = Annotated[float, Field(gt=0.0)]


class StreamReference(Settings):
    """One kind of stream in the published step."""

    rows: Annotated[int, Field(gt=0)]
    """Texts of a step."""
    share: Amount
    """Of the step's seconds."""


class Reference(Settings):
    """A published measurement of one optimizer step."""

    source: str
    """Code, machine and conditions, for the reader."""
    seconds_per_step: Amount
    streams: dict[str, StreamReference]
    """By kind of stream, image_text and region_text: which streams a config has decides which part of the step it is set beside."""
    peak_tflops: tuple[Amount, Amount]
    """The machine's matmul peak, lowest and highest."""
    peak_memory_gib: Amount | None = None
    """Peak resident memory of the whole step."""


@dataclass(frozen=True)
class Beside:
    """How many times as good as the reference."""

    samples_per_second: float
    """The reference's."""
    speed_ratio: float
    """Of samples/s per peak TFLOP/s, at the middle of the reference's peaks."""
    speed_ratio_range: tuple[float, float]
    """The same at its lowest and at its highest peak."""
    memory_ratio: float | None
    """Share of the reference's memory; None where only a part of its step was taken."""
    same_rows: bool
    """Whether the step has as many rows of each kind."""

    def numbers(self) -> dict[str, Any]:
        """For JSON."""
        return vars(self) | {"speed_ratio_range": list(self.speed_ratio_range)}


def read_reference(file: Path) -> Reference:
    """Read a file of published figures.

    Raises:
        UserError: it is missing, or does not hold what `Reference` has.
    """
    try:
        values, _ = parse_yaml(file.read_text(encoding="utf-8"), str(file))
        return Reference.model_validate(values)
    except OSError as error:
        raise UserError(f"--reference {file}: cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{file}: {'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}.") from error


def beside(reference: Reference, config: RunConfig, numbers: dict[str, Any]) -> Beside:
    """Set a result beside the part of the published step that has the config's kinds of streams.

    Args:
        reference: published.
        config: measured.
        numbers: of the measurement: samples_per_second_best, peak_tflops and peak_memory_bytes. The best step counts, as published.

    Raises:
        UserError: the reference has no such streams.
    """
    streams = config.streams if isinstance(config, PretrainConfig) else {}
    kinds = [stream.kind for stream in streams.values()]
    if not kinds or len(set(kinds)) < len(kinds) or not set(kinds) <= set(reference.streams):
        raise UserError(f"--reference: it is of streams {', '.join(reference.streams)}; the config has {', '.join(kinds) or 'none'}.")
    parts = [reference.streams[kind] for kind in kinds]
    theirs = sum(part.rows for part in parts) / (reference.seconds_per_step * sum(part.share for part in parts))
    ours = numbers["samples_per_second_best"] / numbers["peak_tflops"]
    low, high = (ours / (theirs / peak) for peak in reference.peak_tflops)
    whole = set(kinds) == set(reference.streams) and reference.peak_memory_gib is not None
    memory = numbers["peak_memory_bytes"] / (reference.peak_memory_gib * 2**30) if whole and reference.peak_memory_gib else None
    same = all(stream.batch_size == reference.streams[stream.kind].rows for stream in streams.values())
    return Beside(theirs, (low + high) / 2, (low, high), memory, same)
