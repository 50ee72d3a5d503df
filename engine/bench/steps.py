"""Measures optimizer steps: the measure behind `run.py bench` and `run.py bench --stages`.

`numbers` of its report, all of this process alone:

- device, precision, threads (of the CPU), steps (timed ones), skipped_steps (whose gradient was not finite).
- rows_per_step: texts with an image or a region of one. samples_per_second and seconds_per_step are of the median step,
  samples_per_second_best and seconds_per_step_best of the fastest; seconds_mean is the mean, step_seconds lists all.
- streams: by stream rows, images, samples_per_second, tokens_per_text, and shares of what is computed for nothing: text_padding_share,
  masked_position_padding_share, vision_key_masked_share (keys outside of the region).
- flops_per_step (mean over the steps, forward and backward), flops_by_stage, tflops (flops_per_step by seconds_per_step).
- peak_tflops (the device's best matrix product, see peak_of), peak_tflops_readings (in the order taken, around and between the steps),
  mfu (tflops by peak_tflops), samples_per_second_per_peak_tflops and samples_per_second_per_peak_tflops_best: the figures to compare
  over machines.
- peak_memory_bytes, peak_memory_kind ("allocated" on a GPU, "resident" on a CPU), saved_for_backward_bytes.
- prepare_seconds: to make a step's synthetic batches, which is not part of the step; null for real data.
- stages (with --stages): mean seconds of each; they sum to seconds_mean.
- comparisons: see `_comparison`. reference (with --reference): its source, and see `Beside`.
"""

from __future__ import annotations

import gc
from contextlib import nullcontext
from dataclasses import replace
from statistics import fmean, median
from typing import Any

import torch

from common.errors import UserError
from engine.bench.batches import Supply, make_supply
from engine.bench.compare import ROUNDS, memory_alone, take_turns, time_steps
from engine.bench.flops import FlopCount
from engine.bench.marks import marker_for
from engine.bench.memory import forget_peak, peak_bytes
from engine.bench.peak import MatmulPeak
from engine.bench.reference import beside, read_reference
from engine.bench.report import BenchReport, BenchRequest, Comparison
from engine.bench.subject import Stages, Subject
from engine.bench.tables import notes_of, tables_of, title_of

COUNTED = 10
"""Most steps whose operations are counted; of more, evenly spread ones stand for all."""


def run(request: BenchRequest) -> BenchReport:
    """Time optimizer steps of a config, and compare settings where the request asks for it.

    Raises:
        UserError: the numbers of steps make no sense, a setting does not run, or data cannot be read.
    """
    if request.steps < 1 or request.warmup < 1:
        option, value = ("--steps", request.steps) if request.steps < 1 else ("--warmup", request.warmup)
        raise UserError(f"{option} {value}: must be at least 1; the first step is always slower than the others.")
    reference = read_reference(request.reference) if request.reference is not None else None
    numbers = measure(request)  # first, while the memory of the process is its own
    gc.collect()
    torch.cuda.empty_cache()  # room for the processes that measure memory; nothing without a GPU
    numbers["comparisons"] = [_comparison(request, comparison) for comparison in request.comparisons]
    if reference is not None:
        numbers["reference"] = {"source": reference.source} | beside(reference, request.config, numbers).numbers()
    return BenchReport(title_of(request, numbers), tables_of(numbers), numbers, notes_of(request, numbers))


def measure(request: BenchRequest) -> dict[str, Any]:
    """Everything about one config."""
    config = request.config
    supply = make_supply(request, request.warmup + request.steps)
    subject = Subject(config, supply)
    saved = subject.warm_up(request.warmup)
    peak = MatmulPeak(subject.device, torch.bfloat16 if config.engine.precision == "bf16" else torch.float32)
    forget_peak(subject.device)
    stages = Stages(subject) if request.by_stage else None
    with stages.watching() if stages else nullcontext():
        seconds = _timed(stages or subject, request.steps, peak)
    memory = peak_bytes(subject.device)
    numbers = _speed(supply, seconds) | {
        "device": subject.device.type,
        "precision": config.engine.precision,
        "threads": torch.get_num_threads(),
        "peak_tflops": peak.tflops,
        "peak_of": peak.name,
        "peak_tflops_readings": peak.readings,
        "peak_memory_bytes": memory,
        "peak_memory_kind": "allocated" if subject.device.type == "cuda" else "resident",
        "saved_for_backward_bytes": saved,
        "prepare_seconds": supply.prepare_seconds,
        "skipped_steps": subject.skipped(),
    }
    if stages:
        numbers["stages"] = stages.seconds()
    return numbers | _operations(request, supply, numbers)


def _timed(subject: Subject | Stages, steps: int, peak: MatmulPeak) -> list[float]:
    """Seconds of each step, with the machine's peak taken before, between and after them."""
    rounds = min(ROUNDS, steps)
    seconds: list[float] = []
    peak.probe()
    for number in range(rounds):
        size = steps * (number + 1) // rounds - steps * number // rounds
        seconds += time_steps(subject.step, size, peak.marker)
        peak.probe()
    return seconds


def _speed(supply: Supply, seconds: list[float]) -> dict[str, Any]:
    """Samples by time, in all and by stream."""
    steps, middle, best = len(seconds), median(seconds), min(seconds)
    rows = sum(fill.rows for fill in supply.fill.values()) / steps
    streams = {
        name: {"rows": fill.rows / steps, "images": fill.images / steps, "samples_per_second": fill.rows / steps / middle} | fill.numbers()
        for name, fill in supply.fill.items()
    }
    return {
        "steps": steps,
        "rows_per_step": rows,
        "samples_per_second": rows / middle,
        "samples_per_second_best": rows / best,
        "seconds_per_step": middle,
        "seconds_per_step_best": best,
        "seconds_mean": fmean(seconds),
        "step_seconds": seconds,
        "streams": streams,
    }


def _operations(request: BenchRequest, supply: Supply, numbers: dict[str, Any]) -> dict[str, Any]:
    """Counted operations of a step, and speed beside the machine's own."""
    micro, steps = request.config.engine.accumulation, numbers["steps"]
    chosen = sorted({steps * index // min(steps, COUNTED) for index in range(min(steps, COUNTED))})
    counter, stages = FlopCount(request.config), dict[str, float]()
    for step in chosen:
        for shapes in supply.shapes[step * micro : (step + 1) * micro]:
            for name, count in counter.count(shapes).items():
                stages[name] = stages.get(name, 0.0) + count / len(chosen)
    total, peak = sum(stages.values()), numbers["peak_tflops"]
    speed = total / numbers["seconds_per_step"] / 1e12
    return {
        "flops_per_step": total,
        "flops_by_stage": stages,
        "tflops": speed,
        "mfu": speed / peak,
        "samples_per_second_per_peak_tflops": numbers["samples_per_second"] / peak,
        "samples_per_second_per_peak_tflops_best": numbers["samples_per_second_best"] / peak,
    }


def _comparison(request: BenchRequest, comparison: Comparison) -> dict[str, Any]:
    """One key's values against one another: {"key", "values": [{"value", "samples_per_second", "seconds_per_step", "peak_memory_bytes",
    "saved_for_backward_bytes", "ratio", "ratios", "ratio_range"}]}, ratios to the first value, one for each block of steps."""
    memory = memory_alone(request, comparison)
    subjects: dict[str, Subject] = {}
    for value, config in zip(comparison.values, comparison.configs, strict=True):
        supply = make_supply(replace(request, config=config), request.warmup + request.steps)
        subjects[value] = Subject(config, supply)
        subjects[value].warm_up(request.warmup)
    base, *_ = comparison.values
    turns = take_turns(subjects, request.steps, marker_for(subjects[base].device))
    found = []
    for value, alone in zip(comparison.values, memory, strict=True):
        ratios, seconds = turns.ratios(value, base), turns.seconds(value)
        rows = sum(fill.rows for fill in subjects[value].supply.fill.values()) / request.steps
        kept = {key: alone[key] for key in ("peak_memory_bytes", "saved_for_backward_bytes")}
        speed = {"value": value, "samples_per_second": rows / seconds, "seconds_per_step": seconds}
        found.append(speed | kept | {"ratio": median(ratios), "ratios": ratios, "ratio_range": [min(ratios), max(ratios)]})
    return {"key": comparison.key, "values": found}
