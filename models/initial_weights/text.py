"""Initial weights of the text encoder, of fusion layers copied from it, and of the masked-LM head: BERT, RoBERTa and XLM-R."""

from collections.abc import Iterator, Mapping

from torch import Tensor
from transformers import AutoModelForMaskedLM

from common.errors import UserError
from models.config import ModelConfig

TO_FUSION = {
    "attention.self.": "self_attention.",
    "attention.output.dense.": "self_attention.output.",
    "attention.output.LayerNorm.": "self_attention_norm.",
    "intermediate.dense.": "mlp_in.",
    "output.dense.": "mlp_out.",
    "output.LayerNorm.": "mlp_norm.",
}
"""A layer of BERT or RoBERTa to a fusion layer."""
TO_HEAD = {
    "cls.predictions.transform.dense.": "dense.",
    "cls.predictions.transform.LayerNorm.": "norm.",
    "cls.predictions.bias": "bias",
    "cls.predictions.decoder.weight": "decoder",
    "lm_head.dense.": "dense.",
    "lm_head.layer_norm.": "norm.",
    "lm_head.bias": "bias",
    "lm_head.decoder.weight": "decoder",
}
"""The masked-LM heads of BERT and of RoBERTa to ours; an output matrix is used where ours is not tied."""


def text_weights(config: ModelConfig, source: str, head: str) -> dict[str, Tensor]:
    """Read a pretrained text model.

    Args:
        config: of the model that wants the weights; says which layers of the source become which of ours.
        source: a folder of transformers, or a name that it can load.
        head: our name of the masked-LM head that the source's head becomes.

    Returns:
        Tensors under our names.

    Raises:
        UserError: the source is missing or unknown, or has fewer layers than asked for.
    """
    try:
        # transformers fills what a file lacks with fresh numbers; those are not the file's.
        loaded, report = AutoModelForMaskedLM.from_pretrained(source, output_loading_info=True)
    except (OSError, ValueError) as error:
        reason = str(error).split("\n", 1)[0]
        raise UserError(f"model.text.weights: {source} is neither a local folder nor a model transformers can load ({reason}).") from error
    missing = set(report["missing_keys"])
    state = {name: tensor for name, tensor in loaded.state_dict().items() if name not in missing}
    own = {name.split(".", 1)[1]: tensor for name, tensor in state.items() if name.startswith(("bert.", "roberta."))}
    return dict([*_encoder(config, own, source), *_fusion(config, own, source), *_head(state, head)])


def _encoder(config: ModelConfig, state: Mapping[str, Tensor], source: str) -> Iterator[tuple[str, Tensor]]:
    yield from ((f"text.backbone.{name}", tensor) for name, tensor in state.items() if name.startswith("embeddings."))
    for index, layer in enumerate(config.text.weight_layers or range(config.text.layers)):
        for rest, tensor in _layer(state, layer, source):
            yield f"text.backbone.encoder.layer.{index}.{rest}", tensor


def _fusion(config: ModelConfig, state: Mapping[str, Tensor], source: str) -> Iterator[tuple[str, Tensor]]:
    for index, layer in enumerate(config.fusion.copy_text_layers or []):
        for rest, tensor in _layer(state, layer, source):
            yield f"fusion.layers.{index}.{_rename(rest, TO_FUSION)}", tensor


def _head(state: Mapping[str, Tensor], head: str) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in state.items():
        if name.startswith(tuple(TO_HEAD)):
            yield f"{head}.{_rename(name, TO_HEAD)}", tensor


def _layer(state: Mapping[str, Tensor], layer: int, source: str) -> list[tuple[str, Tensor]]:
    """Tensors of one layer of the source by their names within it."""
    prefix = f"encoder.layer.{layer}."
    found = [(name.removeprefix(prefix), tensor) for name, tensor in state.items() if name.startswith(prefix)]
    if not found:
        raise UserError(f"model.text.weights: {source} has no layer {layer}; see text.weight_layers and fusion.copy_text_layers.")
    return found


def _rename(name: str, table: Mapping[str, str]) -> str:
    old = next(old for old in table if name.startswith(old))
    return table[old] + name.removeprefix(old)
