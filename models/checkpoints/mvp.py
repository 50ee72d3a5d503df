"""Checkpoints of MVP (MVPTR, arXiv 2201.12596): `pytorch_model.bin` of its pre-training, and of the models fine-tuned from it."""

from torch import Tensor

from models.checkpoints.adapter import HeadCounts, Shapes
from models.checkpoints.keys import KeyTable
from models.mvp.config import MvpConfig

CHANNELS_PER_HEAD = 64
STACKS = {"txt_encoder": "text_encoder", "vis_encoder": "vision_encoder", "mul_encoder": "joint_encoder"}
WORD_HEADS = {"cls.predictions": "mlm_head", "half_mlm": "concept_head"}
TOKENS = "bert.embeddings"


class MvpAdapter:
    """The layout of `oscar.modeling.modeling_vlbert`: one embedding table, three encoders, projections that multiply from the right."""

    name = "mvp"

    def recognises(self, shapes: Shapes) -> bool:
        """Whether a file has MVP's three encoders."""
        return all(_depth(shapes, stack) for stack in STACKS) and f"{TOKENS}.word_embeddings.weight" in shapes

    def config(self, shapes: Shapes, heads: HeadCounts) -> MvpConfig:
        """The model that a file with these tensors holds; its text and its fusion encoder have equally many heads.

        How many rows of the table are words is told by the head that recovers concepts. A file without it, which was fine-tuned,
        has as many as BERT's vocabulary, or the whole table where that is smaller.
        """
        vocab_size, width = shapes[f"{TOKENS}.word_embeddings.weight"]
        if "half_mlm.bias" in shapes:
            words = shapes["half_mlm.bias"][0]
        else:  # alone, cls.predictions may rank the answers of question answering
            words = min(MvpConfig().words, vocab_size)
        return MvpConfig(
            width=width,
            heads=heads.text or max(1, width // CHANNELS_PER_HEAD),
            intermediate=shapes["bert.txt_encoder.layer.0.intermediate.dense.weight"][0],
            text_layers=_depth(shapes, "txt_encoder"),
            vision_layers=_depth(shapes, "vis_encoder"),
            joint_layers=_depth(shapes, "mul_encoder"),
            vocab_size=vocab_size,
            words=words,
            max_positions=shapes[f"{TOKENS}.position_embeddings.weight"][0],
            type_vocab_size=shapes[f"{TOKENS}.token_type_embeddings.weight"][0],
            region_width=shapes["bert.img_embedding.weight"][1],
            region_norm=any(name.startswith("bert.LayerNorm.") for name in shapes),
            qa_answers=shapes["qa_head.bias"][0] if "qa_head.bias" in shapes else None,
            vqa_answers=_vqa_answers(shapes, words),
            tied_mlm=False,
        )

    def table(self, config: MvpConfig) -> KeyTable:
        """Names of the tensors of such a model. A tied model has no output matrices: what a file holds of them is left out."""
        names = WORD_HEADS | ({"cls.predictions": "vqa_head"} if config.vqa_answers else {})
        word_heads = (
            pair
            for official, ours in names.items()
            for pair in (
                (f"{official}.transform.dense.", f"{ours}.dense."),
                (f"{official}.transform.LayerNorm.", f"{ours}.norm."),
                (f"{official}.bias", f"{ours}.bias"),
                (f"{official}.decoder.weight", f"{ours}.decoder"),
            )
        )
        return KeyTable(
            (
                (f"{TOKENS}.word_embeddings.", "embeddings.words."),
                (f"{TOKENS}.position_embeddings.", "embeddings.positions."),
                (f"{TOKENS}.token_type_embeddings.", "embeddings.types."),
                (f"{TOKENS}.LayerNorm.", "embeddings.norm."),
                ("bert.img_embedding.", "regions.linear."),
                ("bert.LayerNorm.", "regions.norm."),
                *((f"bert.{official}.layer.", f"{ours}.layers.") for official, ours in STACKS.items()),
                ("bert.pooler.dense.", "pooler."),
                ("bert.txt_proj", "text_proj.weight"),
                ("bert.vis_proj", "vision_proj.weight"),
                ("logit_scale", "logit_scale"),
                ("cls.seq_relationship.", "itm_head."),
                ("qa_head.", "qa_head."),
                ("classifier.", "cls_head."),
                *word_heads,
            ),
            transposed=frozenset({"text_proj.weight", "vision_proj.weight"}),
            derived=("position_ids", *(f"{head}.decoder.weight" for head in WORD_HEADS if config.tied_mlm)),
            spellings={".gamma": ".weight", ".beta": ".bias"},
        )

    def buffers(self, config: MvpConfig) -> dict[str, Tensor]:
        """Official files hold nothing beside weights."""
        return {}


def _vqa_answers(shapes: Shapes, words: int) -> int | None:
    """Where a head for words stands alone and is not as wide as the vocabulary, it chooses among answers."""
    wide = shapes["cls.predictions.bias"][0] if "cls.predictions.bias" in shapes else words
    return wide if wide != words and "half_mlm.bias" not in shapes else None


def _depth(shapes: Shapes, stack: str) -> int:
    """Number of layers of one of the encoders."""
    start = f"bert.{stack}.layer."
    return 1 + max((int(name.removeprefix(start).split(".", 1)[0]) for name in shapes if name.startswith(start)), default=-1)
