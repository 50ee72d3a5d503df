"""A small MVP and batches for it."""

import torch
from torch import Tensor

from common.labels import IGNORED
from models.mvp.config import MvpConfig

SMALL = MvpConfig(
    width=32,
    heads=2,
    intermediate=64,
    text_layers=1,
    vision_layers=1,
    joint_layers=2,
    vocab_size=60,
    words=40,
    max_positions=16,
    region_width=10,
    qa_answers=5,
    dropout=0.0,
)
WORDS, PHRASES, TAGS, REGIONS = 5, 3, 4, 5


def mvp_batch(rows: int, seed: int = 0) -> dict[str, Tensor]:
    """Rows of `[CLS] words phrases [SEP] pad` with tags and regions; the last region of odd rows is padding."""
    generator = torch.Generator().manual_seed(seed)

    def ids(low: int, high: int, count: int) -> Tensor:
        return torch.randint(low, high, (rows, count), generator=generator)

    ends = torch.tensor([2, 3, 0]).expand(rows, 3)  # [CLS], [SEP], [PAD]
    text = torch.cat([ends[:, :1], ids(5, 40, WORDS - 1), ids(40, 60, PHRASES), ends[:, 1:], ends[:, 2:]], dim=1)
    tags = torch.cat([ends[:, :1], ids(5, 40, TAGS - 2), ends[:, 1:2]], dim=1)
    phrase_mask = torch.zeros(rows, text.shape[1], dtype=torch.bool)
    phrase_mask[:, WORDS : WORDS + PHRASES] = True
    region_mask = torch.ones(rows, REGIONS, dtype=torch.bool)
    region_mask[1::2, -1] = False
    return {
        "text_ids": text,
        "text_mask": text != 0,
        "phrase_mask": phrase_mask,
        "masked_positions": torch.tensor([1, 2]).repeat(rows, 1),
        "mlm_labels": ids(5, 40, 2),
        "tag_ids": tags,
        "tag_mask": tags != 0,
        "masked_tag_positions": torch.tensor([1, 0]).repeat(rows, 1),
        "tag_labels": torch.cat([ids(5, 40, 1), torch.full((rows, 1), IGNORED)], dim=1),
        "regions": torch.randn(rows, REGIONS, 10, generator=generator) * region_mask[:, :, None],
        "region_mask": region_mask,
        "sample_ids": torch.arange(rows),
        "group": torch.zeros(rows, dtype=torch.int64),
        "answers": ids(0, 5, 1).squeeze(1),
        "side_draws": torch.rand(rows, generator=generator),
        "negative_draws": torch.rand(rows, 2, generator=generator),
        "other_draws": torch.rand(rows, generator=generator),
        "grounding_draws": torch.rand(rows, text.shape[1], 2, generator=generator),
    }
