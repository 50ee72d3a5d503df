"""Parallel text is planned, counted and made up as it is trained on."""

from pathlib import Path

import numpy as np
import pytest

from engine.bench.flops import FlopCount
from engine.bench.synthetic import synthetic_streams
from engine.config.schema import PretrainConfig
from engine.planning.shapes import TextLengths, step_shapes
from small_run import pretrain_settings


@pytest.fixture(scope="module")
def config() -> PretrainConfig:
    settings = pretrain_settings(Path("nowhere"), 10)
    objectives = {"ttc": 1.0, "ttm": 1.0, "mlm": 1.0, "tlm": 1.0}
    parallel = {"kind": "parallel_text", "shards": "nowhere", "batch_size": 6, "max_tokens": 20, "objectives": objectives}
    settings["streams"] = {"parallel": parallel, "images": settings["streams"]["images"]}
    return PretrainConfig.model_validate(settings)


def test_a_planned_batch_has_what_a_real_one_has(config: PretrainConfig) -> None:
    stream = synthetic_streams(config, fixed_length=16)["parallel"]
    real = stream.collate([[stream.sample(number, np.random.default_rng(number)) for number in range(6)]], [np.random.default_rng(0)])
    planned = step_shapes(config, TextLengths(sentence=16))["parallel"].tensors(side=32)
    assert planned.keys() == real.keys() - {"text_bins", "text_bins_2"}
    widths = {name: (tensor.shape, tensor.dtype) for name, tensor in planned.items() if "mask" in name and "masked" not in name}
    assert widths["text_mask"] == (real["text_mask"].shape, real["text_mask"].dtype)
    assert widths["text_mask_2"] == (real["text_mask_2"].shape, real["text_mask_2"].dtype)
    assert widths["pair_mask"][0][1] == 31  # two of 16 with one [CLS] between them
    assert step_shapes(config, None)["parallel"].tokens == 20


def test_longer_sentences_cost_more_operations(config: PretrainConfig) -> None:
    counter = FlopCount(config)
    short, long = (
        counter.count({"parallel": step_shapes(config, TextLengths(sentence=tokens))["parallel"].tensors(32, "meta")}) for tokens in (8, 16)
    )
    assert 2 * sum(short.values()) < 1.2 * sum(long.values())
