"""Initial weights of MVP: BERT's lower layers for the two encoders of one side, the layers above for the joint one."""

from collections.abc import Iterator

from torch import Tensor

from models.initial_weights.text import text_weights
from models.mvp.pixels import PixelEncoders

EMBEDDINGS = {"word_embeddings": "words", "position_embeddings": "positions", "token_type_embeddings": "types", "LayerNorm": "norm"}


def mvp_text_weights(model: PixelEncoders, source: str) -> dict[str, Tensor]:
    """Read a pretrained BERT under the names of an MVP model.

    The published code does not say what its encoders started from. Here text and visual encoder start from the same lower layers, and rows
    of phrases, which no BERT has, stay as initialised.

    Args:
        model: freshly built.
        source: a folder of transformers, or a name that it can load.

    Raises:
        UserError: the source is missing or unknown, or has fewer layers than the encoders on top of one another.
    """
    text, lengths = model.config.text, [len(stack) for stack in model.stacks()[1:]]
    joint = lengths[2] if model.mvp.config.joint == "single" else 0  # layers with cross-attention start fresh
    depth = max(lengths[0] + joint, lengths[1])
    whole = model.config.model_copy(update={"text": text.model_copy(update={"layers": depth, "weight_layers": None})})
    return dict(_renamed(model, text_weights(whole, source, "mlm_head"), lengths, joint))


def _renamed(model: PixelEncoders, weights: dict[str, Tensor], lengths: list[int], joint: int) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in weights.items():
        part, _, rest = name.removeprefix("text.backbone.").partition(".")
        if part == "embeddings":
            module, _, kind = rest.partition(".")
            if module in EMBEDDINGS:
                yield f"mvp.embeddings.{EMBEDDINGS[module]}.{kind}", _rows(model, tensor) if module == "word_embeddings" else tensor
        elif part == "encoder":
            _, index, inner = rest.split(".", 2)
            layer = int(index)
            if layer < lengths[0]:
                yield f"mvp.text_encoder.layers.{layer}.{inner}", tensor
            elif layer - lengths[0] < joint:
                yield f"mvp.joint_encoder.layers.{layer - lengths[0]}.{inner}", tensor
            if layer < lengths[1]:
                yield f"mvp.vision_encoder.layers.{layer}.{inner}", tensor
        else:
            yield f"mvp.{name}", tensor


def _rows(model: PixelEncoders, words: Tensor) -> Tensor:
    """Word rows of the source, phrase rows of the model."""
    table = model.mvp.embeddings.words.weight.detach().clone()
    table[: len(words)] = words
    return table
