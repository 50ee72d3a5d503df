"""From `engine.strategy` to the strategy: the one place that knows all kinds."""

from datetime import timedelta

from engine.config.engine_settings import EngineSettings
from engine.strategies.base import Strategy
from engine.strategies.fsdp import FullySharded
from engine.strategies.replicated import Replicated
from engine.strategies.zero import Zero


def build_strategy(settings: EngineSettings, clip_norm: float | None, timeout: timedelta | None) -> Strategy:
    """Join the process group and make the strategy; see `Strategy`."""
    match settings.strategy:
        case "fsdp":
            return FullySharded(settings, clip_norm, timeout)
        case "deepspeed":
            return Zero(settings, clip_norm, timeout)
    return Replicated(settings, clip_norm, timeout)
