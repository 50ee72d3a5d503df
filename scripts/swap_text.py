"""Write a checkpoint with another text encoder: vision, fusion and heads of the one, the text encoder of the other.

    python scripts/swap_text.py --config configs/pretrain/cclm_x2vlm_base.yaml --out swapped.safetensors
    python scripts/swap_text.py --config RECIPE --out FILE --set initialize.checkpoint=x2vlm_base_1b.th model.text.weights=xlm-roberta-base

The recipe says what the new model is (model.*), where it starts (initialize.checkpoint, model.text.weights) and, by its objectives, which
heads it has. No data is read. What was kept, and what starts anew, is printed. The file holds its config; to evaluate it as it is:

    python run.py --task retrieval --config ... --output_dir ... --set initialize.checkpoint=FILE schedule.steps=0
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script finds the project wherever it is started

from accelerate.utils import set_seed
from safetensors.torch import save_file

from common.errors import UserError
from common.scripts import run_script
from engine.config.loader import load_config
from engine.tasks import make_task
from engine.weights import find_weights
from models.text_swap import swap_text_encoder


def swap(config_file: Path, out: Path, overrides: list[str]) -> None:
    """Build the recipe's model, fill it, and write it."""
    config = load_config(config_file, [*overrides, "initialize.replace_text=true"], None).config
    checkpoint = config.initialize.checkpoint
    assert checkpoint is not None, "the config's own check"
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: name a file that ends in .safetensors.")
    set_seed(config.seed)
    model = make_task(config).model
    new = swap_text_encoder(model, find_weights(Path(checkpoint)), config.initialize.allow_missing)
    out.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(tensors, out, metadata={"format": "pt", "config": config.model.model_dump_json()})
    print(f"written: {out}; {len(new)} of {len(tensors)} tensors start from nothing{': ' if new else ''}{', '.join(sorted(new)[:4])}")


def main(arguments: list[str] | None = None) -> int:
    summary, details = (__doc__ or "").split("\n", 1)
    parser = argparse.ArgumentParser(description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="recipe of the model with the new text encoder")
    parser.add_argument("--out", type=Path, required=True, help="file to write, .safetensors")
    parser.add_argument("--set", dest="overrides", nargs="+", default=[], metavar="KEY=VALUE", help="settings that differ from the recipe")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return run_script(lambda: swap(options.config, options.out, options.overrides))


if __name__ == "__main__":
    sys.exit(main())
