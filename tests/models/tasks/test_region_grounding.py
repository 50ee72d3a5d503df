"""Ranking of candidate boxes from pixels: what learns, and that it learns."""

import pytest
import torch
from torch import Tensor

from concepts import MODEL
from models.objectives.region_ranking import region_overlaps
from models.tasks.region_grounding import LOSS, RegionGrounding, best_regions

CORNERS = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.5, 0.0, 1.0, 0.5], [0.0, 0.5, 0.5, 1.0]])
"""Three quarters of a picture."""
CENTRES = torch.tensor([[0.25, 0.25, 0.5, 0.5], [0.75, 0.25, 0.5, 0.5], [0.25, 0.75, 0.5, 0.5]])


def batch() -> dict[str, Tensor]:
    """Two texts about each of two pictures of four colours; each text names a colour, which lies in other quarters of the two."""
    colours = torch.tensor([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.uint8)
    layout = torch.tensor([[[1, 2], [3, 0]], [[2, 3], [1, 0]]])
    images = colours[layout].permute(0, 3, 1, 2).repeat_interleave(16, 2).repeat_interleave(16, 3)  # [2, 3, 32, 32]
    words = torch.tensor([[2, 10, 3, 0], [2, 11, 3, 0]]).repeat(2, 1)  # red, green
    tags = torch.tensor([[2, 3]]).repeat(4, 1)
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[:, 3] = False
    return {
        "image": images.repeat_interleave(2, 0),
        "text_ids": words,
        "text_mask": words != 0,
        "tag_ids": tags,
        "tag_mask": tags != 0,
        "region_boxes": torch.cat([CORNERS, torch.zeros(1, 4)]).repeat(4, 1, 1),
        "region_mask": mask,
        "target_box": CENTRES[MEANT],
    }


MEANT = torch.tensor([0, 1, 2, 0])


def test_a_region_is_compared_with_the_true_box() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.25, 0.0, 0.75, 0.5], [0.5, 0.5, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]])
    torch.testing.assert_close(region_overlaps(boxes, CENTRES[:1]), torch.tensor([[1.0, 1 / 3, 0.0, 0.0]]))


@pytest.mark.parametrize(("score", "joint", "layer"), [("cosine", "single", 0), ("linear", "single", -1), ("product", "cross", -1)])
def test_all_learns_but_the_layers_behind_that_which_is_compared(score, joint: str, layer: int) -> None:
    assert MODEL.mvp is not None
    torch.manual_seed(0)
    task = RegionGrounding(MODEL.model_copy(update={"mvp": MODEL.mvp.model_copy(update={"joint": joint})}), score, layer, "exact")
    task({"train": batch()})[LOSS].backward()
    still = {name for name, parameter in task.named_parameters() if parameter.grad is None}
    assert still == {name for name, _ in task.named_parameters() if layer == 0 and ".joint_encoder.layers.1." in name}
    assert all(not task.get_parameter(name).requires_grad for name in still)
    assert task.row_counts({"train": batch()})[LOSS] == 12  # padding is no region


def test_the_region_that_a_text_names_is_found_after_a_few_steps() -> None:
    torch.manual_seed(0)
    task, found = RegionGrounding(MODEL, "cosine", -1, "exact"), batch()
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    for _ in range(40):
        loss = task({"train": found})[LOSS]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert best_regions(task.model.eval(), found).tolist() == MEANT.tolist()
