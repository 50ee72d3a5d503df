"""Captioning of X-VLM and X2-VLM: one stack of text and fusion layers that reads from left to right.

Shapes: B images, K beams, L tokens, P tokens of the prompt, T tokens written, V vocabulary.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from common.labels import IGNORED
from models.captioning import CaptioningModel, visible
from models.generation import BeamSettings, Reader, beam_search
from models.objectives.captions import caption_loss, masked_caption_loss, token_scores
from models.tasks.captioning import Describer, with_places
from parity.case import Case
from parity.families.shared import as_tokens, outputs_of, recorded_config, vision_blocks, watching, with_weights
from parity.families.xvlm import case_adapter
from parity.family import Built, Computed

CLASSES = {
    ("X-VLM", "models.model_captioning.XVLM"),
    ("X-VLM", "models.model_captioning_pretrain.XVLM"),
    ("X2-VLM", "models.model_generation.XVLMForMLMCaptioning"),
}
SMOOTHING = 0.1
TRIGRAMS = 3
LENGTH_OFFSET = 5
"""Of X2-VLM's length penalty, ((5 + length) / 6) ** penalty."""
NAMES = ("[CLS]", "a", "picture", "of")
"""The recorded prompt, tokenised."""


class Captions:
    """All classes that describe images."""

    def covers(self, case: Case) -> bool:
        """See `Family`."""
        return (case.repo, case.official_class) in CLASSES and not case.base.get("use_roberta")

    def build(self, case: Case, dtype: torch.dtype) -> Built:
        """See `Family`."""
        adapter = case_adapter(case)
        config = recorded_config(replace(case, base={"temp": 0.07, **case.base}), adapter)
        weights = {name: tensor for name, tensor in case.weights.items() if not name.startswith("crit_mask_lm_smoothed.")}
        return with_weights(CaptioningModel(config), replace(case, weights=weights), adapter.table(config), dtype)

    def run(self, built: Built, case: Case, scenario: str, dtype: torch.dtype) -> Computed | None:
        """See `Family`."""
        model, inputs = built.model, case.inputs[scenario]
        assert isinstance(model, CaptioningModel)
        blocks = vision_blocks(model.vision.get_submodule("backbone"))
        with watching(model, ("encode_images",)) as seen, outputs_of(blocks) as inner:
            images = model.encode_images(inputs["image"].to(dtype))
            computed = _compute(model, images, case, inputs)
        tokens: Tensor = seen["encode_images"][0]
        encoded = {name: as_tokens(states[0]) for name, states in inner.items()}
        encoded |= {"vision_embeds": tokens, "vision_atts": torch.ones(tokens.shape[:2], dtype=torch.int64)}
        return replace(computed, outputs=encoded | computed.outputs)


def _compute(model: CaptioningModel, images: Tensor, case: Case, inputs: dict[str, Any]) -> Computed:
    if "masked_pos" in inputs:
        return _masked(model, images, inputs)
    if "num_beams" in inputs:
        return _written(model, images, case, inputs)
    return _causal(model, images, case, inputs)


def _masked(model: CaptioningModel, images: Tensor, inputs: dict[str, Any]) -> Computed:
    """X2-VLM's training: tokens are predicted at a [MASK]."""
    states = model.read(images, inputs["input_ids_masked"], inputs["attention_mask"].bool(), inputs["position_ids"])
    logits = model.logits_at(states, inputs["masked_pos"])
    labels = inputs["masked_ids"].masked_fill(inputs["masked_weight"] == 0, IGNORED)
    loss = masked_caption_loss(logits, labels, SMOOTHING, inputs["input_ids_masked"][0, :1], "exact")
    return Computed({"loss_cap": loss, "loss_total": loss, "mlm_logits": logits}, loss)


def _causal(model: CaptioningModel, images: Tensor, case: Case, inputs: dict[str, Any]) -> Computed:
    """X-VLM's training, with a prompt and smoothed labels, or on plain captions."""
    tuned = "ref_input_ids" in inputs
    ids, mask = (inputs["ref_input_ids"], inputs["ref_attention_mask"]) if tuned else (inputs["text_ids"], inputs["text_atts"])
    batch = with_places({"text_ids": ids, "text_mask": mask})
    states = model.read(images, ids, visible(batch["text_inserted"]), batch["text_places"])
    logits = model.logits(states)
    unseen = len(NAMES) - 1 if tuned else 0
    labels = batch["predict_labels"].clone()
    labels[:, :unseen] = IGNORED
    loss = caption_loss(logits[:, :-1], labels, SMOOTHING if tuned else 0.0, "exact")
    return Computed({"loss_cap": loss, "loss_total": loss, "dec_logits": logits}, loss, {"dec_logits": mask.bool()[:, :, None]})


class _Recording:
    """Keeps the logits of every step; as published the steps of X-VLM begin with a copy of each image for each beam."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.logits: list[Tensor] = []

    def step(self, tokens: Tensor) -> Tensor:
        logits = self.reader.step(tokens)
        self.logits.append(logits)
        return logits

    def reorder(self, rows: Tensor) -> None:
        self.reader.reorder(rows)


def _written(model: CaptioningModel, images: Tensor, case: Case, inputs: dict[str, Any]) -> Computed:
    """Captions by beam search or by the likeliest token, and the logits of every step."""
    vocabulary = {word: number for number, word in enumerate(case.recorded["config"]["vocab"])}
    masked = case.repo == "X2-VLM"
    describer = Describer(tuple(vocabulary[name] for name in NAMES), vocabulary["[SEP]"], vocabulary["[MASK]"] if masked else None)
    prompt, most = describer.prompts(images), int(inputs["max_length"])
    recording = _Recording(model.reader(images, describer.mask))
    settings = _masked_settings(inputs) if masked else _causal_settings(inputs)
    written = beam_search(recording, prompt, describer.end, settings)
    rows = [written.steps.repeat_interleave(len(logits) // len(images)) for logits in recording.logits]
    first, later = recording.logits[0][:, None], [logits[:, None] for logits in recording.logits[1:]]
    name = "mlm_logits" if masked else "dec_logits"
    masks = {f"{name}.{step}": (searched > step)[:, None, None] for step, searched in enumerate(rows) if step}
    outputs = {f"{name}.{step}": logits for step, logits in enumerate(later, start=1)}
    if masked:  # officially the whole output is as long as the batch is large, padded with [PAD]
        ids = _closed(written.tokens, describer.end, len(images) + most, forced=False)
        return Computed({name: first, "beam_ids": ids} | outputs, masks=masks)
    if inputs.get("greedy"):
        own = (written.tokens == describer.end).int()
        kept = own.cumsum(dim=1) - own == 0
        scores = token_scores(torch.stack(recording.logits, dim=1), written.tokens)
        outputs["gen_logprobs"] = (scores * kept).sum(dim=1) / kept.sum(dim=1)
    whole = model.logits(model.read(images, prompt, visible(torch.zeros_like(prompt, dtype=torch.bool)), _places(prompt)))
    ids = torch.cat([prompt, _closed(written.tokens, describer.end, most - len(NAMES), forced=bool(inputs.get("greedy")))], dim=1)
    return Computed({name: whole.repeat_interleave(settings.beams, dim=0), "gen_ids": ids} | outputs, masks=masks)


def _masked_settings(inputs: dict[str, Any]) -> BeamSettings:
    """X2-VLM's search. It never stops early, so that all steps are there to compare: a penalty too small to change any score sees to it."""
    return BeamSettings(
        beams=int(inputs["num_beams"]),
        max_length=int(inputs["max_length"]),
        length_penalty=float(inputs["length_penalty"]) or 1e-300,
        length_offset=LENGTH_OFFSET,
        min_length=int(inputs["min_length"]),
        no_repeat=TRIGRAMS,
    )


def _causal_settings(inputs: dict[str, Any]) -> BeamSettings:
    """X-VLM's search, lengths counted without the prompt; or none at all."""
    most = int(inputs["max_length"]) - len(NAMES)
    if inputs.get("greedy"):
        return BeamSettings(max_length=most)
    return BeamSettings(
        beams=int(inputs["num_beams"]),
        max_length=most,
        length_penalty=1.0,
        length_offset=len(NAMES),
        min_length=max(int(inputs["min_length"]) - len(NAMES), 0),
        repetition_penalty=float(inputs["repetition_penalty"]),
        refill=True,
    )


def _closed(tokens: Tensor, end: int, length: int, forced: bool) -> Tensor:
    """Texts [B, T] with one `end`, where it was written or, if `forced`, at the last place, and zeros behind it: [B, length]."""
    own = (tokens == end).int()
    closed = F.pad(tokens.masked_fill(own.cumsum(dim=1) > 1, 0), (0, max(0, length - tokens.shape[1])))[:, :length]
    if forced and tokens.shape[1] == length:
        closed[:, -1] = closed[:, -1].where(own.sum(dim=1) > 0, end)
    return closed


def _places(ids: Tensor) -> Tensor:
    return torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
