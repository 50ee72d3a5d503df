"""A plan as text for people and as numbers for programs."""

from __future__ import annotations

from typing import Any

from engine.bench.stages import BACKWARD
from engine.planning.cost import DAY
from engine.planning.estimate import Plan, RungPlan
from engine.planning.ladder import KEPT_FREE
from evaluation.tables import MISSING, Table, plain_text

GIB = 2**30


def plan_text(plan: Plan) -> str:
    """The whole plan, without a line break at the end."""
    parts = [_headline(plan), _operations(plan), _memory(plan), _ladder(plan), _run(plan), *_assumptions(plan)]
    return "\n\n".join(parts)


def plan_numbers(plan: Plan) -> dict[str, Any]:
    """JSON values by snake_case name; bytes, seconds and operations."""
    speed, best = plan.machine.speed, plan.best
    return {
        "parameters": plan.parameters,
        "gpus": speed.gpus,
        "device": {"name": speed.device.name, "peak_flops": speed.device.peak, "source": speed.device.source},
        "mfu_assumed": speed.mfu,
        "memory_bytes": plan.machine.memory,
        "memory_kept_free_share": KEPT_FREE,
        "text_tokens_assumed": {"caption": plan.lengths.caption, "region": plan.lengths.region, "sentence": plan.lengths.sentence},
        "streams": {name: {"texts": shape.texts, "images": shape.images} for name, shape in plan.shapes.items()},
        "flops_per_step": plan.operations.step,
        "flops_by_stage": {name: dict(each.stages) for name, each in plan.streams.items()},
        "states_bytes": dict(plan.memory.states),
        "allowance_bytes": dict(plan.memory.allowance),
        "ladder": [_rung_numbers(plan, rung) for rung in plan.rungs],
        "best_activation_checkpointing": None if best is None else best.rung.share,
        "steps": plan.steps,
        "texts_seen": plan.steps * plan.texts,
        "epochs": None if plan.records is None else plan.steps * next(iter(plan.shapes.values())).images / plan.records,
    }


def _rung_numbers(plan: Plan, each: RungPlan) -> dict[str, Any]:
    return {
        "activation_checkpointing": each.rung.share,
        "activation_bytes_per_text": each.rung.per_text,
        "kept_bytes_per_text": each.rung.kept_per_text,
        "fixed_bytes": each.rung.fixed,
        "largest_texts_per_gpu": each.largest,
        "accumulation": each.accumulation,
        "bytes_per_gpu": each.bytes,
        "seconds_per_step": each.seconds,
        "texts_per_second": each.texts_per_second,
        "gpu_days": None if each.seconds is None else plan.steps * each.seconds * plan.machine.speed.gpus / DAY,
    }


def _headline(plan: Plan) -> str:
    device, config = plan.machine.speed.device, plan.config
    name = f"ZeRO-{config.engine.zero_stage}" if config.engine.strategy == "deepspeed" else config.engine.strategy
    gpus = f"{plan.machine.speed.gpus} GPU{'s' if plan.machine.speed.gpus > 1 else ''} of {plan.machine.memory / GIB:.4g} GiB"
    peak = f"{device.name}, {device.peak / 1e12:.4g} TFLOP/s dense bf16: {device.source}"
    return (
        f"{config.task}: {plan.parameters:,} parameters on {gpus} ({peak}), {name}, {config.engine.precision}.\n"
        "Everything here is estimated; nothing was run."
    )


def _operations(plan: Plan) -> str:
    """Of one text with its image or region, by stage and stream."""
    stages = [*(stage for stage in plan.operations.stages if stage != BACKWARD), BACKWARD]
    rows = [
        (stage, *(_giga(each.stages.get(stage, 0.0), plan.shapes[name].rows) for name, each in plan.streams.items())) for stage in stages
    ]
    rows.append(("all", *(_giga(each.step, plan.shapes[name].rows) for name, each in plan.streams.items())))
    columns = ("GFLOP a text", *(f"{name}: {shape.texts:,} texts, {shape.images:,} images" for name, shape in plan.shapes.items()))
    heading = f"Operations of a step: {plan.operations.step / 1e12:.4g} TFLOP, {_giga(plan.operations.step, plan.texts)} GFLOP a text"
    return heading + "\n" + plain_text(Table(columns, tuple(rows), (False, *[True] * len(plan.streams))))


def _giga(operations: float, texts: int) -> str:
    return f"{operations / texts / 1e9:.2f}"


def _memory(plan: Plan) -> str:
    each, per_gpu = plan.configured, plan.per_gpu
    texts = -(-per_gpu // (each.accumulation or plan.config.engine.accumulation))
    rung = each.rung
    parts = {**plan.memory.states, **plan.memory.allowance}
    parts |= {
        "activations kept for backward": rung.kept_per_text * texts,
        "temporaries at the peak, bf16 weights": rung.peak(texts) - rung.kept_per_text * texts,
        "contrast over all ranks": plan.memory.contrast(texts),
    }
    total = plan.memory.total(rung, texts)
    rows = [(name, f"{size / GIB:.2f}") for name, size in parts.items()]
    rows.append(("all", f"{total / GIB:.2f}"))
    fits = f"{'fits' if total <= plan.machine.available else 'does not fit'} in {plan.machine.available / GIB:.1f} GiB"
    first = next(iter(plan.shapes))
    heading = f"Memory of one GPU as configured, {texts} texts of stream {first} at once: {fits}"
    return heading + "\n" + plain_text(Table(("what", "GiB"), tuple(rows), (False, True)))


def _ladder(plan: Plan) -> str:
    columns = ("blocks recomputed", "largest batch", "micro-batches", "GiB", "s/step", "texts/s", "GPU-days")
    rows = []
    for each in plan.rungs:
        numbers = _rung_numbers(plan, each)
        found = [numbers[key] for key in ("accumulation", "bytes_per_gpu", "seconds_per_step", "texts_per_second", "gpu_days")]
        shown = ("", 1 / GIB, 1.0, 1.0, 1.0)
        cells = [
            MISSING if value is None else str(value) if not scale else f"{value * scale:.4g}"
            for value, scale in zip(found, shown, strict=True)
        ]
        mark = " *" if each is plan.best else ""
        rows.append((f"{each.rung.share:.0%}{mark}", str(each.largest or MISSING), *cells))
    first = next(iter(plan.shapes))
    heading = (
        f"Activation checkpointing (engine.activation_checkpointing; * best): most texts of stream {first} on one GPU at once,\n"
        f"and the config's batch, {plan.per_gpu} of them on each GPU a step"
    )
    return heading + "\n" + plain_text(Table(columns, tuple(rows), (False, *[True] * 6)))


def _run(plan: Plan) -> str:
    best, speed = plan.best, plan.machine.speed
    seen = f"{plan.steps:,} steps see {plan.steps * plan.texts:,} texts"
    if plan.records is not None:
        epochs = plan.steps * next(iter(plan.shapes.values())).images / plan.records
        seen += f", {epochs:.1f} epochs of {plan.records:,} records"
    if best is None or best.seconds is None:
        return f"Run: {seen}. The batch does not fit on any rung: take more GPUs, or a strategy that shards (engine.strategy)."
    days = plan.steps * best.seconds / DAY
    cost = f"{days * speed.gpus:.3g} GPU-days, {days:.3g} days on {speed.gpus}"
    return f"Run: {seen}: {cost} at {speed.mfu:.0%} of the peak (assumed, not measured)."


def _assumptions(plan: Plan) -> list[str]:
    longest = plan.config.tokenizer.max_tokens
    return [
        f"Assumed: captions of {plan.lengths.caption}, region texts of {plan.lengths.region} and parallel texts of {plan.lengths.sentence} "
        "tokens for operations, where padding counts as peak not reached;\n"
        f"texts of {longest} tokens (the longest) for memory. Attention in one fused kernel, no torch.compile. "
        f"{KEPT_FREE:.0%} of the memory stays free against\nfragmentation. What is computed again takes its share of the time."
    ]
