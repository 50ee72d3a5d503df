"""MVP, also called MVPTR (arXiv 2201.12596, section 3): three stacks of BERT layers and one embedding table.

A text encoder reads words and phrases, a visual encoder tags and regions, and a joint encoder the states of both, except those of the tags,
in a single stream: unlike in X-VLM, regions are updated by what the text says.

Shapes: R pairs, L text positions (words, then phrases), T tag positions, V regions, F numbers of a region, M masked positions, H width,
A answers, W words.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.heads import MaskedLMHead
from models.mvp.config import LARGEST_SCALE, MvpConfig
from models.mvp.layers import BertStack, CrossStream, RegionEmbedding, SingleStream, initialize
from models.text.embeddings import TokenEmbedding

MvpHead = Literal["itc", "itm", "mlm", "concepts", "phrases", "qa", "vqa"]
MVP_HEADS: tuple[MvpHead, ...] = ("itc", "itm", "mlm", "concepts", "qa")
"""Those of pre-training as published."""


class Mvp(nn.Module):
    """The encoders and the heads that the objectives at hand need; unused heads are not built, so every parameter gets a gradient."""

    def __init__(self, config: MvpConfig, heads: Iterable[MvpHead]) -> None:
        super().__init__()
        width, wanted = config.width, set(heads)
        self.config = config
        self.embeddings = TokenEmbedding(config.layer)  # one table serves words, phrases and tags
        self.regions = RegionEmbedding(config)
        self.text_encoder = BertStack(config, config.text_layers)
        self.vision_encoder = BertStack(config, config.vision_layers)
        self.joint_encoder = CrossStream(config) if config.joint == "cross" else SingleStream(config, config.joint_layers)
        if "itc" in wanted:
            self.text_proj = nn.Linear(width, width, bias=False)
            self.vision_proj = nn.Linear(width, width, bias=False)
            self.logit_scale = nn.Parameter(torch.tensor(1 / config.temperature).log())
        if wanted & {"itm", "qa"}:
            self.pooler = nn.Linear(width, width)
        if "itm" in wanted:
            self.itm_head = nn.Linear(width, 2)
        if "qa" in wanted:
            if config.qa_answers is None:
                raise ValueError("The head for question answering needs qa_answers, the number of answers.")
            self.qa_head = nn.Linear(width, config.qa_answers)
        if "vqa" in wanted:
            if config.vqa_answers is None:
                raise ValueError("The head for VQA needs vqa_answers, the number of answers.")
            self.vqa_head = MaskedLMHead(width, config.vqa_answers, config.layer_norm_eps, tied=False)
        if "mlm" in wanted:
            self.mlm_head = MaskedLMHead(width, config.words, config.layer_norm_eps, tied=config.tied_mlm)
        if "concepts" in wanted:
            self.concept_head = MaskedLMHead(width, config.words, config.layer_norm_eps, tied=config.tied_mlm)
        if "phrases" in wanted:
            if config.phrases is None:
                raise ValueError("The head for hidden phrases needs phrases, the number of them.")
            self.phrase_head = MaskedLMHead(width, config.phrases, config.layer_norm_eps, tied=False)
        self.apply(initialize)
        if "itc" in wanted:
            for projection in (self.text_proj, self.vision_proj):
                nn.init.normal_(projection.weight, std=width**-0.5)

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return self.regions.linear.weight.dtype

    @property
    def temperature(self) -> Tensor:
        """Scalar that divides the similarities; its gradient goes to `logit_scale`."""
        return (-self.logit_scale).exp()

    def bounds(self) -> dict[str, tuple[float, float]]:
        """Least and greatest value of parameters, by name: the temperature may not fall below 1/100."""
        return {"logit_scale": (float("-inf"), LARGEST_SCALE)} if hasattr(self, "logit_scale") else {}

    def encode_text(self, ids: Tensor, mask: Tensor, types: Tensor | None = None) -> Tensor:
        """Encode words and phrases.

        Args:
            ids: [R, L] `[CLS] words phrases [SEP]`, padded.
            mask: [R, L] False at padding.
            types: [R, L] token types; None for type 0 throughout.

        Returns:
            [R, L, H]; states of padding mean nothing.
        """
        return self.text_encoder(self.embeddings(ids, _types(types, 0, ids)), mask)[-1]

    def encode_image(
        self, tag_ids: Tensor, tag_mask: Tensor, regions: Tensor, region_mask: Tensor, tag_types: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Encode tags and regions.

        Args:
            tag_ids: [R, T] `[CLS] tags [SEP]`, padded.
            tag_mask: [R, T] False at padding.
            regions: [R, V, F].
            region_mask: [R, V] False at padding.
            tag_types: [R, T] token types; None for type 1 throughout.

        Returns:
            States [R, T, H] of the tags, position 0 standing for the image, and [R, V, H] of the regions.
        """
        tags = self.embeddings(tag_ids, _types(tag_types, 1, tag_ids))
        states = torch.cat([tags, self.regions(regions.to(self.dtype))], dim=1)
        states = self.vision_encoder(states, torch.cat([tag_mask, region_mask], dim=1))[-1]
        return states[:, : tags.shape[1]], states[:, tags.shape[1] :]

    def fuse(self, text: Tensor, text_mask: Tensor, regions: Tensor, region_mask: Tensor) -> list[Tensor]:
        """Text states [R, L, H] and region states [R, V, H] meet: states [R, L+V, H] after each layer of the joint encoder."""
        return self.joint_encoder.fuse(text, text_mask, regions, region_mask)

    def text_features(self, states: Tensor) -> Tensor:
        """Contrastive features [R, H] of text states [R, L, H], of length 1."""
        return F.normalize(self.text_proj(states[:, 0]), dim=-1)

    def image_features(self, tags: Tensor) -> Tensor:
        """Contrastive features [R, H] of tag states [R, T, H], of length 1."""
        return F.normalize(self.vision_proj(tags[:, 0]), dim=-1)

    def pool(self, joint: Tensor) -> Tensor:
        """What stands for a pair, [R, H], of joint states [R, L+V, H]."""
        return self.pooler(joint[:, 0]).tanh()

    def match_logits(self, pooled: Tensor) -> Tensor:
        """Matching logits [R, 2]; class 1 is a match as everywhere here, although the head's own output 0 stands for it (as published)."""
        return self.itm_head(pooled).flip(-1)

    def answer_logits(self, pooled: Tensor) -> Tensor:
        """Answer logits [R, A]."""
        return self.qa_head(pooled)

    def vqa_logits(self, joint: Tensor) -> Tensor:
        """Logits [R, A] of a model for VQA, of joint states [R, L+V, H]; the head is made like the one that predicts words."""
        return self.vqa_head(joint[:, 0], self.embeddings.words.weight)

    def masked_lm_logits(self, joint: Tensor, positions: Tensor) -> Tensor:
        """Word logits [R, M, W] at `positions` [R, M] of joint states [R, L+V, H]."""
        return self._word_logits(self.mlm_head, joint, positions)

    def concept_logits(self, tags: Tensor, positions: Tensor) -> Tensor:
        """Word logits [R, M, W] at `positions` [R, M] of tag states [R, T, H]."""
        return self._word_logits(self.concept_head, tags, positions)

    def phrase_logits(self, text: Tensor, positions: Tensor) -> Tensor:
        """Logits [R, M, P] of all P phrases at `positions` [R, M] of text states [R, L, H], of which no joint encoder has told anything."""
        chosen = text.gather(1, positions[:, :, None].expand(-1, -1, text.shape[2]))
        return self.phrase_head(chosen, self.embeddings.words.weight)

    def _word_logits(self, head: MaskedLMHead, states: Tensor, positions: Tensor) -> Tensor:
        chosen = states.gather(1, positions[:, :, None].expand(-1, -1, states.shape[2]))
        return head(chosen, self.embeddings.words.weight[: self.config.words])


def _types(types: Tensor | None, default: int, ids: Tensor) -> Tensor:
    return torch.full((1, 1), default, dtype=torch.int64, device=ids.device) if types is None else types
