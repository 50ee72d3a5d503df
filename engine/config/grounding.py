"""What may stand in the config of visual grounding."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from common.settings import Settings
from dataset.config import Probability
from dataset.tasks.expressions import Expressions
from dataset.tasks.grounding_config import CandidateSettings, GroundingData
from engine.config.concepts import vocabulary_problems
from engine.config.errors import raise_problems
from engine.config.schema import GroundingEvaluation, RunConfig, StreamSettings, Weight
from models.tasks.mvp_referring import RegionScore


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


class RegionsMethod(Settings):
    """Ranking of candidate boxes by a model with `model.mvp` (MVP, arXiv 2201.12596, and its code for RefCOCO+). Each candidate is pooled
    from the vision encoder's feature map, meets the text in the joint encoder, and learns how much of the true box it covers; the answer is
    the one that scores best."""

    kind: Literal["regions"] = "regions"
    score: RegionScore = "cosine"
    """What scores a region. cosine: that of its state with the text's, taught the IoU with the true box. product: their product, taught
    whether the IoU is half or more. linear: a head of its own, taught the IoU; it starts from nothing (initialize.allow_missing:
    ["mvp.cls_head.*"])."""
    layer: int = 2
    """Layer of the joint encoder whose states are compared, from 0; negative counts from the last. Published: the third of six."""
    candidates: CandidateSettings = CandidateSettings()


Method = Annotated[BoxMethod | HeatMethod | RegionsMethod, Field(discriminator="kind")]


class GroundingConfig(RunConfig):
    """Fine-tuning and evaluation of visual grounding."""

    task: Literal["grounding"] = "grounding"  # pyright: ignore[reportIncompatibleVariableOverride]
    data: GroundingData
    method: Method = BoxMethod()
    evaluation: GroundingEvaluation = GroundingEvaluation()

    @model_validator(mode="after")
    def _method_and_model_fit(self) -> "GroundingConfig":
        problems, layers = [], self.model.fusion.layers
        if not isinstance(self.method, BoxMethod) and self.method.layer not in range(-layers, layers):
            text = f"method.layer is {self.method.layer}, and the fusion encoder has layers 0 to {layers - 1}; name one of them."
            problems.append(("method.layer", text))
        if isinstance(self.method, RegionsMethod):
            problems += self._region_problems(self.method)
        elif self.model.mvp is not None:
            text = f"method.kind is {self.method.kind}; a model with model.mvp grounds by method.kind regions alone."
            problems.append(("method.kind", text))
        raise_problems(problems)
        return self

    def _region_problems(self, method: RegionsMethod) -> list[tuple[str, str]]:
        mvp, text = self.model.mvp, self.model.text
        if mvp is None:
            return [("method.kind", "method.kind regions ranks with the encoders of model.mvp. Set model.mvp, or take another method.")]
        problems = vocabulary_problems(self.model)
        if mvp.region_features is not None:
            said = "model.mvp.region_features is set, but method.kind regions pools candidates from pixels. Set it to null."
            problems.append(("model.mvp.region_features", said))
        if mvp.joint == "cross" and method.layer != -1:
            problems.append(("method.layer", "method.layer: only the last layer, -1, is compared where model.mvp.joint is cross."))
        if method.candidates.max_tag_tokens > text.max_positions:
            said = f"is {method.candidates.max_tag_tokens}, but model.text.max_positions is {text.max_positions}."
            problems.append(("method.candidates.max_tag_tokens", f"method.candidates.max_tag_tokens {said}"))
        return problems

    def expressions(self, names: str | Sequence[str]) -> Expressions:
        """Some of the files or splits of `data`."""
        return Expressions.of(self.data, names, ranked=isinstance(self.method, RegionsMethod))

    def batches(self) -> Mapping[str, StreamSettings]:
        """The referring expressions."""
        return {"train": self.data}

    def objective_names(self) -> set[str]:
        """Box regression, ranking of regions, or contrast and matching, which heat is made of whatever their weights."""
        return {"boxes": {"box"}, "regions": {"region_ranking"}, "heat": {"itc", "itm"}}[self.method.kind]

    def loss_weights(self) -> dict[str, float]:
        """Weight of each loss by its name."""
        match self.method:
            case BoxMethod(box_l1=box_l1, box_giou=box_giou):
                return {"box_l1": box_l1, "box_giou": box_giou}
            case HeatMethod(itc=itc, itm=itm):
                return {"itc": itc, "itm": itm}
            case RegionsMethod():
                return {"region_ranking": 1.0}
