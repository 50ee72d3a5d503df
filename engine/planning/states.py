"""What lies on a GPU whatever the batch: weights, gradients, optimizer state and what the strategy adds.

Published behaviour of PyTorch's DDP and FSDP2 and of DeepSpeed's ZeRO with the settings that `engine/strategies` gives them.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from engine.config.engine_settings import EngineSettings
from models.tasks.base import Task

FLOAT = 4
"""Bytes: weights, gradients and both moments are float32 under every precision."""
REDUCE_BUCKET = 500_000_000
"""Elements of DeepSpeed's buffer of gradients on their way; its default."""
MAX_LIVE = 1_000_000_000
"""Elements of gathered weights that ZeRO-3 keeps; its default, so that smaller models stay whole once they are gathered."""

States = dict[str, int]
"""Bytes by what they are for."""


def model_states(task: Task, settings: EngineSettings, world: int) -> States:
    """Bytes on one of `world` GPUs.

    Args:
        task: on any device; only shapes matter.
        settings: strategy and stage.
        world: GPUs.
    """
    parameters = list(task.parameters())
    whole, trained = _bytes(parameters), _bytes(parameter for parameter in parameters if parameter.requires_grad)
    buffers = sum(buffer.nbytes for buffer in task.buffers())
    if settings.strategy == "fsdp":
        return {
            "weights": _shard(whole, world) + buffers,
            "gradients": _shard(trained, world),
            "AdamW moments": 2 * _shard(trained, world),
            "gathered blocks": _gathered(task, whole),
        }
    if settings.strategy == "deepspeed":
        return _zero(settings.zero_stage, settings.precision == "bf16", whole, trained, world) | {"model buffers": buffers}
    # DDP's buckets are the gradients themselves (gradient_as_bucket_view), once a backward pass has summed them over ranks
    unsummed = trained if world > 1 and (settings.accumulation > 1 or settings.takes_turns) else 0
    return {"weights": whole + buffers, "gradients": trained + unsummed, "AdamW moments": 2 * trained}


def _gathered(task: Task, whole: int) -> int:
    """FSDP2: what is in no block stays whole through the step, of the blocks two are whole at a time, with their gradients."""
    blocks = [_bytes(block.parameters()) for block in task.model.blocks()]
    return 2 * (whole - sum(blocks)) + 4 * max(blocks)


def _zero(stage: int, bf16: bool, whole: int, trained: int, world: int) -> States:
    """ZeRO over a float32 model: the optimizer has a float32 copy of its part of the weights."""
    part = _shard(trained, world)
    sent = 2 if bf16 else FLOAT
    states = {
        "weights": whole if stage < 3 else _shard(whole, world),
        "gradients": trained if stage == 1 else part,
        "AdamW moments": 2 * part,
        "ZeRO copy of weights": part,
        "ZeRO gradient bucket": REDUCE_BUCKET * sent,
    }
    return states | ({"ZeRO gathered weights": min(whole, MAX_LIVE * FLOAT)} if stage == 3 else {})


def _shard(size: int, world: int) -> int:
    return -(-size // world)


def _bytes(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.nbytes for parameter in parameters)
