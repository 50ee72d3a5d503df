"""Official arguments of MVP as batches."""

import torch

from common.labels import IGNORED
from parity.families.mvp import learning_of, to_batch


def test_official_arguments_become_a_batch() -> None:
    inputs = {
        "input_ids_a": torch.tensor([[2, 9, 9, 41, 3, 0], [2, 9, 9, 9, 42, 3]]),
        "token_type_ids_a": torch.zeros(2, 6, dtype=torch.int64),
        "attention_mask_a": torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]),
        "masked_lm_labels_a": torch.tensor([[-1, 7, -1, -1, -1, -1], [-1, 5, -1, 6, -1, -1]]),
        "phrase_index": torch.tensor([[3, 4], [4, 5]]),
        "input_ids_b": torch.tensor([[2, 8, 3], [2, 3, 0]]),
        "token_type_ids_b": torch.ones(2, 3, dtype=torch.int64),
        "attention_mask_b": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 1, 0]]),
        "masked_lm_labels_b": torch.tensor([[-1, 8, -1, -1, -1], [-1, -1, -1, -1, -1]]),
        "img_index": torch.tensor([[6, 8], [6, 7]]),
        "img_feats": torch.zeros(2, 2, 4),
        "qa_ans": torch.tensor([3, -1]),
    }
    batch = to_batch(inputs, torch.float64)
    assert batch["masked_positions"][1].tolist() == [1, 3] and batch["masked_positions"][0, 0] == 1
    assert batch["mlm_labels"].tolist() == [[7, IGNORED], [5, 6]]
    assert batch["tag_labels"].tolist() == [[8], [IGNORED]]
    assert batch["phrase_mask"].int().tolist() == [[0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0]]
    assert batch["tag_mask"].int().tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["region_mask"].int().tolist() == [[1, 1], [1, 0]]
    assert batch["answers"].tolist() == [3, IGNORED]
    assert batch["regions"].dtype == torch.float64


def test_a_scenario_says_what_phrases_are_compared_with() -> None:
    assert learning_of("hard", {}).grounding == "hard"
    assert learning_of("qa", {}).grounding == "sample"
    chosen = learning_of("other", {"wra_mod": "hard", "wra_layer": 0})
    assert (chosen.grounding, chosen.grounding_layer) == ("hard", 0)
