"""A small model and batches of every kind of stream, which can be split into micro-batches."""

from collections.abc import Mapping

import torch
from torch import Tensor

from models.config import Beit2Config, FusionConfig, ModelConfig, TextConfig
from models.tasks.pretrain import Pretraining, StreamObjectives
from models.vlm import VisionLanguageModel

VOCABULARY, LENGTH, MASKED = 40, 6, 3
ALL = {"itc": 1.0, "itm": 0.5, "mlm": 2.0}


def small_config(dropout: float = 0.0) -> ModelConfig:
    """A model of a few thousand parameters; depth 2, because the first layer is never dropped."""
    return ModelConfig(
        vision=Beit2Config(image_size=16, patch_size=8, width=16, depth=2, heads=2, drop_path=4 * dropout),
        text=TextConfig(width=16, layers=1, heads=2, intermediate=32, vocab_size=VOCABULARY, max_positions=24, dropout=dropout),
        fusion=FusionConfig(layers=1),
        projection_dim=8,
    )


def pretraining(streams: Mapping[str, Mapping[str, float]], dropout: float = 0.0) -> Pretraining:
    """The task over streams with these objectives, with weights far enough apart that features differ."""
    torch.manual_seed(0)
    objectives = {name: StreamObjectives(1.0, wanted) for name, wanted in streams.items()}
    task = Pretraining(small_config(dropout), objectives, "exact")
    for name, parameter in task.named_parameters():
        if parameter.dim() > 1 and parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(len(name)))
    return task


def ranking_model(vision_width: int, fusion_layers: int) -> VisionLanguageModel:
    """A model for ranking, in evaluation mode, with weights far enough apart that logits differ."""
    torch.manual_seed(0)
    config = ModelConfig(
        vision=Beit2Config(image_size=16, patch_size=8, width=vision_width, depth=1, heads=2),
        text=TextConfig(width=16, layers=1, heads=2, intermediate=32, vocab_size=40, max_positions=16),
        fusion=FusionConfig(layers=fusion_layers),
    )
    model = VisionLanguageModel(config, ("itc", "itm")).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def pair_batch(rows: int, seed: int = 0, regions: bool = False) -> dict[str, Tensor]:
    """Images with texts in groups of two, with a second text each; row r hides r % 4 tokens of its first text, at most MASKED.

    Args:
        rows: how many.
        seed: of what is random.
        regions: add boxes and patches; every third text describes the whole image.
    """
    generator = torch.Generator().manual_seed(seed)
    ids, other = (torch.randint(5, VOCABULARY, (rows, LENGTH), generator=generator) for _ in range(2))
    positions = torch.arange(1, MASKED + 1).expand(rows, -1)
    hidden = torch.arange(MASKED) < torch.arange(rows)[:, None] % 4
    mask = torch.ones(rows, LENGTH, dtype=torch.bool)
    batch = {
        "image": torch.randint(0, 256, (rows, 3, 16, 16), generator=generator, dtype=torch.uint8),
        "text_ids": ids,
        "text_mask": mask,
        "text_ids_masked": ids.scatter(1, positions, torch.where(hidden, 4, ids[:, 1 : MASKED + 1])),
        "masked_positions": positions,
        "mlm_labels": torch.where(hidden, ids[:, 1 : MASKED + 1], -100),
        "text_ids_2": other,
        "text_mask_2": mask,
        "sample_ids": torch.arange(rows) % max(rows - 1, 1),  # the last row is of the first row's sample
        "group": torch.arange(rows) // 2,
        "negative_draws": torch.rand(rows, 2, generator=generator),
    }
    if regions:
        whole = torch.arange(rows) % 3 == 0
        batch |= {
            "image_index": torch.arange(rows),
            "patch_mask": whole[:, None] | (torch.arange(4) < 2),
            "target_box": torch.rand(rows, 4, generator=generator),
            "is_image": whole,
        }
    return batch


def text_pairs(rows: int, seed: int = 0) -> dict[str, Tensor]:
    """Two texts of one meaning, no images."""
    batch = pair_batch(rows, seed)
    del batch["image"]
    pair = {"pair_ids_masked": torch.cat([batch["text_ids_masked"], batch["text_ids_2"]], dim=1)}
    pair["pair_mask"] = torch.ones_like(pair["pair_ids_masked"], dtype=torch.bool)
    return batch | pair | {"pair_masked_positions": batch["masked_positions"], "pair_mlm_labels": batch["mlm_labels"]}


def split(batches: Mapping[str, Mapping[str, Tensor]], parts: int) -> list[dict[str, dict[str, Tensor]]]:
    """Micro-batches of the rows of a batch; those of an image come with it."""
    micros: list[dict[str, dict[str, Tensor]]] = [{} for _ in range(parts)]
    for name, batch in batches.items():
        chunks = {key: value.chunk(parts) for key, value in batch.items()}
        for index, micro in enumerate(micros):
            micro[name] = {key: values[index] for key, values in chunks.items()}
            if "image_index" in batch:
                micro[name]["image_index"] = micro[name]["image_index"] - micro[name]["image_index"][0]
    return micros
