"""What all families share: official arguments as batches, what a call computed on its way, and the likeliest negatives.

Shapes: B images, R texts or regions, N patches, L text tokens, M masked positions, E feature width.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import UserError
from models.checkpoints.adapter import Adapter, HeadCounts
from models.checkpoints.keys import KeyTable, convert
from models.checkpoints.xfm import FUSION_EMBEDDINGS
from models.config import ClipVitConfig, ModelConfig
from models.context import VisionContext
from models.objectives.matching import negative_weights
from models.tasks.base import Batch
from models.tasks.passes import draw_negatives
from models.vlm import FusionPass, Head, VisionLanguageModel
from parity.case import Case
from parity.family import Built

LOSS_NAMES = {
    "itc": "loss_itc",
    "itm": "loss_itm",
    "mlm": "loss_mlm",
    "box_l1": "loss_bbox",
    "box_giou": "loss_giou",
    "ttc": "loss_ttc",
    "ttm": "loss_ttm",
    "tlm": "loss_mlm",
}
"""Our names of losses to the recorded ones."""
Seen = dict[str, list[Any]]


def to_batch(inputs: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """The arguments of an official pre-training forward as a batch of ours (dataset/streams/base.py).

    Args:
        inputs: image, text_ids, text_atts, text_ids_masked, masked_pos, masked_ids; of regions also idx_to_group_img, image_atts,
            target_bbox, is_image. Any may be missing or None.
        dtype: of the images and boxes.

    Returns:
        The batch; every row is a pair of its own (official pre-training passes no ids), draws are all 0.
    """
    given = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
    names = {"text_ids": "text_ids", "text_ids_masked": "text_ids_masked", "masked_pos": "masked_positions", "masked_ids": "mlm_labels"}
    batch = {ours: given[theirs] for theirs, ours in names.items() if theirs in given}
    if "image" in given:
        batch["image"] = given["image"].to(dtype)
    if "text_atts" in given:
        rows = len(given["text_atts"])
        batch |= {
            "text_mask": given["text_atts"].bool(),
            "sample_ids": torch.arange(rows),
            "group": torch.zeros(rows, dtype=torch.int64),
            "negative_draws": torch.zeros(rows, 2),
        }
    if "idx_to_group_img" in given:
        rows = len(given["idx_to_group_img"])
        batch |= {"image_index": given["idx_to_group_img"], "patch_mask": given["image_atts"][:, 1:].bool()}
        if "target_bbox" in given:
            whole = given["is_image"].bool() if "is_image" in given else torch.zeros(rows, dtype=torch.bool)
            batch |= {"target_box": given["target_bbox"].to(dtype), "is_image": whole}
    return batch


@torch.no_grad()
def likeliest_negatives(image: Tensor, text: Tensor, temperature: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Draws with which matching takes the likeliest negative everywhere, as the recordings did.

    Args:
        image: [R, E] features of what plays the image.
        text: [R, E] features of what plays the text.
        temperature: scalar.
        batch: with sample_ids and group.

    Returns:
        draws [R, 2] for `negative_draws`, and what is then drawn: the image [R] of each text and the text [R] of each image.
    """
    similarity = image.float() @ text.float().T / temperature.float()
    ids, group = batch["sample_ids"], batch["group"]
    same = (ids[:, None] == ids[None]) | (group[:, None] != group[None])
    draws = torch.stack([_likeliest_draw(scores, same) for scores in (similarity.T, similarity)], dim=1)
    image_of_text, _, text_of_image, _ = draw_negatives(image, text, temperature, {**batch, "negative_draws": draws})
    return draws, image_of_text, text_of_image


def _likeliest_draw(similarity: Tensor, same: Tensor) -> Tensor:
    """[R] the middle of the largest weight's share of [0, 1)."""
    weights = negative_weights(similarity, same).double()
    largest, index = weights.max(dim=1)
    end = weights.cumsum(dim=1).gather(1, index[:, None]).squeeze(1)
    return (end - largest / 2) / weights.sum(dim=1)


@contextmanager
def watching(model: nn.Module, methods: Sequence[str]) -> Iterator[Seen]:
    """Keep what these methods of a model return, in order, while other code calls them."""
    seen: Seen = {name: [] for name in methods}
    for name in methods:
        setattr(model, name, (_keeping_whole if name == "fuse" else _keeping)(getattr(model, name), seen[name]))
    try:
        yield seen
    finally:
        for name in methods:
            delattr(model, name)


def _keeping(call: Callable[..., Any], kept: list[Any]) -> Callable[..., Any]:
    def kept_call(*arguments: Any) -> Any:
        result = call(*arguments)
        kept.append(result)
        return result

    return kept_call


def _keeping_whole(fuse: Callable[..., list[Tensor]], kept: list[Any]) -> Callable[..., list[Tensor]]:
    """Training leaves out what no head reads; the recordings hold all positions, so they are computed once more for keeping."""

    def kept_fuse(vision: VisionContext | None, passes: list[FusionPass]) -> list[Tensor]:
        with torch.no_grad():
            kept.append(fuse(vision, [item._replace(pooled=False) for item in passes]))
        return fuse(vision, passes)

    return kept_fuse


@contextmanager
def outputs_of(modules: Mapping[str, nn.Module]) -> Iterator[Seen]:
    """Keep the outputs of these modules, in order, under the given names."""
    seen: Seen = {name: [] for name in modules}

    def hook_for(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, arguments, output: seen[name].append(output)

    handles = [module.register_forward_hook(hook_for(name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def vision_blocks(backbone: nn.Module) -> dict[str, nn.Module]:
    """The modules whose outputs the recordings call vision_block0, vision_block1, ...

    A stage of the official Swin ends with its downsampling; timm's begins with the one of the stage before.
    """
    if isinstance(blocks := getattr(backbone, "blocks", None), nn.Module):
        return {f"vision_block{index}": block for index, block in enumerate(blocks.children())}
    if isinstance(encoder := getattr(backbone, "encoder", None), nn.Module):
        return {f"vision_block{index}": layer for index, layer in enumerate(encoder.get_submodule("layers").children())}
    stages = list(backbone.get_submodule("layers").children())
    ends = [getattr(stage, "downsample", stage) for stage in stages[1:]] + stages[-1:]
    return {f"vision_block{index}": end for index, end in enumerate(ends)}


def as_tokens(states: Tensor) -> Tensor:
    """A block's output as [B, P, D]: a grid [B, H, W, D] in raster order, tokens as they are."""
    return states.flatten(1, 2) if states.dim() == 4 else states


def recorded_config(case: Case, adapter: Adapter[ModelConfig]) -> ModelConfig:
    """The model of a case: sizes from its weights' shapes; heads, epsilons, padding and local layers, which no shape tells, as recorded.

    The fusion encoder's own sizes stand under "cross" or "fusion" where it is a network of its own.
    """
    vision, text = case.dims["vision"], case.dims["text"]
    fusion = case.dims.get("cross") or case.dims.get("fusion") or text
    shapes = {name: tensor.shape for name, tensor in case.weights.items()}
    heads = HeadCounts(vision.get("num_attention_heads"), text["num_attention_heads"], fusion["num_attention_heads"])
    config = adapter.config(shapes, heads)
    updates: dict[str, Any] = {
        "text": config.text.model_copy(update={name: text[name] for name in ("layer_norm_eps", "pad_token_id") if name in text}),
        "fusion": config.fusion.model_copy(update={"layer_norm_eps": fusion["layer_norm_eps"]}),
        "temperature": case.base["temp"],
    }
    if isinstance(config.vision, ClipVitConfig):
        updates["vision"] = config.vision.model_copy(update={"local_depth": vision["local_attn_depth"]})
    return config.model_copy(update=updates)


def vision_language_model(config: ModelConfig, heads: Sequence[Head], case: Case, table: KeyTable, dtype: torch.dtype) -> Built:
    """The model of a case with its weights; see `with_weights`."""
    if not config.learn_temperature:  # the official code keeps a fixed temperature outside of the weights
        case = replace(case, weights=case.weights | {"temp": torch.tensor(config.temperature, dtype=torch.float64)})
    return with_weights(VisionLanguageModel(config, heads), case, table, dtype)


def with_weights(model: nn.Module, case: Case, table: KeyTable, dtype: torch.dtype) -> Built:
    """A freshly built model filled with the weights of a case, in evaluation mode.

    Raises:
        UserError: a weight of the model is not in the case, or one of the case's that has a name here has no place in the model.
    """
    conversion = convert(case.weights, table)
    model = model.to(dtype).eval()
    tensors = {name: tensor for name, tensor in conversion.tensors.items() if not name.startswith(FUSION_EMBEDDINGS)}
    missing, misplaced = model.load_state_dict(tensors, strict=False)
    absent = sorted(set(missing) & {name for name, _ in model.named_parameters()})
    if absent or misplaced:
        name, problem = (absent[0], "is not in the recorded weights") if absent else (misplaced[0], "has no place in the model")
        raise UserError(f"{case.folder}: {name} {problem} ({len(absent)} absent, {len(misplaced)} without a place)")
    return Built(model, conversion.sources)
