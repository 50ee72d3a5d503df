"""The formats that checkpoints come in, told apart by the names and shapes of their tensors, never by the name of the file."""

from typing import Any

from torch import Tensor

from common.errors import UserError
from models.checkpoints.adapter import Adapter, HeadCounts, Shapes
from models.checkpoints.cclm import CclmV1, SplitX2vlm
from models.checkpoints.keys import KeyTable
from models.checkpoints.mvp import MvpAdapter
from models.checkpoints.x2vlm import X2vlm
from models.checkpoints.xfm import Xfm
from models.checkpoints.xvlm import Xvlm
from models.config import ModelConfig

UNPLACED = "unplaced."
"""Before official names of tensors that no model here has. A converted file keeps them, so that it can be written back whole."""

OWN_BEGINNINGS = (
    "vision.backbone.",
    "text.backbone.",
    "fusion.layers.",
    "text_encoder.layers.",
    "vision_encoder.layers.",
    "joint_encoder.layers.",
)
"""How names begin in this project's own files, those of MVP last."""


class Ours:
    """This project's own files: a run's, a shipped checkpoint, or a converted one."""

    name = "ours"

    def recognises(self, shapes: Shapes) -> bool:
        """Whether the names are ours."""
        return any(name.startswith(OWN_BEGINNINGS[:3]) for name in shapes) or all(
            any(name.startswith(beginning) for name in shapes) for beginning in OWN_BEGINNINGS[3:]
        )

    def config(self, shapes: Shapes, heads: HeadCounts) -> ModelConfig:
        """Our files are described by a config, not by their shapes.

        Raises:
            UserError: always.
        """
        raise UserError("a file of this project is described by the config of its run, not by its shapes")

    def table(self, config: ModelConfig) -> KeyTable:
        """Names stay as they are; what a conversion kept for the way back has no place."""
        return KeyTable((("", ""),))

    def buffers(self, config: ModelConfig) -> dict[str, Tensor]:
        """None are kept."""
        return {}


OURS = Ours()
ADAPTERS: tuple[Adapter[Any], ...] = (Xvlm(), X2vlm(), CclmV1(), SplitX2vlm(), Xfm(), MvpAdapter())
"""Every official format."""

SIGNS = {
    "ours": "vision.backbone.* or text.backbone.*",
    "xvlm": "text_encoder.*.crossattention.* over vision_encoder.layers.* (Swin) or vision_encoder.class_embedding (CLIP-ViT)",
    "x2vlm": "text_encoder.*.crossattention.* over vision_encoder.blocks.* (BEiT-2)",
    "cclm": "as xvlm, with one token type (XLM-R)",
    "cclm_x2vlm": "cross_encoder.encoder.layer.*",
    "xfm": "fusion_encoder.*.encoder.layer.*",
    "mvp": "bert.txt_encoder.*, bert.vis_encoder.*, bert.mul_encoder.*",
}
"""What each format is told by, for the error that names them."""


def detect(shapes: Shapes, source: str = "the file") -> Adapter[Any]:
    """The format of a file with these tensors; `OURS` for this project's own.

    Args:
        shapes: of the file's tensors by their names.
        source: the file, for the error.

    Raises:
        UserError: no format fits.
    """
    found = next((adapter for adapter in (OURS, *ADAPTERS) if adapter.recognises(shapes)), None)
    if found is None:
        looked = "; ".join(f"{name}: {sign}" for name, sign in SIGNS.items())
        first = ", ".join(sorted(shapes)[:3])
        raise UserError(f"{source}: none of the known formats. Looked for {looked}. Its {len(shapes)} tensors begin with {first}.")
    return found


def adapter_named(name: str) -> Adapter[Any]:
    """A format by its name.

    Raises:
        UserError: there is none of that name.
    """
    for adapter in ADAPTERS:
        if adapter.name == name:
            return adapter
    raise UserError(f"{name}: no known format; it is one of {', '.join(adapter.name for adapter in ADAPTERS)}.")
