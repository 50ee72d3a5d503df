"""How fast candidates are ranked again, beside what the published evaluations do for each of them (`run.py bench --stages rerank`).

The naive way: a fusion row for every candidate, its text padded to the longest allowed, the image's tokens repeated for it, and keys and
values projected from them again. A repetition ranks the candidates of one image and those of one text. Ours scores as many different
pairs in one go, those of one image, as they come up for it from both directions.

Shapes: k candidates, M = 2k pairs, P = 1+N visual tokens, L tokens allowed, D vision width, H text width.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from engine.bench.report import BenchReport, BenchRequest
from engine.bench.synthetic import CAPTIONS
from engine.config.schema import PretrainConfig, RetrievalConfig, RetrievalEvaluation, RunConfig
from engine.evaluators.retrieval import pairs_at_once
from evaluation.tables import Table
from models.candidates import PackedTexts
from models.fusion import FusionPass
from models.tasks.ranking import ImageTokens, Pairs, groups_of, score_pairs
from models.vlm import VisionLanguageModel

COLUMNS = ("way", "pairs/s", "ms a pair", "times naive", "spread")


@dataclass(frozen=True)
class Candidates:
    """A repetition's work: 2k texts, an image for the first k to be ranked for, and k images to be ranked for one text."""

    images: Tensor
    """[k, P, D]"""
    states: Tensor
    """[2k, L, H] padded."""
    lengths: Tensor
    """[2k] on the CPU."""


def run(request: BenchRequest) -> BenchReport:
    """Time the naive way and ours in turns.

    Returns:
        numbers: `naive_pairs_per_second` and `pairs_per_second` (medians), `ratio` with `ratio_least` and `ratio_most` over repetitions,
        `top_k`, `mean_tokens`; and for settings that are compared, by setting, the last four of these.

    Raises:
        UserError: data is to be real, or the config has no retrieval.
    """
    if request.data != "synthetic":
        raise UserError("--stages rerank measures synthetic galleries only. Leave --data out.")
    config = request.config
    if config.engine.threads:
        torch.set_num_threads(config.engine.threads)
    torch.manual_seed(request.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    k = _settings(config).top_k
    model = VisionLanguageModel(config.model, ["itc", "itm"]).eval().to(device)
    work = candidates(config, k, request, device)
    ways: dict[str, Callable[[], Tensor]] = {"naive": lambda: row_by_row(model, work, k)}
    ways |= {name: in_one_go(model, work, settings) for name, settings in _variants(request).items()}
    seconds = _in_turns(ways, request.warmup, request.steps)
    return _report(seconds, k, float(work.lengths.double().mean()), device)


def _settings(config: RunConfig) -> RetrievalEvaluation:
    match config:
        case RetrievalConfig():
            return config.evaluation
        case PretrainConfig() if config.evaluation.retrieval is not None:
            return config.evaluation.retrieval
    raise UserError("--stages rerank needs a config that evaluates retrieval: a retrieval task, or evaluation.retrieval of pre-training.")


def _variants(request: BenchRequest) -> dict[str, RetrievalEvaluation]:
    """What to measure our way with, by name."""
    found = {
        f"{comparison.key}={value}": _settings(config)
        for comparison in request.comparisons
        for value, config in zip(comparison.values, comparison.configs, strict=True)
    }
    return found or {"ours": _settings(request.config)}


def candidates(config: RunConfig, k: int, request: BenchRequest, device: torch.device) -> Candidates:
    """Random states of the sizes that a config names."""
    longest, vision = config.tokenizer.max_tokens, config.model.vision
    rng = np.random.default_rng(request.seed)
    lengths = [CAPTIONS.draw(rng, longest) if request.fixed_length is None else request.fixed_length for _ in range(2 * k)]
    patches = (vision.image_size // vision.stride) ** 2
    images = torch.randn(k, 1 + patches, vision.width, device=device)
    states = torch.randn(2 * k, longest, config.model.text.width, device=device)
    return Candidates(images, states, torch.tensor(lengths))


@torch.no_grad()
def row_by_row(model: VisionLanguageModel, work: Candidates, k: int) -> Tensor:
    """The naive way: logits [2k] of the first image with the first k texts, then of all images with the next text."""
    mask = (torch.arange(work.states.shape[1]) < work.lengths[:, None]).to(work.states.device)
    for_image = _fused(model, work.images[:1].repeat(k, 1, 1), work.states[:k], mask[:k])
    for_text = _fused(model, work.images, work.states[k : k + 1].repeat(k, 1, 1), mask[k : k + 1].repeat(k, 1))
    return torch.cat([for_image, for_text]).cpu()


def _fused(model: VisionLanguageModel, images: Tensor, texts: Tensor, mask: Tensor) -> Tensor:
    """Logits [k] of images [k, P, D] with padded texts [k, L, H], nothing shared among them."""
    context = model.fusion.context(images, shared=False)
    return model.match_logits(model.fusion([FusionPass(texts, mask, None)], context)[0])[:, 1]


def in_one_go(model: VisionLanguageModel, work: Candidates, settings: RetrievalEvaluation) -> Callable[[], Tensor]:
    """Our way: what gives the logits [2k] of the first image with all texts."""
    device, lengths = work.images.device, work.lengths
    inside = torch.arange(work.states.shape[1]) < lengths[:, None]
    texts = PackedTexts(work.states[inside.to(device)], lengths.cumsum(0) - lengths, lengths)
    wanted_by_image = torch.arange(len(lengths))[None]
    pairs = Pairs.union(wanted_by_image, torch.zeros(len(lengths), 1, dtype=torch.int64), lengths)
    images = ImageTokens(lambda _: work.images[:1], 1, None, device)
    limit = pairs_at_once(settings, device)
    groups = groups_of(pairs.counts, limit)
    return lambda: score_pairs(model, pairs, groups, images, texts, limit, device)[pairs.of_images[0]]


def _in_turns(ways: dict[str, Callable[[], Tensor]], warmup: int, steps: int) -> dict[str, list[float]]:
    """Seconds of every timed repetition of every way."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repetition in range(warmup + steps):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()  # its result is on the CPU, so it is finished
            if repetition >= warmup:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def _report(seconds: dict[str, list[float]], k: int, tokens: float, device: torch.device) -> BenchReport:
    naive = seconds["naive"]
    rows: list[tuple[str, ...]] = []
    numbers: dict[str, Any] = {}
    for name, found in seconds.items():
        ratios = [slow / fast for slow, fast in zip(naive, found, strict=True)]
        rate = 2 * k / statistics.median(found)
        ratio = statistics.median(ratios)
        rows.append((name, f"{rate:.1f}", f"{1000 / rate:.2f}", f"{ratio:.2f}", f"{min(ratios):.2f} to {max(ratios):.2f}"))
        numbers[name] = {"pairs_per_second": rate, "ratio": ratio, "ratio_least": min(ratios), "ratio_most": max(ratios)}
    base = {"naive_pairs_per_second": numbers.pop("naive")["pairs_per_second"], "top_k": k, "mean_tokens": tokens}
    return BenchReport(
        f"Ranking {k} candidates again, texts of {tokens:.1f} tokens on average, on {device.type}, float32",
        {"": Table(COLUMNS, tuple(rows), (False, True, True, True, True))},
        base | numbers.get("ours", numbers),
        ["Without encoding and search by features. A pair that both directions want counts twice here; an evaluation scores it once."],
    )
