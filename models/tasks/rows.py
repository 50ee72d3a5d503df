"""How many rows each loss of a batch is the mean of: what weighs micro-batches by their share of an optimizer step."""

from collections.abc import Callable, Collection

from torch import Tensor

from common.labels import IGNORED
from models.objectives.matching import inseparable
from models.tasks.base import Batch


def row_counts(batch: Batch, objectives: Collection[str]) -> dict[str, Tensor]:
    """Rows of the losses whose number of rows depends on the data; functions of the batch alone, without a host sync.

    The loss `mim` is counted by hidden patches. Its second part, of the global tokens, is a mean over images and is weighed along: exact
    where as many patches are hidden in every micro-batch.

    Args:
        batch: see `stream_losses` and `parallel_losses`.
        objectives: names of the objectives.

    Returns:
        Scalars by name of the loss.
    """
    return {loss: count(batch) for objective in objectives for loss, count in _COUNTS.get(objective, {}).items()}


def _labels(name: str) -> Callable[[Batch], Tensor]:
    return lambda batch: (batch[name] != IGNORED).sum()


def _matched(batch: Batch) -> Tensor:
    """True pairs, and for each text and each view a wrong one where there is any."""
    partners = ~inseparable(batch["sample_ids"], batch["group"])
    return len(partners) + 2 * partners.any(dim=1).sum()


def _boxes(batch: Batch) -> Tensor:
    return (~batch["is_image"]).sum()


_COUNTS: dict[str, dict[str, Callable[[Batch], Tensor]]] = {
    "itm": {"itm": _matched},
    "ttm": {"ttm": _matched},
    "mlm": {"mlm": _labels("mlm_labels")},
    "text_mlm": {"text_mlm": _labels("mlm_labels")},
    "tlm": {"tlm": _labels("pair_mlm_labels")},
    "concepts": {"concepts": _labels("tag_labels")},
    "phrases": {"phrases": _labels("phrase_labels")},
    "box": {"box_l1": _boxes, "box_giou": _boxes},
    "mim": {"mim": lambda batch: batch["patch_hidden"].sum()},
}
