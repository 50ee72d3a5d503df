"""The options of `run.py bench`, and which measure they ask for."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from argparse import Namespace
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import UserError
from engine.launch import Parser, add_config_options

if TYPE_CHECKING:
    from engine.bench.report import BenchReport, BenchRequest, Comparison

MEASURES: dict[str, str] = {
    "step": "engine.bench.steps:run",
    "load": "engine.bench.loading:run",
    "rerank": "engine.bench.reranking:run",
}
"""What `--stages` can name -> "module:function", the function a `run(request: BenchRequest) -> BenchReport`."""

BETWEEN = re.compile(r",(?![^\[{]*[\]}])")
"""A comma that is not inside of a list or mapping."""


def bench_parser(tasks: Sequence[str]) -> Parser:
    """The command line of `run.py bench`."""
    parser = Parser(prog="run.py bench", description="Measure speed: optimizer steps of a config, or one of its parts.", allow_abbrev=False)
    add_config_options(parser, tasks)
    parser.add_argument("--data", choices=("synthetic", "real"), default="synthetic", help="batches from the config alone, or its files")
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="timed steps (default 10)")
    parser.add_argument("--warmup", type=int, default=2, metavar="N", help="steps before them that do not count (default 2)")
    parser.add_argument("--fixed-length", type=int, metavar="N", help="synthetic texts of N tokens each; default: realistic lengths")
    what = f"where the time of a step goes; or another measure: {', '.join(MEASURES)}"
    parser.add_argument("--stages", nargs="?", const="step", metavar="MEASURE", help=what)
    compare = "run settings in turn, for example --compare engine.precision=fp32,bf16; may be given again"
    parser.add_argument("--compare", action="extend", nargs="+", default=[], metavar="KEY=A,B", help=compare)
    parser.add_argument("--reference", type=Path, metavar="FILE", help="published figures to set the result beside (configs/bench/)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write everything as JSON")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also draw the stages as an SVG picture; needs --stages")
    return parser


def bench(given: Sequence[str], tasks: Sequence[str], find: Callable[[Path], Path]) -> str:
    """Measure what the command line asks for and write the files that it names.

    Args:
        given: the command line after `bench`.
        tasks: names of all tasks.
        find: checks that a config exists.

    Returns:
        The report as text.
    """
    options = bench_parser(tasks).parse(given)
    if options.picture is not None and options.stages != "step":
        raise UserError("--picture: there are no stages of a step to draw; add --stages.")
    for option, file in (("--out", options.out), ("--picture", options.picture)):
        if file is not None and not file.parent.is_dir():  # not after minutes of work
            raise UserError(f"{option} {file}: cannot be written: there is no folder {file.parent}.")
    measure = _measure(options.stages or "step")
    report = measure(_request(options, find))
    from engine.bench.document import document
    from evaluation.report.stages import stage_svg

    if options.out is not None:
        _write(options.out, "--out", json.dumps(document(options.stages or "step", report), indent=1) + "\n")
    if options.picture is not None:
        _write(options.picture, "--picture", stage_svg(report.numbers["stages"]))
    return report.text()


def _measure(name: str) -> Callable[[BenchRequest], BenchReport]:
    """The function that measures.

    Raises:
        UserError: there is no such measure, or it is not installed.
    """
    if name not in MEASURES:
        near = get_close_matches(name, MEASURES, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(f"--stages {name}: not a measure; it is one of {', '.join(MEASURES)}.{hint}")
    module, _, function = MEASURES[name].partition(":")
    if importlib.util.find_spec(module) is None:
        raise UserError(f"--stages {name}: {module} is not part of this installation.")
    return getattr(importlib.import_module(module), function)


def _request(options: Namespace, find: Callable[[Path], Path]) -> BenchRequest:
    from engine.bench.report import BenchRequest
    from engine.config.loader import load_config

    path = find(options.config)
    config = load_config(path, options.overrides, options.task).config
    if not config.schedule.trains:
        raise UserError(f"{path}: schedule.steps is 0, so there are no steps to measure.")
    return BenchRequest(
        config=config,
        path=path,
        overrides=tuple(options.overrides),
        data=options.data,
        steps=options.steps,
        warmup=options.warmup,
        seed=config.seed,
        fixed_length=options.fixed_length,
        by_stage=options.stages == "step",
        comparisons=[_comparison(text, path, options.overrides, config.task) for text in options.compare],
        reference=options.reference,
    )


def _comparison(text: str, path: Path, overrides: Sequence[str], task: str) -> Comparison:
    """The configs that a `--compare` asks for.

    Raises:
        UserError: it is not KEY=A,B, or one of them is no valid setting.
    """
    from engine.bench.report import Comparison
    from engine.config.loader import load_config

    key, separator, written = text.partition("=")
    values = tuple(value.strip() for value in BETWEEN.split(written))
    if not separator or len(values) < 2 or len(set(values)) < len(values):
        raise UserError(f"--compare {text}: must be KEY=A,B with different values, for example --compare engine.precision=fp32,bf16.")
    try:
        configs = tuple(load_config(path, [*overrides, f"{key}={value}"], task).config for value in values)
    except UserError as error:
        raise UserError(f"--compare {text}: {str(error).removeprefix('--set: ')}") from error
    return Comparison(key, values, configs)


def _write(file: Path, option: str, content: str) -> None:
    try:
        file.write_text(content, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{option} {file}: cannot be written: {error.strerror}.") from error
