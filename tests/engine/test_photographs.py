"""Retrieval on photographs of COCO, from the shipped checkpoint to the report. Skipped where the photographs are not there."""

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import Retrieval as retrieval_script
from dataset.prepare.coco import annotation_files, load_split
from engine.config.loader import load_config

ROOT = Path(__file__).parents[2]
COCO_MINI = ROOT.parent / "shared/data/coco_mini"
SHIPPED = ROOT / "checkpoints/x2vlm_tiny"
PHOTOGRAPHS = 8


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason="needs ../shared/data/coco_mini")
def test_the_recipe_runs_from_a_pretrained_checkpoint_and_its_report_shows_the_ranked_photographs(tmp_path: Path) -> None:
    found = load_split(COCO_MINI, "val2017", *annotation_files(COCO_MINI, "val2017")).images[:PHOTOGRAPHS]
    gallery = [{"image": image.path, "caption": image.captions} for image in found]
    pairs = [{"image": image.path, "caption": image.captions[0], "image_id": image.id} for image in found]
    (tmp_path / "retrieval_val.json").write_text(json.dumps(gallery))
    (tmp_path / "retrieval_train.json").write_text(json.dumps(pairs))
    vision = YAML(typ="safe").load((SHIPPED / "config.yaml").read_text())["model"]["vision"]
    changes = [
        f"variables.{name}={value}" for name, value in (("data", tmp_path), ("images", COCO_MINI), ("init", SHIPPED / "model.safetensors"))
    ]
    changes += [f"model.vision.{key}={vision[key]}" for key in ("image_size", "patch_size")]  # those of the shipped weights
    changes += ["model.text.vocab_size=320", f"tokenizer.path={SHIPPED / 'tokenizer'}", "data.batch_size=4", "report.samples=2"]
    changes += ["schedule.steps=2", "schedule.warmup_steps=1", "engine.evaluate_every=2", "engine.workers=0", "loggers.tensorboard=false"]
    config = load_config(ROOT / "configs/quickstart/retrieval_coco.yaml", changes).config
    retrieval_script.main(config, tmp_path / "run")  # pyright: ignore[reportArgumentType]
    result = json.loads((tmp_path / "run/metrics.json").read_text())
    assert result["baselines"]["chance"]["ir_r1"] == pytest.approx(100 / PHOTOGRAPHS)
    page = (tmp_path / "run/report.html").read_text()
    for rank in (1, 5):
        assert page.count(f'alt="Rank {rank}, ') == 2
    assert "data:image/png;base64" in page
