"""Encoders, fusion, heads, objectives, families and tasks: `nn.Module`s and pure functions only."""

from common.compat import ensure_torchvision

ensure_torchvision()  # before timm and transformers, which import torchvision
