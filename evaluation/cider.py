"""CIDEr-D (Vedantam et al., arXiv 1411.5726, section 4 and its last equation): how far a caption agrees with what people wrote.

Captions are lists of words. Runs of one to four words are weighted by how rare they are among the images' references; a caption is compared
with each reference by the cosine of these weights, where no run counts more often than in the reference, and by length.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

Words = Sequence[str]
LONGEST_RUN = 4
SIGMA = 6.0
"""Of the Gaussian over the difference of lengths."""
SCALE = 10.0
"""Ten for a perfect caption, by custom."""


@dataclass(frozen=True)
class _Weighted:
    """A caption as weights of its runs, by the length of the run."""

    weights: tuple[dict[tuple[str, ...], float], ...]
    norms: tuple[float, ...]
    length: int


class CiderD:
    """Scores captions by references whose statistics are known.

    Args:
        references: for each image what people wrote; how rare a run of words is, is told by the number of images that have it.
    """

    def __init__(self, references: Sequence[Sequence[Words]]) -> None:
        self.images = math.log(len(references)) if references else 0.0
        self.frequency: Counter[tuple[str, ...]] = Counter()
        for texts in references:
            self.frequency.update({run for text in texts for run in runs(text)})
        self.references = [[self._weigh(text) for text in texts] for texts in references]

    def score(self, caption: Words, image: int) -> float:
        """Of a caption of an image, by number; 0 to 10."""
        own = self._weigh(caption)
        found = [_agreement(own, other) for other in self.references[image]]
        return SCALE * sum(found) / len(found)

    def _weigh(self, text: Words) -> _Weighted:
        weights: tuple[dict[tuple[str, ...], float], ...] = tuple({} for _ in range(LONGEST_RUN))
        for run, count in runs(text).items():
            weights[len(run) - 1][run] = count * (self.images - math.log(max(1, self.frequency[run])))
        norms = tuple(math.sqrt(sum(weight**2 for weight in part.values())) for part in weights)
        return _Weighted(weights, norms, max(len(text) - 1, 0))


def cider_d(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """Mean over images, with the statistics of these references; 0 to 10, where papers write it times 100."""
    scorer = CiderD(references)
    return sum(scorer.score(caption, image) for image, caption in enumerate(captions)) / len(captions)


def runs(text: Words) -> Counter[tuple[str, ...]]:
    """How often each run of up to four words occurs."""
    words = tuple(text)
    return Counter(words[start : start + length] for length in range(1, LONGEST_RUN + 1) for start in range(len(words) - length + 1))


def _agreement(own: _Weighted, other: _Weighted) -> float:
    """Of two captions, 0 to 1."""
    total = 0.0
    for mine, theirs, norm, other_norm in zip(own.weights, other.weights, own.norms, other.norms, strict=True):
        if norm and other_norm:
            total += sum(min(weight, theirs.get(run, 0.0)) * theirs.get(run, 0.0) for run, weight in mine.items()) / (norm * other_norm)
    return total / LONGEST_RUN * math.exp(-((own.length - other.length) ** 2) / (2 * SIGMA**2))
