"""Learning answers to questions (X-VLM section 4.3): as texts that a decoder writes, or as classes.

Shapes: B questions, A answers of all of them, L tokens of an answer, V vocabulary, C classes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from common.distributed import GradientMode, mean_of_rows
from common.labels import IGNORED


def sequence_losses(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of each text, summed over its tokens.

    Args:
        logits: [A, L, V]; position i predicts token i + 1.
        ids: [A, L] token ids, the start token first.
        mask: [A, L] True for tokens.

    Returns:
        [A]
    """
    logits = logits[:, :-1].to(torch.promote_types(logits.dtype, torch.float32))
    labels = ids[:, 1:].masked_fill(~mask[:, 1:], IGNORED)
    return F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none").sum(dim=1)


def answer_loss(losses: Tensor, weights: Tensor, questions: int) -> Tensor:
    """Mean over questions of the weighted sum of the losses of their answers.

    Args:
        losses: [A]
        weights: [A] of each answer, such as the share of people who gave it.
        questions: B. Every rank and micro-batch has as many, so that no count travels.
    """
    return (losses * weights.to(losses.dtype)).sum() / questions


def class_loss(logits: Tensor, labels: Tensor, owner: Tensor, weights: Tensor, mode: GradientMode) -> Tensor:
    """Cross-entropy of classes, weighted by answer, a mean over the questions with at least one answer that is a class.

    Args:
        logits: [B, C]
        labels: [A] the class of each answer; IGNORED where it is none.
        owner: [A] its question.
        weights: [A]
        mode: see `GradientMode`.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = F.cross_entropy(logits[owner], labels, ignore_index=IGNORED, reduction="none")
    return mean_of_rows((losses * weights.to(losses.dtype)).sum(), answered(labels, owner, len(logits)), mode)


def answered(labels: Tensor, owner: Tensor, questions: int) -> Tensor:
    """How many questions have an answer that is a class, as a scalar."""
    known = torch.zeros(questions, dtype=torch.int64, device=labels.device).index_add(0, owner, (labels != IGNORED).long())
    return (known > 0).sum()


def soft_answer_loss(logits: Tensor, scores: Tensor) -> Tensor:
    """Binary cross-entropy of every class with its score, summed over classes (MVP, VinVL): logits and scores [B, C], scores in [0, 1]."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.binary_cross_entropy_with_logits(logits, scores.to(logits.dtype), reduction="sum") / len(logits)


def soft_scores(labels: Tensor, owner: Tensor, weights: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Scores [B, C] of classes by how many of ten people gave them: 0.3 for each, at most 1 (VinVL's form of the rule of VQA v2).

    Args:
        labels: [A] the class of each answer; IGNORED where it is none.
        owner: [A] its question.
        weights: [A] the share of people who gave it.
        shape: B, C.
    """
    known = labels != IGNORED
    given = torch.where(known, 3.0 * weights, 0.0)
    scores = torch.zeros(shape, dtype=weights.dtype, device=weights.device)
    return scores.index_put((owner, torch.where(known, labels, 0)), given, accumulate=True).clamp(max=1.0)
