"""Make a finished run's weights travel: weights, config, tokenizer and a card that says where they come from.

python scripts/ship_checkpoint.py runs/x2vlm_tiny checkpoints/x2vlm_tiny --data data/shapeworld
"""

import argparse
import hashlib
import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from common.errors import UserError
from common.scripts import run_script
from engine.config.loader import load_config
from engine.weights import find_weights
from evaluation.tables import markdown, metrics_table, read_result
from models.checkpoints.reading import read_state_dict
from models.checkpoints.sharded import is_index

CARD = """# {name}

Weights of a small model, trained by its own recipe on the embedded data set (procedural pictures, not photographs).

| | |
|---|---|
| command | `{command}` |
| commit | `{commit}` |
| seed | {seed} |
| steps | {steps} |
| training time | {minutes:.0f} minutes on {hardware} |
| data | `python scripts/make_shapeworld.py --seed {data_seed}`, content hash `{data_hash}` |
| weights | `model.safetensors`, {parameters:,} parameters, sha256 `{weights_hash}` |
| tokenizer | `tokenizer/`, the one that was trained on this data |

Held-out numbers without fine-tuning ({validation} validation scenes), guesses that do not look beside them:

{table}

To start from it: `initialize: {{checkpoint: {path}/model.safetensors}}` with `include: .../configs/models/x2vlm_tiny.yaml` and
`tokenizer: {{path: {path}/tokenizer}}`. `config.yaml` is the resolved config of the run.
"""


def main() -> int:
    """Copy and describe; returns an exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--data", type=Path, required=True, help="the embedded data set that it was trained on")
    options = parser.parse_args()
    return run_script(lambda: ship(options.run, options.out, options.data))


def ship(run: Path, out: Path, data: Path) -> None:
    """Write the folder of a shipped checkpoint."""
    result, environment, meta = (_read(file) for file in (run / "metrics.json", run / "environment.json", data / "meta.json"))
    config = load_config(run / "config.yaml", [], None).config
    weights = find_weights(run)
    out.mkdir(parents=True, exist_ok=True)
    shipped = out / "model.safetensors"
    if is_index(weights):
        save_file(read_state_dict(weights), shipped)  # what several ranks wrote, in one file
    else:
        shutil.copyfile(weights, shipped)
    shutil.copyfile(run / "config.yaml", out / "config.yaml")
    shutil.copytree(config.tokenizer.path, out / "tokenizer", dirs_exist_ok=True)
    card = CARD.format(
        name=out.name,
        command=shlex.join(["python", *environment["command"]]),
        commit=environment["git"]["commit"],
        seed=config.seed,
        steps=result["step"],
        minutes=result["seconds"] / 60,
        hardware=f"{environment['cpus']} cores ({environment['processor']})",
        data_seed=meta["seed"],
        data_hash=meta["sha256"],
        parameters=_parameters(shipped),
        weights_hash=hashlib.sha256(shipped.read_bytes()).hexdigest(),
        validation=meta["validation"],
        table=markdown(metrics_table(read_result(run))),
        path=out,
    )
    (out / "README.md").write_text(card, encoding="utf-8")


def _parameters(weights: Path) -> int:
    from safetensors import safe_open

    with safe_open(weights, framework="pt") as tensors:
        shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118 (not a dict)
    total = 0
    for shape in shapes:
        size = 1
        for side in shape:
            size *= side
        total += size
    return total


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(f"{file}: no such file; is the run finished?")
    return json.loads(file.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
