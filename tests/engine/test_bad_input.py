"""Bad input ends a run before or during training with one clear line and a non-zero exit."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from dataset.shards import ShardWriter
from small_run import MODEL, curve, pretrain_settings, run, task_settings, write_config


def last_line(stderr: str) -> str:
    return stderr.strip().splitlines()[-1]


def test_an_unknown_key_names_the_file_and_the_nearest_key(small_data: Path, tmp_path: Path) -> None:
    settings = pretrain_settings(small_data, 2)
    settings["optimizer"] = {"learning_rate": 1e-3}
    done = run("pretrain", write_config(tmp_path / "c.yaml", settings), tmp_path / "run")
    assert done.returncode == 2
    assert "c.yaml" in done.stderr
    assert "optimizer.lr" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_shard_is_named(small_data: Path, tmp_path: Path) -> None:
    settings = pretrain_settings(small_data, 2)
    settings["streams"]["images"]["shards"] = str(tmp_path / "nowhere-*.tar")
    done = run("pretrain", write_config(tmp_path / "c.yaml", settings), tmp_path / "run")
    assert done.returncode == 2
    assert "nowhere-*.tar" in last_line(done.stderr)


def test_a_truncated_shard_is_named(small_data: Path, tmp_path: Path) -> None:
    shards = shutil.copytree(small_data / "shards", tmp_path / "shards")
    tar = next(shards.glob("images-*.tar"))
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    settings = pretrain_settings(small_data, 2)
    settings["streams"]["images"]["shards"] = str(shards / "images-*.tar")
    done = run("pretrain", write_config(tmp_path / "c.yaml", settings), tmp_path / "run")
    assert done.returncode == 2
    assert tar.name in last_line(done.stderr)


def shards_with(folder: Path, good: list[tuple[bytes, dict[str, object]]], bad: list[tuple[bytes, dict[str, object]]]) -> str:
    with ShardWriter(folder, "mixed") as writer:
        for number, (image, annotation) in enumerate(good + bad):
            writer.write(f"record-{number}", image, annotation, "png")
    return str(folder / "mixed-*.tar")


BAD = {
    "undecodable image": (b"not a picture", {"caption": ["a red circle"], "elems": [{"bb": [1, 1, 8, 8], "caption": "circle"}]}),
    "box outside its image": (None, {"caption": ["a red circle"], "elems": [{"bb": [90, 90, 8, 8], "caption": "circle"}]}),
    "empty caption": (None, {"caption": ["  "], "elems": [{"bb": [1, 1, 8, 8], "caption": ""}]}),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_record_is_skipped_counted_and_listed(small_data: Path, tmp_path: Path, fault: str) -> None:
    picture = next((small_data / "images/train").glob("*.png")).read_bytes()
    good = [(picture, {"caption": [f"a red circle {n}"], "elems": [{"bb": [2, 2, 12, 12], "caption": "circle"}]}) for n in range(11)]
    image, annotation = BAD[fault]
    shards = shards_with(tmp_path / "shards", good, [(image or picture, annotation)])
    settings = pretrain_settings(small_data, 6)
    settings["streams"]["regions"]["shards"] = shards
    if fault != "box outside its image":  # a caption of the whole image does not need the box
        settings["streams"]["images"]["shards"] = shards
    settings["engine"]["max_bad_share"] = 0.3
    config = write_config(tmp_path / "c.yaml", settings)
    done = run("pretrain", config, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert curve(tmp_path / "run")[6]["skipped_records"] > 0
    assert "record-11" in (tmp_path / "run/bad_records.txt").read_text()
    strict = run("pretrain", config, tmp_path / "strict", "--set", "engine.max_bad_share=0.001")
    assert strict.returncode == 2
    assert "engine.max_bad_share = 0.001" in last_line(strict.stderr)
    assert "record-11" in last_line(strict.stderr)


def test_batches_of_one_pair_train_without_negatives(small_data: Path, tmp_path: Path) -> None:
    settings = pretrain_settings(small_data, 2)
    settings["streams"]["images"] |= {"batch_size": 1, "groups": None}
    settings["streams"]["regions"] |= {"batch_size": 1, "max_images": 1, "groups": None}
    done = run("pretrain", write_config(tmp_path / "c.yaml", settings), tmp_path / "run")
    assert done.returncode == 0, done.stderr
    for numbers in curve(tmp_path / "run").values():
        assert all(value == value and abs(value) < 1e6 for value in numbers.values())
        assert numbers["images/itc"] == 0


def test_a_checkpoint_of_another_shape_is_refused_by_name(small_data: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "a.yaml", pretrain_settings(small_data, 1))
    assert run("pretrain", config, tmp_path / "small").returncode == 0
    settings = task_settings("retrieval", small_data, 1) | {"initialize": {"checkpoint": str(tmp_path / "small")}}
    settings["model"] = MODEL | {"projection_dim": 12}
    wider = run("retrieval", write_config(tmp_path / "b.yaml", settings), tmp_path / "wider")
    assert wider.returncode == 2
    assert "text_proj.bias: [8] in the file, [12] in the model" in last_line(wider.stderr)


def test_a_checkpoint_that_lacks_tensors_is_refused_unless_allowed(small_data: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "a.yaml", pretrain_settings(small_data, 1))
    assert run("pretrain", config, tmp_path / "run").returncode == 0
    weights = load_file(tmp_path / "run/checkpoints/step-00000001/model.safetensors")
    partial = tmp_path / "partial.safetensors"
    save_file({name: value for name, value in weights.items() if not name.startswith("itm_head.")}, partial)
    settings = task_settings("retrieval", small_data, 1) | {"initialize": {"checkpoint": str(partial)}}
    config = write_config(tmp_path / "b.yaml", settings)
    refused = run("retrieval", config, tmp_path / "refused")
    assert refused.returncode == 2
    assert "itm_head (6)" in last_line(refused.stderr)
    allowed = run("retrieval", config, tmp_path / "allowed", "--set", "initialize.allow_missing=[itm_head*]")
    assert allowed.returncode == 0, allowed.stderr
