"""What may stand in the config of visual grounding."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from common.settings import Settings
from dataset.config import Probability
from dataset.tasks.grounding_config import GroundingData
from engine.config.errors import raise_problems
from engine.config.schema import GroundingEvaluation, RunConfig, StreamSettings, Weight


class BoxMethod(Settings):
    """Box regression: a head on the fused text predicts the box, and learns it from boxes."""

    kind: Literal["boxes"] = "boxes"
    box_l1: Weight = 1.0
    """Weight of the loss."""
    box_giou: Weight = 1.0
    """Weight of the loss."""


class HeatMethod(Settings):
    """Weak supervision: only which text belongs to which image is learned, no box is seen. Where the match comes from in the image
    (Grad-CAM) then chooses among a detector's boxes, and also gives a box and a mask of its own."""

    kind: Literal["heat"] = "heat"
    itc: Weight = 1.0
    """Weight of the loss."""
    itm: Weight = 1.0
    """Weight of the loss."""
    layer: int = -3
    """Layer of the fusion encoder whose cross-attention is read, from 0; negative counts from the last. The published 9 of 12 layers of
    BERT is 3, or -3, of the 6 that fuse."""
    area_power: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Boxes are ranked by their heat over this power of their area."""
    hot_share: Probability = 0.5
    """The box and the mask that need no detector are of pixels with at least this share of the largest heat."""


Method = Annotated[BoxMethod | HeatMethod, Field(discriminator="kind")]


class GroundingConfig(RunConfig):
    """Fine-tuning and evaluation of visual grounding."""

    task: Literal["grounding"] = "grounding"  # pyright: ignore[reportIncompatibleVariableOverride]
    data: GroundingData
    method: Method = BoxMethod()
    evaluation: GroundingEvaluation = GroundingEvaluation()

    @model_validator(mode="after")
    def _layer_is_there(self) -> "GroundingConfig":
        layers = self.model.fusion.layers
        if isinstance(self.method, HeatMethod) and self.method.layer not in range(-layers, layers):
            text = f"method.layer is {self.method.layer}, and the fusion encoder has layers 0 to {layers - 1}; name one of them."
            raise_problems([("method.layer", text)])
        return self

    def batches(self) -> Mapping[str, StreamSettings]:
        """The referring expressions."""
        return {"train": self.data}

    def objective_names(self) -> set[str]:
        """Box regression, or contrast and matching, which heat is made of whatever their weights."""
        return {"box"} if isinstance(self.method, BoxMethod) else {"itc", "itm"}

    def loss_weights(self) -> dict[str, float]:
        """Weight of each loss by its name."""
        method = self.method
        if isinstance(method, BoxMethod):
            return {"box_l1": method.box_l1, "box_giou": method.box_giou}
        return {"itc": method.itc, "itm": method.itm}
