"""What MVP's encoders are made of: the region embedding, stacks of BERT layers.

Shapes: R rows, L tokens, V regions, F numbers of a region, H width.
"""

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertLayer

from models.fusion import Fusion, FusionPass
from models.mvp.config import MvpConfig
from models.text.bert import bert_config


class RegionEmbedding(nn.Module):
    """Regions have neither positions nor a type: where they are is told by the numbers at the end of their features."""

    def __init__(self, config: MvpConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.region_width, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.region_norm_eps) if config.region_norm else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, regions: Tensor) -> Tensor:
        """Features [R, V, F] to states [R, V, H]."""
        return self.dropout(self.norm(self.linear(regions)))


class BertStack(nn.Module):
    """Post-norm BERT layers, without embeddings."""

    def __init__(self, config: MvpConfig, layers: int) -> None:
        super().__init__()
        sizes: BertConfig = bert_config(config.layer)
        self.layers = nn.ModuleList([BertLayer(sizes) for _ in range(layers)])

    def forward(self, states: Tensor, mask: Tensor) -> list[Tensor]:
        """Run the layers.

        Args:
            states: [R, L, H].
            mask: [R, L] True where a position may be attended to.

        Returns:
            The states [R, L, H] after each layer.
        """
        keys = mask.bool()[:, None, None, :]
        outputs: list[Tensor] = []
        for layer in self.layers:
            states = layer(states, keys)
            outputs.append(states)
        return outputs


class SingleStream(BertStack):
    """Texts and regions as one sequence, in which both are updated."""

    def fuse(self, text: Tensor, text_mask: Tensor, regions: Tensor, region_mask: Tensor) -> list[Tensor]:
        """See `Mvp.fuse`."""
        return self(torch.cat([text, regions], dim=1), torch.cat([text_mask, region_mask], dim=1))


class CrossStream(nn.Module):
    """Texts that attend to regions, which stay as they are (X-VLM, arXiv 2111.08276, section 3.1)."""

    def __init__(self, config: MvpConfig) -> None:
        super().__init__()
        self.fusion = Fusion(config.layer, config.cross, config.width)

    @property
    def layers(self) -> nn.ModuleList:
        """Its transformer blocks."""
        return self.fusion.layers

    def fuse(self, text: Tensor, text_mask: Tensor, regions: Tensor, region_mask: Tensor) -> list[Tensor]:
        """As `Mvp.fuse`, but with the last layer alone."""
        context = self.fusion.context(regions, None, region_mask)
        fused = self.fusion([FusionPass(text, text_mask, view=None)], context)[0]
        return [torch.cat([fused, regions], dim=1)]


def initialize(module: nn.Module) -> None:
    """BERT's initial weights: normal with standard deviation 0.02, zero biases, a zero row for padding."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        with torch.no_grad():
            module.weight[module.padding_idx].zero_()
