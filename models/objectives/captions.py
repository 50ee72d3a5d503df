"""Learning to write captions: token by token with smoothed labels, or from the reward of whole captions.

Shapes: B images, K samples of each, T tokens, R texts, J predicted places, V vocabulary.
"""

import torch
from torch import Tensor

from common.distributed import GradientMode, mean_of_rows
from common.labels import IGNORED

MASKED_EPSILON = 1e-5
"""What the published code of X2-VLM adds to the number of tokens that it divides by."""


def caption_loss(logits: Tensor, labels: Tensor, smoothing: float, mode: GradientMode) -> Tensor:
    """Cross-entropy with smoothed labels as X-VLM has them: `smoothing / V` on every token, but 1 - smoothing on the right one.

    Args:
        logits: [R, J, V].
        labels: [R, J] what comes next; IGNORED is left out.
        smoothing: 0 for plain language modelling.
        mode: see `GradientMode`.

    Returns:
        Scalar mean over tokens.
    """
    scores = _log_softmax(logits)
    wanted = _smoothed(labels, scores, smoothing / scores.shape[-1], 1.0 - smoothing)
    losses = torch.where(labels != IGNORED, -(wanted * scores).sum(dim=-1), 0.0)
    return mean_of_rows(losses.sum(), (labels != IGNORED).sum(), mode)


def masked_caption_loss(logits: Tensor, labels: Tensor, smoothing: float, excluded: Tensor, mode: GradientMode) -> Tensor:
    """Kullback-Leibler divergence from smoothed labels as X2-VLM has them: `smoothing / (V - 2)` on every token but the excluded one,
    1 - smoothing on the right one.

    Args:
        logits: [R, J, V].
        labels: [R, J] what stands there; IGNORED is left out.
        smoothing: above 0.
        excluded: the token that is never predicted, [CLS], as [1].
        mode: see `GradientMode`.

    Returns:
        Scalar mean over tokens.
    """
    scores = _log_softmax(logits)
    known = labels != IGNORED
    wanted = _smoothed(labels, scores, smoothing / (scores.shape[-1] - 2), 1.0 - smoothing).index_fill(-1, excluded, 0.0)
    losses = torch.where(known, (torch.xlogy(wanted, wanted) - wanted * scores).sum(dim=-1), 0.0)
    return mean_of_rows(losses.sum(), known.sum() + scores.new_tensor(MASKED_EPSILON), mode)


def self_critical_loss(scores: Tensor, mask: Tensor, advantage: Tensor) -> Tensor:
    """REINFORCE over whole captions (Rennie et al., arXiv 1612.00563): -(mean log-probability) * advantage, a mean over samples.

    Args:
        scores: [B, K, T] log-probabilities of the tokens that were drawn.
        mask: [B, K, T] True for tokens of the caption, its end among them.
        advantage: [B, K] reward above the baseline. Every rank and micro-batch has as many samples, so that no count travels.
    """
    mean = (scores * mask).sum(dim=2) / mask.sum(dim=2)
    return -(mean * advantage.to(mean.dtype)).mean()


def token_scores(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probabilities [.., T] of tokens [.., T] by logits [.., T, V]."""
    return _log_softmax(logits).gather(-1, tokens[..., None])[..., 0]


def _log_softmax(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)


def _smoothed(labels: Tensor, like: Tensor, share: float, right: float) -> Tensor:
    """Labels [R, J] as weights over the vocabulary [R, J, V]: `right` for the label, `share` for every other token."""
    own = labels.masked_fill(labels == IGNORED, 0)[..., None]
    return torch.full_like(like, share).scatter_(-1, own, right)
