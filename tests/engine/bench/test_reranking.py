"""The re-ranking measure."""

from pathlib import Path

import pytest
import torch

from common.errors import UserError
from engine.bench import reranking
from engine.bench.report import BenchRequest, Comparison
from engine.config.schema import PretrainConfig, RetrievalConfig, RetrievalEvaluation
from models.vlm import VisionLanguageModel
from small_run import pretrain_settings, task_settings

FILE, K = Path("config.yaml"), 5


def config_of(data: Path, **evaluation: int) -> RetrievalConfig:
    return RetrievalConfig.model_validate(task_settings("retrieval", data, 1) | {"evaluation": {"top_k": K} | evaluation})


def test_both_ways_compute_the_same_logits(small_data: Path) -> None:
    config = config_of(small_data)
    torch.manual_seed(0)
    model = VisionLanguageModel(config.model, ["itc", "itm"]).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    work = reranking.candidates(config, K, BenchRequest(config, FILE), torch.device("cpu"))
    naive = reranking.row_by_row(model, work, K)
    ours = reranking.in_one_go(model, work, RetrievalEvaluation(pair_batch_size=4))()
    assert naive.shape == ours.shape == (2 * K,)
    torch.testing.assert_close(ours[: K + 1], naive[: K + 1])  # the first image's texts, then the next text with the first image


def test_ratio_and_rates_are_reported_for_each_setting_compared(small_data: Path) -> None:
    config = config_of(small_data)
    plain = reranking.run(BenchRequest(config, FILE, steps=2, warmup=0, fixed_length=7))
    assert plain.numbers["mean_tokens"] == 7
    assert plain.numbers["top_k"] == K
    assert plain.numbers["ratio_least"] <= plain.numbers["ratio"] <= plain.numbers["ratio_most"]
    assert "times naive" in plain.text()
    comparison = Comparison("evaluation.pair_batch_size", ("2", "8"), tuple(config_of(small_data, pair_batch_size=n) for n in (2, 8)))
    compared = reranking.run(BenchRequest(config, FILE, steps=1, warmup=0, comparisons=[comparison]))
    for setting in ("evaluation.pair_batch_size=2", "evaluation.pair_batch_size=8"):
        assert compared.numbers[setting]["pairs_per_second"] > 0


def test_what_cannot_be_measured_is_refused(small_data: Path) -> None:
    with pytest.raises(UserError, match="synthetic"):
        reranking.run(BenchRequest(config_of(small_data), FILE, data="real"))
    without = PretrainConfig.model_validate(pretrain_settings(small_data, 1))
    with pytest.raises(UserError, match=r"evaluation\.retrieval"):
        reranking.run(BenchRequest(without, FILE))
