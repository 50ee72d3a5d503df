"""Names and shapes of the published checkpoints, written down from the definitions of the official modules.

No published file can be opened where this project is developed. These lists are the stand-in: with the sizes of the recorded cases they
give exactly the recorded names and shapes, which shows that they are right; with the published sizes they give what those files hold.
"""

from collections.abc import Iterable

import torch

Shapes = dict[str, tuple[int, ...]]


def linear(name: str, outputs: int, inputs: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (outputs, inputs)} | ({f"{name}.bias": (outputs,)} if bias else {})


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def mlp(name: str, inputs: int, outputs: int) -> Shapes:
    return linear(f"{name}.0", 2 * inputs, inputs) | norm(f"{name}.1", 2 * inputs) | linear(f"{name}.3", outputs, 2 * inputs)


def attention(name: str, width: int, source: int) -> Shapes:
    shapes = (
        linear(f"{name}.self.query", width, width) | linear(f"{name}.self.key", width, source) | linear(f"{name}.self.value", width, source)
    )
    return shapes | linear(f"{name}.output.dense", width, width) | norm(f"{name}.output.LayerNorm", width)


def bert_layers(name: str, layers: int, width: int, inner: int, crossing: Iterable[int] = (), source: int = 0) -> Shapes:
    crossing = set(crossing)
    shapes: Shapes = {}
    for layer in range(layers):
        start = f"{name}.layer.{layer}"
        shapes |= attention(f"{start}.attention", width, width)
        shapes |= attention(f"{start}.crossattention", width, source) if layer in crossing else {}
        shapes |= linear(f"{start}.intermediate.dense", inner, width) | linear(f"{start}.output.dense", width, inner)
        shapes |= norm(f"{start}.output.LayerNorm", width)
    return shapes


def embeddings(name: str, vocabulary: int, positions: int, types: int, width: int, ids: bool = True) -> Shapes:
    tables = {"word": vocabulary, "position": positions, "token_type": types}
    shapes: Shapes = {f"{name}.{table}_embeddings.weight": (rows, width) for table, rows in tables.items()}
    return shapes | norm(f"{name}.LayerNorm", width) | ({f"{name}.position_ids": (1, positions)} if ids else {})


def bert_head(name: str, vocabulary: int, width: int) -> Shapes:
    shapes = linear(f"{name}.transform.dense", width, width) | norm(f"{name}.transform.LayerNorm", width)
    return shapes | linear(f"{name}.decoder", vocabulary, width) | {f"{name}.bias": (vocabulary,)}


def roberta_head(name: str, vocabulary: int, width: int) -> Shapes:
    shapes = linear(f"{name}.dense", width, width) | norm(f"{name}.layer_norm", width)
    return shapes | linear(f"{name}.decoder", vocabulary, width) | {f"{name}.bias": (vocabulary,)}


def beit(width: int, depth: int, heads: int, grid: int, mask_token: bool = False, patch: int = 16) -> Shapes:
    start, rows, inner = "vision_encoder", (2 * grid - 1) ** 2 + 3, 4 * width
    shapes: Shapes = {f"{start}.cls_token": (1, 1, width), f"{start}.patch_embed.proj.weight": (width, 3, patch, patch)}
    shapes |= {f"{start}.patch_embed.proj.bias": (width,)} | norm(f"{start}.fc_norm", width)
    shapes |= {f"{start}.mask_token": (1, 1, width)} if mask_token else {}
    for block in range(depth):
        name = f"{start}.blocks.{block}"
        shapes |= {f"{name}.{part}": (width,) for part in ("gamma_1", "gamma_2", "attn.q_bias", "attn.v_bias")}
        shapes |= norm(f"{name}.norm1", width) | norm(f"{name}.norm2", width)
        shapes |= {f"{name}.attn.relative_position_bias_table": (rows, heads)}
        shapes |= {f"{name}.attn.relative_position_index": (grid * grid + 1, grid * grid + 1)}
        shapes |= linear(f"{name}.attn.qkv", 3 * width, width, bias=False) | linear(f"{name}.attn.proj", width, width)
        shapes |= linear(f"{name}.mlp.fc1", inner, width) | linear(f"{name}.mlp.fc2", width, inner)
    return shapes


def swin(embed: int, depths: tuple[int, ...], heads: tuple[int, ...], window: int, size: int, patch: int = 4) -> Shapes:
    start = "vision_encoder"
    shapes: Shapes = {f"{start}.patch_embed.proj.weight": (embed, 3, patch, patch), f"{start}.patch_embed.proj.bias": (embed,)}
    shapes |= norm(f"{start}.patch_embed.norm", embed) | norm(f"{start}.norm", embed * 2 ** (len(depths) - 1))
    for stage, (depth, count) in enumerate(zip(depths, heads, strict=True)):
        width, side = embed * 2**stage, size // (patch * 2**stage)
        own = min(window, side)
        for block in range(depth):
            name = f"{start}.layers.{stage}.blocks.{block}"
            shapes |= norm(f"{name}.norm1", width) | norm(f"{name}.norm2", width)
            shapes |= {f"{name}.attn.relative_position_bias_table": ((2 * own - 1) ** 2, count)}
            shapes |= {f"{name}.attn.relative_position_index": (own * own, own * own)}
            shapes |= {f"{name}.attn_mask": ((side // own) ** 2, own * own, own * own)} if block % 2 and side > window else {}
            shapes |= linear(f"{name}.attn.qkv", 3 * width, width) | linear(f"{name}.attn.proj", width, width)
            shapes |= linear(f"{name}.mlp.fc1", 4 * width, width) | linear(f"{name}.mlp.fc2", width, 4 * width)
        if stage + 1 < len(depths):
            shapes |= norm(f"{start}.layers.{stage}.downsample.norm", 4 * width)
            shapes |= linear(f"{start}.layers.{stage}.downsample.reduction", 2 * width, 4 * width, bias=False)
    return shapes


def clip(width: int, depth: int, inner: int, size: int, patch: int = 16) -> Shapes:
    start, tokens = "vision_encoder", (size // patch) ** 2 + 1
    shapes: Shapes = {f"{start}.class_embedding": (width,), f"{start}.patch_embed.weight": (width, 3, patch, patch)}
    shapes |= {f"{start}.pos_embed.weight": (tokens, width), f"{start}.position_ids": (1, tokens)}
    shapes |= norm(f"{start}.pre_layrnorm", width) | norm(f"{start}.post_layernorm", width)
    for layer in range(depth):
        name = f"{start}.encoder.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= linear(f"{name}.self_attn.{part}", width, width)
        shapes |= norm(f"{name}.layer_norm1", width) | norm(f"{name}.layer_norm2", width)
        shapes |= linear(f"{name}.mlp.fc1", inner, width) | linear(f"{name}.mlp.fc2", width, inner)
    return shapes


def heads_of(text: int, vision: int, features: int, names: Iterable[str] = ("itc", "itm", "box")) -> Shapes:
    parts: dict[str, Shapes] = {
        "itc": linear("vision_proj", features, vision) | linear("text_proj", features, text) | {"temp": ()},
        "itm": mlp("itm_head", text, 2),
        "box": mlp("bbox_head", text, 4),
    }
    return {name: shape for part in names for name, shape in parts[part].items()}


def joint_stack(
    tables: tuple[int, int, int], width: int, inner: int, layers: int, first: int, vision: int, head: bool = True, bert: bool = True
) -> Shapes:
    """Of vocabulary, positions and token types `tables`; layers from `first` on attend to an image."""
    start = "text_encoder.bert" if bert else "text_encoder"
    shapes = embeddings(f"{start}.embeddings", *tables, width)
    shapes |= bert_layers(f"{start}.encoder", layers, width, inner, range(first, layers), vision)
    return shapes | (bert_head("text_encoder.cls.predictions", tables[0], width) if head else {})


def split_stack(tables: tuple[int, int, int], width: int, inner: int, text: int, cross: int, vision: int) -> Shapes:
    shapes = embeddings("text_encoder.embeddings", *tables, width) | bert_layers("text_encoder.encoder", text, width, inner)
    shapes |= bert_layers("cross_encoder.encoder", cross, width, inner, range(cross), vision)
    return shapes | bert_head("mlm_head.predictions", tables[0], width)


def xfm_stacks(tables: tuple[int, int, int], width: int, inner: int, text: int, fusion: int, vision: int, captions: bool = True) -> Shapes:
    shapes: Shapes = {}
    for name, layers, crossing in (("text_encoder", text, range(0)), ("fusion_encoder", fusion, range(fusion))):
        shapes |= embeddings(f"{name}.roberta.embeddings", *tables, width)
        shapes |= bert_layers(f"{name}.roberta.encoder", layers, width, inner, crossing, vision)
        for head in ("lm_head", "lm_cap_head") if captions else ("lm_head",):
            shapes |= roberta_head(f"{name}.{head}", tables[0], width)
    return shapes


def mvp(rows: int, words: int, positions: int, width: int, inner: int, layers: int, region: int, answers: int | None = None) -> Shapes:
    shapes = embeddings("bert.embeddings", rows, positions, 2, width, ids=False)
    for stack in ("txt_encoder", "vis_encoder", "mul_encoder"):
        shapes |= bert_layers(f"bert.{stack}", layers, width, inner)
    shapes |= linear("bert.pooler.dense", width, width) | linear("bert.img_embedding", width, region) | norm("bert.LayerNorm", width)
    shapes |= {"bert.txt_proj": (width, width), "bert.vis_proj": (width, width), "logit_scale": ()}
    shapes |= linear("cls.seq_relationship", 2, width) | (linear("qa_head", answers, width) if answers else {})
    for head in ("cls.predictions", "half_mlm"):
        shapes |= {name: shape for name, shape in bert_head(head, words, width).items() if not name.endswith("decoder.bias")}
    return shapes


def decoder(tables: tuple[int, int, int], width: int, inner: int, layers: int, source: int, first: int = 0) -> Shapes:
    """The answer decoder of question answering; with a first layer that attends to images, the joint stack of X-VLM's captioning."""
    shapes = embeddings("text_decoder.bert.embeddings", *tables, width)
    shapes |= bert_layers("text_decoder.bert.encoder", layers, width, inner, range(first, layers), source)
    return shapes | bert_head("text_decoder.cls.predictions", tables[0], width)


BERT, XLMR, ROBERTA = (30522, 512, 2), (250002, 514, 1), (50265, 514, 1)
SWIN_B = (128, (2, 2, 18, 2), (4, 8, 16, 32))


def x2vlm(large: bool, size: int, heads: Iterable[str], head: bool, bert: bool, frames: bool = False) -> Shapes:
    width, depth, count, inner = (1024, 24, 16, 4096) if large else (768, 12, 12, 3072)
    shapes = beit(width, depth, count, size // 16) | joint_stack(BERT, width, inner, 18, 12, width, head, bert)
    shapes |= {"absolute_frame_pos_embed": (1, 3, 1, width)} if frames else {}
    return shapes | heads_of(width, width, 256, heads)


def xvlm(size: int, window: int, heads: Iterable[str], head: bool, bert: bool, layers: int = 12) -> Shapes:
    return swin(*SWIN_B, window, size) | joint_stack(BERT, 768, 3072, layers, 6, 1024, head, bert) | heads_of(768, 1024, 256, heads)


def cclm_x2vlm(large: bool) -> Shapes:
    width, depth, count, inner, text = (1024, 24, 16, 4096, 24) if large else (768, 12, 12, 3072, 12)
    return beit(width, depth, count, 14) | split_stack(XLMR, width, inner, text, 6, width) | heads_of(width, width, 256)


ALL = ("itc", "itm", "box")
LAYOUTS: dict[str, Shapes] = {
    "xvlm pre-training": xvlm(224, 7, ALL, head=True, bert=True),
    "xvlm retrieval 384": xvlm(384, 12, ("itc", "itm"), head=False, bert=False),
    "xvlm boxes 384": xvlm(384, 12, ("box",), head=False, bert=False),
    "xvlm question answering 480": xvlm(480, 15, (), head=False, bert=False) | decoder(BERT, 768, 3072, 6, 768),
    "xvlm image pairs 384": xvlm(384, 12, (), head=False, bert=False, layers=18) | mlp("cls_head", 768, 2),
    "xvlm captioning 384": swin(*SWIN_B, 12, 384) | decoder(BERT, 768, 3072, 12, 1024, first=6),
    "x2vlm base 4m": x2vlm(False, 224, ALL, head=True, bert=True),
    "x2vlm base 1b": x2vlm(False, 224, ALL, head=True, bert=True, frames=True),
    "x2vlm large 4m": x2vlm(True, 224, ALL, head=True, bert=True),
    "x2vlm large 1b": x2vlm(True, 224, ALL, head=True, bert=True, frames=True),
    "x2vlm base retrieval 384": x2vlm(False, 384, ("itc", "itm"), head=False, bert=False),
    "x2vlm large retrieval 384": x2vlm(True, 384, ("itc", "itm"), head=False, bert=False),
    "x2vlm large boxes 384": x2vlm(True, 384, ("box",), head=False, bert=False),
    "x2vlm base question answering 768": x2vlm(False, 768, (), head=False, bert=False) | decoder(BERT, 768, 3072, 6, 768),
    "x2vlm large question answering 768": x2vlm(True, 768, (), head=False, bert=False) | decoder(BERT, 1024, 4096, 6, 1024),
    "x2vlm large captioning 384": x2vlm(True, 384, (), head=True, bert=True) | {"crit_mask_lm_smoothed.one_hot": (1, 30522)},
    "cclm": swin(*SWIN_B, 7, 224) | joint_stack(XLMR, 1024, 4096, 12, 6, 1024) | heads_of(1024, 1024, 256),
    "cclm_x2vlm base": cclm_x2vlm(False),
    "cclm_x2vlm large": cclm_x2vlm(True),
    "xfm base": beit(768, 12, 12, 14, mask_token=True) | xfm_stacks(ROBERTA, 768, 3072, 12, 12, 768) | heads_of(768, 768, 256),
    "xfm base without captioning heads": beit(768, 12, 12, 14, mask_token=True)
    | xfm_stacks(ROBERTA, 768, 3072, 12, 12, 768, captions=False)
    | heads_of(768, 768, 256),
    "mvp base": mvp(86051, 30522, 512, 768, 3072, 6, 2054),
}
"""Published layouts by a name of ours."""


def on_meta(shapes: Shapes) -> dict[str, torch.Tensor]:
    """Tensors of these shapes without values."""
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
