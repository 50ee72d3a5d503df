"""Fine-tuning for retrieval and the two-stage evaluation, of X-VLM, X2-VLM, CCLM and X-FM.

Shapes: I images, T texts, k candidates of a query, L text tokens.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from models.candidates import PackedTexts
from models.tasks.losses import stream_losses
from models.tasks.ranking import ImageTokens, Pairs, best_candidates, encode_texts, groups_of, score_pairs, similarity
from models.vlm import FusionPass, VisionLanguageModel
from parity.case import Case
from parity.families.shared import (
    likeliest_negatives,
    outputs_of,
    recorded_config,
    to_batch,
    vision_blocks,
    vision_language_model,
    watching,
)
from parity.families.xvlm import WATCHED, case_adapter, computed
from parity.family import Built, Computed, Stream

CLASSES = {
    ("X-VLM", "models.model_retrieval.XVLM"),
    ("X2-VLM", "models.model_retrieval.XVLMForRetrieval"),
    ("X2-VLM", "models.model_retrieval.XVLMPlusForRetrieval"),
    ("CCLM", "models.model_retrieval.RetrievalModel"),
    ("XFM", "models.model_retrieval.XFMForRetrieval"),
}
TRAINED = tuple(name for name in WATCHED if name not in ("masked_lm_logits", "boxes"))
UNUSED = ("vision.backbone.mask_token", "mlm_head.", "text_mlm_head.")
"""What X-FM's files hold and retrieval leaves idle."""
NOT_RANKED = -100.0
"""Recorded score of what is no candidate."""
IMAGE_BATCH, TEXT_BATCH, PAIRS = 3, 4, 5
"""Images and texts encoded at once in the recordings, and pairs that ours fuses at once."""
CPU = torch.device("cpu")


class RetrievalTuning:
    """The classes whose forward gives the contrastive and the matching loss."""

    def covers(self, case: Case) -> bool:
        """See `Family`."""
        return (case.repo, case.official_class) in CLASSES

    def build(self, case: Case, dtype: torch.dtype) -> Built:
        """See `Family`."""
        adapter = case_adapter(case)
        config = recorded_config(case, adapter)
        table = adapter.table(config)
        used = {name: tensor for name, tensor in case.weights.items() if not (table.to_ours(name) or "").startswith(UNUSED)}
        return vision_language_model(config, ("itc", "itm"), replace(case, weights=used), table, dtype)

    def run(self, built: Built, case: Case, scenario: str, dtype: torch.dtype) -> Computed | None:
        """See `Family`."""
        model = built.model
        assert isinstance(model, VisionLanguageModel)
        if scenario == "eval":
            return Computed(evaluated(model, case, dtype))
        stream = self.stream(built, case, scenario, dtype)
        with watching(model, TRAINED) as seen, outputs_of(vision_blocks(model.vision.get_submodule("backbone"))) as inner:
            losses = stream_losses(model, stream.batch, stream.objectives, "exact")
        return computed(stream, losses, seen, inner)

    def stream(self, built: Built, case: Case, scenario: str, dtype: torch.dtype) -> Stream:
        """See `Trainable`."""
        model = built.model
        assert isinstance(model, VisionLanguageModel)
        inputs = case.inputs[scenario]
        batch = to_batch(inputs, dtype)
        if isinstance(inputs.get("idx"), Tensor):
            batch["sample_ids"] = inputs["idx"].flatten()
        with torch.no_grad(), watching(model, ("image_features", "text_features")) as seen:
            stream_losses(model, batch, ["itc"], "exact")
        draws, *drawn = likeliest_negatives(seen["image_features"][0], seen["text_features"][0], model.temperature, batch)
        negatives: dict[str, Tensor] = dict(zip(("neg_image_idx", "neg_text_idx"), drawn, strict=True))
        return Stream(batch | {"negative_draws": draws}, dict.fromkeys(("itc", "itm"), 1.0), negatives)


@torch.no_grad()
def evaluated(model: VisionLanguageModel, case: Case, dtype: torch.dtype) -> dict[str, Tensor]:
    """What the official evaluation computed, under the recorded names; scores by the code that ranks."""
    inputs, k = case.inputs["eval"], case.recorded["config"]["k_test"]
    pixels, ids, mask = inputs["image"].to(dtype), inputs["text_ids"], inputs["text_atts"].bool()
    numbers = torch.arange(len(ids)).split(TEXT_BATCH)
    images = ImageTokens(lambda number: model.encode_images(pixels.split(IMAGE_BATCH)[number]), IMAGE_BATCH, dtype, CPU)
    with watching(model, ("encode_text", "image_features", "text_features")) as seen:
        texts, text_features = encode_texts(model, ((part, ids[part], mask[part]) for part in numbers), CPU, CPU)
        tokens = [images.encode(number) for number in range(-(-len(pixels) // IMAGE_BATCH))]
        image_features = torch.cat([model.image_features(batch[:, 0]) for batch in tokens])
    scores = similarity(image_features, text_features)
    ranked = rankings(model, images, texts, best_candidates(scores, k), best_candidates(scores.T, k))
    states = torch.cat(seen["encode_text"])
    queries = [(torch.full((k,), image), row.topk(k).indices) for image, row in enumerate(scores)]
    queries += [(row.topk(k).indices, torch.full((k,), text)) for text, row in enumerate(scores.T)]
    fused = [model.fuse(model.context(torch.cat(tokens)), [FusionPass(states[text], mask[text], image)])[0] for image, text in queries]
    return (
        _numbered("text_embeds", seen["encode_text"])
        | _numbered("text_feat", seen["text_features"])
        | _numbered("vision_embeds", tokens)
        | _numbered("vision_atts", [torch.ones(batch.shape[:2], dtype=torch.uint8) for batch in tokens])
        | _numbered("image_feat", seen["image_features"])
        | _numbered("cross_embeds", fused)
        | _numbered("itm_logits", [model.match_logits(rows) for rows in fused])
        | dict(zip(("score_i2t", "score_t2i"), ranked, strict=True))
    )


def rankings(
    model: VisionLanguageModel, images: ImageTokens, texts: PackedTexts, of_images: Tensor, of_texts: Tensor
) -> tuple[Tensor, Tensor]:
    """Scores [I, T] and [T, I] of the candidate texts [I, k] of each image and of the candidate images [T, k] of each text."""
    pairs = Pairs.union(of_images, of_texts, texts.lengths)
    scores = score_pairs(model, pairs, groups_of(pairs.counts, PAIRS), images, texts, PAIRS, CPU)
    empty = torch.full((len(of_images), len(of_texts)), NOT_RANKED, dtype=scores.dtype)
    return empty.scatter(1, of_images, scores[pairs.of_images]), empty.T.scatter(1, of_texts, scores[pairs.of_texts])


def _numbered(name: str, values: list[Any]) -> dict[str, Tensor]:
    """The first value under the name itself, later ones as "name.1", "name.2" ..."""
    return {name if index == 0 else f"{name}.{index}": value for index, value in enumerate(values)}
