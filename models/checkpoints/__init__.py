"""Weights that other code wrote: reading them safely, naming them as this project does, and back."""

from models.checkpoints.load import load_checkpoint
from models.checkpoints.pretrained import load_pretrained

__all__ = ["load_checkpoint", "load_pretrained"]
