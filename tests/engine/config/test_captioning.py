"""What a config of captioning may not say."""

from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from engine.config.captioning import CaptioningConfig
from engine.config.loader import load_config
from small_run import write_config

DATA = {"train": "a.json", "validation": "b.json", "test": "c.json", "image_root": "images", "batch_size": 2}
DOMAIN = {"kind": "image_text", "shards": "a.tar", "batch_size": 2}
FIRST = {"task": "captioning", "tokenizer": {"path": "t"}, "optimizer": {"lr": 1e-3}, "schedule": {"steps": 2, "warmup_steps": 0}}


def problems(folder: Path, **more: Any) -> str:
    with pytest.raises(UserError) as raised:
        load_config(write_config(folder / "config.yaml", FIRST | more), [], "captioning")
    return str(raised.value)


def test_one_kind_of_data_is_learned(tmp_path: Path) -> None:
    assert "both unset" in problems(tmp_path)
    assert "both; keep one" in problems(tmp_path, data=DATA, domain=DOMAIN)
    assert CaptioningConfig.model_validate(FIRST | {"domain": DOMAIN}).batches()["train"].batch_size == 2


def test_stages_that_do_not_go_together_are_named(tmp_path: Path) -> None:
    assert "self_critical needs data" in problems(tmp_path, domain=DOMAIN, self_critical={})
    assert "prediction: causal" in problems(tmp_path, domain=DOMAIN, prediction="masked")
    assert "engine.strategy: ddp" in problems(tmp_path, data=DATA, self_critical={}, engine={"strategy": "fsdp"})
