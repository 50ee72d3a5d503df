"""A measurement of steps as tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.bench.report import BenchRequest
from evaluation.tables import Table

GIB = 2**30
STAGE_MEANS = {
    "load": "getting the batch",
    "host to device": "copying it",
    "vision": "vision encoder",
    "text": "text encoder",
    "context": "keys and values of the images",
    "fusion": "fusion encoder",
    "heads and losses": "contrast, negatives, heads, losses",
    "backward": "backward pass",
    "clip and optimizer": "clipping and AdamW",
    "other": "everything between",
}


def title_of(request: BenchRequest, numbers: Mapping[str, Any]) -> str:
    """What was measured."""
    texts = f"{request.data} data" + (f", texts of {request.fixed_length} tokens" if request.fixed_length is not None else "")
    threads = f" with {numbers['threads']} threads" if numbers["device"] == "cpu" else ""
    steps = f"{numbers['steps']} steps after {request.warmup} to warm up"
    return f"{request.path}: {request.config.task}, {numbers['precision']} on {numbers['device']}{threads}, {texts}, {steps}"


def tables_of(numbers: Mapping[str, Any]) -> dict[str, Table]:
    """Everything, in the order to be read."""
    tables = {"": _main_table(numbers), "Streams": _stream_table(numbers), "Operations": _flops_table(numbers)}
    if "stages" in numbers:
        tables["Stages"] = _stage_table(numbers)
    for comparison in numbers["comparisons"]:
        tables[f"Compared: {comparison['key']}"] = _comparison_table(comparison)
    if "reference" in numbers:
        tables["Beside the reference"] = _reference_table(numbers["reference"], numbers)
    return tables


def notes_of(request: BenchRequest, numbers: Mapping[str, Any]) -> list[str]:
    """How the numbers were taken."""
    notes = ["One process. Samples are texts, each with an image or a region of one."]
    if (seconds := numbers["prepare_seconds"]) is not None:
        notes.append(f"Synthetic batches are made before the clock starts ({seconds:.3f} s a step), so loading is not timed.")
    if numbers["peak_memory_kind"] == "resident":
        notes.append("Memory is the most that the process had resident, libraries, weights and optimizer included.")
    if numbers["comparisons"]:
        notes.append("Compared settings take turns in blocks of steps; ratios are to the first value, block by block.")
        notes.append("The memory of compared settings is that of a process of its own for each.")
    if (skipped := numbers["skipped_steps"]) > 0:
        notes.append(f"In {skipped} steps the gradient was not finite and the optimizer did nothing: do not trust these times.")
    if "reference" in numbers:
        notes.append(f"Reference: {numbers['reference']['source']}")
        if not numbers["reference"]["same_rows"]:
            notes.append("The reference's step has another number of rows.")
    return notes


def _main_table(numbers: Mapping[str, Any]) -> Table:
    readings = numbers["peak_tflops_readings"]
    rows = [
        ("samples/s", f"{numbers['samples_per_second']:.4g}", f"best {numbers['samples_per_second_best']:.4g}"),
        ("seconds/step", f"{numbers['seconds_per_step']:.4g}", f"best {numbers['seconds_per_step_best']:.4g}"),
        ("TFLOP/step", f"{numbers['flops_per_step'] / 1e12:.4g}", "forward and backward"),
        ("TFLOP/s", f"{numbers['tflops']:.4g}", ""),
        ("matmul peak, TFLOP/s", f"{numbers['peak_tflops']:.4g}", f"{numbers['peak_of']}; {min(readings):.4g} to {max(readings):.4g}"),
        ("MFU", f"{100 * numbers['mfu']:.1f} %", ""),
        (
            "samples/s per peak TFLOP/s",
            f"{numbers['samples_per_second_per_peak_tflops']:.4g}",
            f"best {numbers['samples_per_second_per_peak_tflops_best']:.4g}",
        ),
        ("peak memory, GiB", f"{numbers['peak_memory_bytes'] / GIB:.2f}", numbers["peak_memory_kind"]),
        ("kept for backward, GiB", f"{numbers['saved_for_backward_bytes'] / GIB:.2f}", ""),
    ]
    return Table(("measure", "value", ""), tuple(rows), (False, True, False))


def _stream_table(numbers: Mapping[str, Any]) -> Table:
    shares = {"text_padding_share": "padding", "masked_position_padding_share": "padded masks", "vision_key_masked_share": "masked keys"}
    rows = []
    for name, stream in numbers["streams"].items():
        tokens = f"{stream['tokens_per_text']:.1f}" if "tokens_per_text" in stream else "-"
        counts = (f"{stream['rows']:g}", f"{stream['images']:g}", f"{stream['samples_per_second']:.4g}", tokens)
        rows.append((name, *counts, *(_percent(stream.get(key)) for key in shares)))
    columns = ("stream", "rows", "images", "samples/s", "tokens/text", *shares.values())
    return Table(columns, tuple(rows), (False, *[True] * (len(columns) - 1)))


def _flops_table(numbers: Mapping[str, Any]) -> Table:
    stages, total = numbers["flops_by_stage"], numbers["flops_per_step"]
    rows = [(name, f"{value / 1e9:.4g}", _percent(value / total)) for name, value in stages.items()]
    return Table(("stage", "GFLOP", "share"), (*rows, ("step", f"{total / 1e9:.4g}", "")), (False, True, True))


def _stage_table(numbers: Mapping[str, Any]) -> Table:
    stages, total = numbers["stages"], sum(numbers["stages"].values())
    rows = [(name, f"{value:.4g}", _percent(value / total), STAGE_MEANS.get(name.split(":")[0], "")) for name, value in stages.items()]
    return Table(("stage", "seconds", "share", ""), (*rows, ("step, mean", f"{total:.4g}", "", "")), (False, True, True, False))


def _comparison_table(comparison: Mapping[str, Any]) -> Table:
    rows = []
    for item in comparison["values"]:
        low, high = item["ratio_range"]
        memory = (f"{item[key] / GIB:.2f}" for key in ("peak_memory_bytes", "saved_for_backward_bytes"))
        times = (f"{item['samples_per_second']:.4g}", f"{item['ratio']:.3f}", f"{low:.3f} to {high:.3f}")
        rows.append((item["value"], *times, *memory))
    columns = ("value", "samples/s", "ratio", "ratio by block", "memory, GiB", "kept, GiB")
    return Table(columns, tuple(rows), (False, *[True] * 5))


def _reference_table(reference: Mapping[str, Any], numbers: Mapping[str, Any]) -> Table:
    low, high = reference["speed_ratio_range"]
    rows = [
        ("samples/s, best step", f"{numbers['samples_per_second_best']:.4g}", f"{reference['samples_per_second']:.4g}"),
        ("samples/s per peak TFLOP/s, ratio", f"{reference['speed_ratio']:.2f}", f"{low:.2f} to {high:.2f} over its peaks"),
    ]
    if reference["memory_ratio"] is not None:
        rows.append(("peak memory, ratio", f"{reference['memory_ratio']:.2f}", ""))
    return Table(("measure", "here", "reference"), tuple(rows), (False, True, False))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
