"""Where the time of a training step goes: one bar, its parts in the order of the step, as an SVG picture."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from evaluation.report.curves import INK, PALETTE, Picture, svg_bytes, svg_uri

BENCH_FILE = "bench.json"
"""What `run.py bench --stages --out` wrote into the run folder."""
LABELLED = 0.04
"""Least share of a part that has room for its number."""

logger = logging.getLogger(__name__)


def stage_svg(stages: Mapping[str, float]) -> str:
    """The bar as SVG.

    Args:
        stages: name -> seconds, in the order to be drawn.
    """
    return svg_bytes(_figure(stages)).decode()


def stage_picture(run_dir: Path) -> Picture | None:
    """The bar of a run folder's bench.json, None where there is none with stages in it."""
    file = run_dir / BENCH_FILE
    if not file.is_file():
        return None
    try:
        stages = {str(name): float(value) for name, value in json.loads(file.read_text(encoding="utf-8"))["numbers"]["stages"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s: has no stages to show (%r)", file, error)
        return None
    total = sum(stages.values())
    told = ", ".join(f"{name} {100 * value / total:.1f} %" for name, value in stages.items()) if total else "no time at all"
    return Picture(f"One step, {total:.3g} s", svg_uri(_figure(stages)), f"Share of a step's time: {told}.")


def _figure(stages: Mapping[str, float]) -> Figure:
    total = sum(stages.values()) or 1.0
    figure = Figure(figsize=(9.2, 2.4), layout="constrained", facecolor="none")
    axes = figure.add_subplot()
    axes.set_facecolor("none")
    left = 0.0
    for number, (name, value) in enumerate(stages.items()):
        share = 100 * value / total
        colour, pale = PALETTE[number % len(PALETTE)], number >= len(PALETTE)
        axes.barh(0, share, left=left, height=0.7, color=colour, alpha=0.5 if pale else 0.9, label=f"{name} {share:.1f} %", ec="white")
        if share >= 100 * LABELLED:
            axes.text(left + share / 2, 0, f"{share:.0f}", ha="center", va="center", fontsize=8.5, color=INK if pale else "white")
        left += share
    axes.set_xlim(0, 100)
    axes.set_ylim(-0.5, 0.5)
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#94A3B8")
    axes.tick_params(colors=INK, labelsize=8.5, length=0)
    axes.set_xlabel(f"% of a step of {total:.3g} s", color=INK, fontsize=8.5)
    figure.legend(loc="outside lower center", frameon=False, fontsize=8.5, labelcolor=INK, ncols=4)
    return figure
