"""Checkpoints that survive a kill at any instant, are written beside the training and read by any number of ranks.

checkpoints/step-00000500/model.safetensors, optimizer.safetensors     by one rank; by four model-00001-of-00004.safetensors ...
                          model.safetensors.index.json                 where there are several: which file holds which tensor
                          state.json                                   everything that is not a tensor
                          manifest.json                                size and SHA-256 of every other file
checkpoints/latest        the name of the newest complete folder
checkpoints/best/         the weights that did best on validation

Tensors are whole and go by the names of the model, whatever engine trained it; the ranks divide the names among them. `store` is what
the engine calls, `writing` how the ranks write one checkpoint together, `loading` how they agree on one that is good.
"""

from engine.checkpoints.layout import BEST, CHECKPOINTS, INDEX, LATEST, MODEL, OPTIMIZER, STATE
from engine.checkpoints.loading import Checkpoint
from engine.checkpoints.ranks import Ranks
from engine.checkpoints.shares import shares
from engine.checkpoints.space import check_space
from engine.checkpoints.state import TrainState
from engine.checkpoints.store import CheckpointStore, Limits
from engine.checkpoints.tensor_files import SavedTensors

__all__ = [
    "BEST",
    "CHECKPOINTS",
    "INDEX",
    "LATEST",
    "MODEL",
    "OPTIMIZER",
    "STATE",
    "Checkpoint",
    "CheckpointStore",
    "Limits",
    "Ranks",
    "SavedTensors",
    "TrainState",
    "check_space",
    "shares",
]
