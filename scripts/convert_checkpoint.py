"""Convert a checkpoint between the official layouts, this project's own, and transformers'.

python scripts/convert_checkpoint.py x2vlm_base_1b.th x2vlm_base_1b.safetensors          official to ours
python scripts/convert_checkpoint.py runs/my_run my_model.th --to official               ours to official
python scripts/convert_checkpoint.py 16m_base_model_state_step_199999.th folder --to hf  encoders for transformers
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file

from common.errors import UserError
from common.scripts import run_script
from engine.weights import find_weights
from models.checkpoints.adapter import HeadCounts
from models.checkpoints.converting import Converted, encoders_to_transformers, official_to_ours, ours_to_official
from models.checkpoints.load import name_tensors
from models.checkpoints.pretrained import own_config
from models.checkpoints.reading import read_checkpoint
from models.checkpoints.registry import ADAPTERS

Layout = Literal["official", "ours", "hf"]


def main() -> int:
    """Read the command line and convert; returns an exit code."""
    summary, examples = (__doc__ or "").split("\n", 1)
    parser = argparse.ArgumentParser(description=summary, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="IN", help="a weights file, or the folder of a run")
    parser.add_argument("out", type=Path, metavar="OUT", help="ours: a .safetensors file; official: that, or a torch file; hf: a folder")
    parser.add_argument("--to", choices=["official", "ours", "hf"], help="default: ours of an official file, official of ours")
    parser.add_argument("--family", choices=[adapter.name for adapter in ADAPTERS], help="official format to write (default: as it came)")
    for part in ("vision", "text", "fusion"):
        parser.add_argument(f"--{part}_heads", type=int, metavar="N", help="attention heads of an official file, if not 64 channels each")
    options = parser.parse_args()
    counts = HeadCounts(options.vision_heads, options.text_heads, options.fusion_heads)
    return run_script(lambda: convert(options.source, options.out, options.to, options.family, counts))


def convert(source: Path, out: Path, layout: Layout | None, family: str | None, counts: HeadCounts) -> None:
    """Read one file and write the other."""
    file = find_weights(source)
    if out.exists() and out.resolve() == file.resolve():
        raise UserError(f"{out}: is the file to be read; name another to write.")
    contents = read_checkpoint(file)
    named = name_tensors(contents, str(file), counts)
    official = named.config is not None
    layout = layout or ("ours" if official else "official")
    if layout == "hf":
        config = named.config or own_config(file, contents.metadata)
        lines = encoders_to_transformers(named.conversion.tensors, config, out)
    else:
        if official == (layout == "official"):
            raise UserError(f"{file}: is {f'of the format {named.family}' if official else 'in our layout'} already; choose another --to.")
        if layout == "ours":
            converted = official_to_ours(contents, str(file), counts)
        else:
            converted = ours_to_official(contents, own_config(file, contents.metadata), str(file), family)
        write(converted, out, layout)
        lines = [*converted.report, f"written: {out}"]
    for line in lines:
        print(line)


def write(converted: Converted, out: Path, layout: Layout) -> None:
    """Write a file that is whole or absent."""
    if layout == "ours" and out.suffix != ".safetensors":
        raise UserError(f"{out}: name a file that ends in .safetensors.")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        if out.suffix == ".safetensors":
            apart = {name: tensor.clone().contiguous() for name, tensor in converted.tensors.items()}  # copies may share their storage
            save_file(apart, partial, metadata=converted.header or {"format": "pt"})
        else:
            torch.save({"model": converted.tensors, "config": converted.config}, partial)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
