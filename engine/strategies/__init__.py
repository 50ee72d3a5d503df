"""How ranks share a model: replicas (DDP), shards (FSDP2) or DeepSpeed's ZeRO, behind one interface."""

from engine.strategies.base import Strategy
from engine.strategies.build import build_strategy

__all__ = ["Strategy", "build_strategy"]
