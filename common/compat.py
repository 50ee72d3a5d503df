"""Let torchvision be imported beside a CPU-only torch, where its compiled operators cannot load."""

import importlib
import sys
from functools import cache

import torch


@cache
def ensure_torchvision() -> torch.library.Library | None:
    """Import torchvision, declaring the operator schemas it asks for where its compiled library cannot load.

    timm and every transformers model import torchvision, so this runs before either of them. Where torchvision loads
    normally nothing is changed. Afterwards transforms, box losses and `roi_align` work; `torchvision.ops.nms`, detection
    models and `torchvision.io` decoding do not.

    Returns:
        The library that holds the declarations (they live as long as it does), or None where none was needed.
    """
    try:
        importlib.import_module("torchvision")
        return None
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    importlib.import_module("torchvision")
    return library
