"""AdamW and its parameter groups (X2-VLM section 4.1)."""

from collections.abc import Iterable, Mapping
from typing import TypedDict

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from common.errors import UserError
from engine.adamw import OfficialAdamW
from engine.config.schema import OptimizerSettings

NO_DECAY = ("bias", "LayerNorm.weight", "norm.weight", "norm1.weight", "norm2.weight", "logit_scale")
"""Parameters with one of these in their name are not decayed: biases (relative position tables and query/value biases among them), the
norms of the encoders, and MVP's logarithm of the inverse temperature. As in the published code, norms inside the MLP heads, LayerScale,
class token, temperature and embeddings are decayed."""


class Group(TypedDict):
    """One optimizer group."""

    params: list[nn.Parameter]
    names: list[str]
    lr: float
    base_lr: float
    weight_decay: float


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], settings: OptimizerSettings, new: frozenset[str]) -> list[Group]:
    """Sort parameters by learning rate and decay.

    Args:
        named: parameters under the names of the model (vision, text, fusion, heads).
        settings: rates; `vision_lr`, `text_lr` and `cross_lr` go before `lr_mult`, which goes before `lr`. As in the published code the
            embeddings of frames are no part of the vision encoder, and a masked-LM head is part of the text encoder where the two
            share the word embeddings.
        new: names of the parameters that no pretrained weights were loaded into; `lr_mult` is for them.

    Returns:
        Groups in order of first appearance; each remembers its base rate.
    """
    named = list(named)
    rates = _module_rates(settings, tied="mlm_head.decoder" not in dict(named))
    groups: dict[tuple[float, float], Group] = {}
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        module, part, *_ = [*name.split("."), ""]
        rate = rates.get(module) or rates.get(f"{module}.{part}") or settings.lr * (settings.lr_mult if name in new else 1.0)
        decay = 0.0 if any(part in name for part in NO_DECAY) else settings.weight_decay
        group = groups.setdefault((rate, decay), Group(params=[], names=[], lr=rate, base_lr=rate, weight_decay=decay))
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def _module_rates(settings: OptimizerSettings, tied: bool) -> dict[str, float | None]:
    """Rate of each module that has one of its own."""
    cross_lr = settings.cross_lr if settings.cross_lr is not None else settings.text_lr
    rates = {"vision": settings.vision_lr, "text": settings.text_lr, "fusion": cross_lr, "mlm_head": settings.text_lr if tied else None}
    one_side = dict.fromkeys(("embeddings", "regions", "text_encoder", "vision_encoder"), settings.text_lr)
    return rates | {f"mvp.{part}": rate for part, rate in {**one_side, "joint_encoder": cross_lr}.items()}


def build_optimizer(groups: list[Group], settings: OptimizerSettings) -> Optimizer:
    """AdamW over these groups in the configured implementation."""
    parameters = [dict(group) for group in groups]
    beta1, beta2 = settings.betas
    if settings.implementation == "apex":
        try:
            from apex.optimizers import FusedAdam  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            message = "optimizer.implementation is apex, but NVIDIA apex is not installed. Set optimizer.implementation: fused."
            raise UserError(message) from error
        return FusedAdam(parameters, betas=(beta1, beta2), eps=settings.eps, adam_w_mode=True)
    if settings.implementation == "official":
        return OfficialAdamW(parameters, betas=(beta1, beta2), eps=settings.eps)
    return AdamW(
        parameters,
        betas=(beta1, beta2),
        eps=settings.eps,
        fused=settings.implementation == "fused" or None,
        foreach=settings.implementation == "foreach" or None,
    )


def set_learning_rate(optimizer: Optimizer, factor: float) -> None:
    """Give every group its base rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def optimizer_tensors(optimizer: Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state under "parameter name|state name", for saving."""
    return {
        f"{name}|{key}": value if isinstance(value, torch.Tensor) else torch.tensor(float(value))
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(optimizer: Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put back what `optimizer_tensors` gave.

    Raises:
        UserError: when the parameters are not the saved ones.
    """
    by_name: dict[str, dict[str, str]] = {}  # parameter -> state -> key: tensors are read one at a time
    for key in tensors:
        name, state = key.split("|")
        by_name.setdefault(name, {})[state] = key
    names = {name for group in optimizer.param_groups for name in group["names"]}
    if by_name and set(by_name) != names:
        odd = sorted(set(by_name) ^ names)
        raise UserError(f"The saved optimizer state does not fit this model: {len(odd)} parameters differ, first {odd[0]}.")
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            state = {part: tensors[key] for part, key in by_name.get(name, {}).items()}
            # Adam's step counter stays on the CPU unless the implementation is fused
            moves = {key: bool(group.get("fused")) or key != "step" for key in state}
            optimizer.state[parameter] = {key: value.to(parameter.device) if moves[key] else value for key, value in state.items()}
