"""The options of `run.py plan`."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from common.errors import UserError
from engine.launch import Parser, add_config_options

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def plan_parser(tasks: Sequence[str]) -> Parser:
    """The command line of `run.py plan`."""
    text = "Say what a run will cost in memory and time, without a GPU: from shapes, counted operations and a stated share of the peak."
    parser = Parser(prog="run.py plan", description=text, allow_abbrev=False)
    add_config_options(parser, tasks)
    parser.add_argument("--memory", required=True, metavar="SIZE", help="of one GPU: 80G (K, M, G, T: powers of 1024)")
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="how many (default 1)")
    parser.add_argument("--device", default="h100", metavar="NAME", help="a100, h100, h200, l40s or rtx4090 (default h100)")
    parser.add_argument("--peak", type=float, metavar="FLOPS", help="dense bf16 operations a second of another device: 989e12")
    parser.add_argument(
        "--mfu", type=float, default=0.45, metavar="SHARE", help="share of the peak that is assumed to be reached (default 0.45)"
    )
    parser.add_argument("--caption-tokens", type=int, default=12, metavar="N", help="mean length of captions (default 12)")
    parser.add_argument("--region-tokens", type=int, default=5, metavar="N", help="mean length of region texts (default 5)")
    parser.add_argument("--sentence-tokens", type=int, default=25, metavar="N", help="mean length of parallel texts (default 25)")
    parser.add_argument("--records", type=int, metavar="N", help="records of the first stream, for epochs")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write everything as JSON")
    return parser


def plan(given: Sequence[str], tasks: Sequence[str], find: Callable[[Path], Path]) -> str:
    """Plan what the command line asks for and write the file that it names.

    Args:
        given: the command line after `plan`.
        tasks: names of all tasks.
        find: checks that a config exists.

    Returns:
        The plan as text.

    Raises:
        UserError: bad options or config.
    """
    options = plan_parser(tasks).parse(given)
    memory = _check(options)
    from engine.config.loader import load_config
    from engine.planning.cost import Speed, device_of
    from engine.planning.estimate import Machine, make_plan
    from engine.planning.shapes import TextLengths
    from engine.planning.text import plan_numbers, plan_text

    device = device_of(options.device, options.peak)
    config = load_config(find(options.config), options.overrides, options.task).config
    if not config.schedule.trains:
        raise UserError(f"{options.config}: schedule.steps is 0, so there are no steps to plan.")
    machine = Machine(Speed(device, options.mfu, options.gpus), memory)
    found = make_plan(config, machine, TextLengths(options.caption_tokens, options.region_tokens, options.sentence_tokens), options.records)
    if options.out is not None:
        try:
            options.out.write_text(json.dumps(plan_numbers(found), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"--out {options.out}: cannot be written: {error.strerror}.") from error
    return plan_text(found)


def _check(options: Namespace) -> int:
    """The memory in bytes."""
    for name, least in (("gpus", 1), ("caption_tokens", 3), ("region_tokens", 3), ("sentence_tokens", 3), ("records", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} {value}: must be at least {least}.")
    if not 0 < options.mfu <= 1:
        raise UserError(f"--mfu {options.mfu:g}: must be a share in (0, 1].")
    if options.peak is not None and options.peak <= 0:
        raise UserError(f"--peak {options.peak:g}: must be above 0.")
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT])(?:i?B)?", options.memory, re.IGNORECASE)
    if found is None:
        raise UserError(f"--memory {options.memory}: is not a size; write 80G or 40960M.")
    return int(float(found[1]) * UNITS[found[2].upper()])
