"""Question answering of X-VLM, X2-VLM, CCLM and X-FM: a decoder that is trained on answers and ranks a list of them.

Shapes: B questions, L tokens of a question, A answers, J tokens of an answer, k candidates of a question, H text width.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from models.answering import AnsweringModel
from models.checkpoints.cclm import CclmV1, SplitX2vlm
from models.checkpoints.keys import KeyTable
from models.checkpoints.xfm import Xfm
from models.tasks.vqa import AnswerList, decoder_loss, likeliest_first, rank_answers
from parity.case import Case
from parity.families.shared import Seen, outputs_of, recorded_config, vision_blocks, watching, with_weights
from parity.families.xvlm import case_adapter
from parity.family import Built, Computed

CLASSES = {
    ("X-VLM", "models.model_vqa.XVLM"): None,
    ("X2-VLM", "models.model_generation.XVLMForVQA"): None,
    ("X2-VLM", "models.model_generation.XVLMPlusForVQA"): SplitX2vlm(),
    ("CCLM", "models.model_vqa.VQAModel"): CclmV1(),
    ("XFM", "models.model_generation.XFMForVQA"): Xfm(),
}
"""Official classes, and their format where shapes alone may not tell it."""
UNUSED = ("mlm_head.", "vision.backbone.mask_token")
"""What X-FM's class keeps of pre-training and does not use."""


class DecoderAnswering:
    """All classes with a decoder."""

    def covers(self, case: Case) -> bool:
        """See `Family`."""
        return (case.repo, case.official_class) in CLASSES and not case.base.get("use_roberta")

    def build(self, case: Case, dtype: torch.dtype) -> Built:
        """See `Family`."""
        adapter = CLASSES[case.repo, case.official_class] or case_adapter(case)
        config = recorded_config(case, adapter)
        table = adapter.table(config)
        return with_weights(AnsweringModel(config), _without_unused(case, table), table, dtype)

    def run(self, built: Built, case: Case, scenario: str, dtype: torch.dtype) -> Computed | None:
        """See `Family`."""
        model = built.model
        assert isinstance(model, AnsweringModel)
        inputs = case.inputs[scenario]
        blocks = vision_blocks(model.vision.get_submodule("backbone"))
        with watching(model, ("encode_images", "encode_text", "fuse")) as seen, outputs_of(blocks) as inner:
            computed = _train(model, inputs, dtype) if "weights" in inputs else _rank(model, inputs, dtype, case.repo == "XFM")
        return replace(computed, outputs=computed.outputs | _encoded(seen, inner))


def _without_unused(case: Case, table: KeyTable) -> Case:
    kept = {name: tensor for name, tensor in case.weights.items() if not (table.to_ours(name) or "").startswith(UNUSED)}
    return replace(case, weights=kept)


def _train(model: AnsweringModel, inputs: dict[str, Any], dtype: torch.dtype) -> Computed:
    """The loss of questions with k answers each."""
    counts: Tensor = inputs["k"]
    batch = {
        "image": inputs["image"].to(dtype),
        "text_ids": inputs["question_ids"],
        "text_mask": inputs["question_atts"].bool(),
        "answer_ids": inputs["answer_ids"],
        "answer_mask": inputs["answer_atts"].bool(),
        "answer_owner": torch.arange(len(counts)).repeat_interleave(counts),
        "answer_weights": inputs["weights"],
    }
    with watching(model.answer_decoder(), ("logits",)) as seen:
        loss = decoder_loss(model, batch)
    return Computed({"loss_vqa": loss, "loss_total": loss, "dec_logits": seen["logits"][0]}, loss)


def _rank(model: AnsweringModel, inputs: dict[str, Any], dtype: torch.dtype, sees_padding: bool) -> Computed:
    """The ranking of a list; the logits of whole answers are recorded with padding, which ranking leaves out, and are computed for that."""
    mask = inputs["question_atts"].bool()
    answers, top_k, decoder = AnswerList(inputs["answer_ids"], inputs["answer_atts"].bool()), int(inputs["k"]), model.answer_decoder()
    with torch.no_grad(), watching(decoder, ("logits",)) as seen:
        memory = decoder.memory(
            model.read_questions(inputs["image"].to(dtype), inputs["question_ids"], mask), None if sees_padding else mask
        )
        ranked = rank_answers(decoder, memory, answers, top_k)
        candidates = likeliest_first(decoder, memory, answers, top_k)[0].flatten()
        whole = decoder.logits(decoder(answers.ids[candidates], answers.mask[candidates], memory))
    outputs = {"dec_logits": seen["logits"][0], "dec_logits.1": whole, "topk_ids": ranked.answer, "topk_probs": ranked.probability}
    return Computed(outputs)


def _encoded(seen: Seen, inner: Seen) -> dict[str, Tensor]:
    """States of the encoders, under the recorded names."""
    tokens: Tensor = seen["encode_images"][0]
    outputs = {name: states[0].flatten(1, 2) if states[0].dim() == 4 else states[0] for name, states in inner.items()}
    return outputs | {
        "vision_embeds": tokens,
        "vision_atts": torch.ones(tokens.shape[:2], dtype=torch.int64),
        "text_embeds": seen["encode_text"][0],
        "cross_embeds": seen["fuse"][0][0],
    }
