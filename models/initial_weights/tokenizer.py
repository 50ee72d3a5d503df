"""Initial weights of the visual tokenizer: Microsoft's VQ-KD files."""

from pathlib import Path

from torch import Tensor

from common.errors import UserError
from models.checkpoints.keys import KeyTable, convert
from models.checkpoints.reading import read_state_dict
from models.checkpoints.xfm import TOKENIZER, TOKENIZER_KEYS

NAMES = KeyTable(tuple((official.removeprefix(TOKENIZER), ours) for official, ours in TOKENIZER_KEYS if official.startswith(TOKENIZER)))


def tokenizer_weights(source: str | None) -> dict[str, Tensor]:
    """Read a tokenizer; the decoder that it was trained with is left out.

    Args:
        source: a local file.

    Returns:
        Tensors under our names.

    Raises:
        UserError: there is no source, or it is missing or unsafe.
    """
    if source is None:
        raise UserError("model.visual_tokenizer.weights is not set. The codes of a random tokenizer mean nothing: name a file of VQ-KD.")
    return convert(read_state_dict(Path(source)), NAMES).tensors
