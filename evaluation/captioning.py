"""How good captions are, and the file that COCO's and NoCaps' servers take.

Two sets of numbers: our own BLEU and CIDEr-D over words as `words_of` cuts them, which need nothing and whose names end in _words; and
those of pycocoevalcap over the words of the Penn treebank's tokenizer, which is what papers report and needs Java.
"""

import importlib
import io
import json
import logging
import math
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import replace_file
from evaluation.cider import LONGEST_RUN, Words, cider_d, runs

logger = logging.getLogger(__name__)

_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*|'[^\W_]+")
SCORERS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "bleu": ("bleu.bleu", "Bleu", ("bleu1", "bleu2", "bleu3", "bleu4")),
    "meteor": ("meteor.meteor", "Meteor", ("meteor",)),
    "rouge": ("rouge.rouge", "Rouge", ("rouge_l",)),
    "cider": ("cider.cider", "Cider", ("cider",)),
    "spice": ("spice.spice", "Spice", ("spice",)),
}
"""Module and class within pycocoevalcap, and the numbers it gives."""
INSTALL = 'pip install "multigrain[caption-metrics]"'


def words_of(text: str) -> list[str]:
    """Words in lower case: runs of letters and digits, hyphens within them kept, 's and the like by themselves; no punctuation."""
    return _WORD.findall(text.lower())


def caption_metrics(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Our own numbers.

    Args:
        captions: one for each image.
        references: for each image what people wrote.

    Returns:
        bleu1_words to bleu4_words and cider_words, in percent: 100 times what the scorers give.

    Raises:
        ValueError: no captions, or lists of different lengths.
    """
    if not captions or len(captions) != len(references):
        raise ValueError(f"{len(captions)} captions of {len(references)} images")
    own = [words_of(caption) for caption in captions]
    others = [[words_of(text) for text in texts] for texts in references]
    scores = {f"bleu{n}_words": 100 * value for n, value in enumerate(bleu(own, others), start=1)}
    return scores | {"cider_words": 100 * cider_d(own, others)}


def bleu(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    """BLEU-1 to BLEU-4 of a corpus (Papineni et al. 2002), each 0 to 1, by the reference length closest to each caption's."""
    right, written = [0] * LONGEST_RUN, [0] * LONGEST_RUN
    length = wanted = 0
    for caption, texts in zip(captions, references, strict=True):
        most: Counter[tuple[str, ...]] = Counter()
        for text in texts:
            most |= runs(text)
        for run, count in (runs(caption)).items():
            right[len(run) - 1] += min(count, most[run])
            written[len(run) - 1] += count
        length += len(caption)
        wanted += min((abs(len(text) - len(caption)), len(text)) for text in texts)[1]
    brevity = 1.0 if length >= wanted else math.exp(1 - wanted / length) if length else 0.0
    scores, product = [], 1.0
    for n in range(LONGEST_RUN):
        product *= right[n] / written[n] if written[n] else 0.0
        scores.append(brevity * product ** (1 / (n + 1)))
    return scores


def official_metrics(captions: Sequence[str], references: Sequence[Sequence[str]], scorers: Sequence[str]) -> dict[str, float]:
    """Numbers of pycocoevalcap, in percent: bleu1 to bleu4, meteor, rouge_l, cider, spice, as far as they can be had.

    What cannot be had is left out, and a warning says why.
    """
    if not scorers:
        return {}
    try:
        tokenizer = importlib.import_module("pycocoevalcap.tokenizer.ptbtokenizer").PTBTokenizer
    except ImportError:
        logger.warning("captions: pycocoevalcap is not installed, so there are only the numbers in _words; %s, and Java", INSTALL)
        return {}
    if shutil.which("java") is None:
        logger.warning("captions: there is no Java, which the tokenizer of the published numbers needs; there are only those in _words")
        return {}
    wanted = {number: [{"caption": text} for text in texts] for number, texts in enumerate(references)}
    given = {number: [{"caption": caption}] for number, caption in enumerate(captions)}
    try:
        prepared = tokenizer().tokenize(wanted), tokenizer().tokenize(given)
    except (OSError, ValueError) as error:
        logger.warning("captions: the tokenizer of the published numbers failed (%s); there are only those in _words", error)
        return {}
    found: dict[str, float] = {}
    for name in scorers:
        found |= _scored(name, lambda scorer: scorer.compute_score(*prepared)[0])
    return found


def _scored(name: str, compute: Callable[[Any], Any]) -> dict[str, float]:
    """The numbers of one scorer; none where it fails, as spice does without its download."""
    module, kind, names = SCORERS[name]
    try:
        with redirect_stdout(io.StringIO()):  # the scorers print
            values = compute(getattr(importlib.import_module(f"pycocoevalcap.{module}"), kind)())
    except Exception as error:  # whatever a Java process or a download brings
        logger.warning("captions: no %s (%s: %s)", name, type(error).__name__, (str(error).splitlines() or [""])[0])
        return {}
    return {key: 100 * float(value) for key, value in zip(names, values if isinstance(values, list) else [values], strict=True)}


def write_captions(path: Path, captions: Sequence[tuple[int | str, str]]) -> None:
    """Write the file that the servers take, [{image_id, caption}].

    Raises:
        UserError: an image is described twice, which a server would refuse.
    """
    ids = [image for image, _ in captions]
    if len(set(ids)) != len(ids):
        raise UserError(f"{path}: image {next(one for one in ids if ids.count(one) > 1)} is described more than once.")
    replace_file(path, json.dumps([{"image_id": image, "caption": caption} for image, caption in captions]))
