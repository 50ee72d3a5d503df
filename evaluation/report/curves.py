"""Curves of a run, drawn with matplotlib's objects (no pyplot, no global state) as small SVG pictures.

Which charts there are follows from the names in metrics.jsonl: "loss"; "STREAM/OBJECTIVE", one chart for each objective with a line for
each stream; "lr" and "lr/..."; names with "per_second" (throughput) and with "wait" (share of time spent waiting for data, 0 to 1);
validation metrics grouped as `evaluation.labels` says; and any other number on its own.
"""

import base64
import io
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from evaluation.labels import metric_label
from evaluation.report.history import Curve, History

# Okabe and Ito's colours, told apart with any colour vision; the yellow is left out, being too faint on white
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, FAINT = "#334155", "#E2E8F0"
MAX_POINTS = 400
COUNTERS = ("skipped", "slow_reads", "gradient_norm")
"""Before a slash these are no streams: "skipped/STREAM" counts the records of one, "gradient_norm/STREAM" is of its update."""
OBJECTIVES = {
    "itc": "Contrastive (ITC)",
    "itm": "Matching (ITM)",
    "mlm": "Masked words (MLM)",
    "text_mlm": "Masked words of texts alone (MLM)",
    "mim": "Masked patches (MIM)",
    "box_l1": "Box, L1",
    "box_giou": "Box, GIoU",
}


@dataclass(frozen=True)
class Chart:
    """One picture: its title, its lines, and how the values read."""

    title: str
    lines: Mapping[str, Curve]
    dashed: Mapping[str, Curve] = field(default_factory=dict)
    """Lines drawn with marks, for validation beside training."""
    unit: str = ""
    """Written beside the axis; "%" makes the axis run from 0 to 100."""
    from_zero: bool = False
    """The axis starts at 0: for values whose share of the whole matters more than their wiggles."""
    colours: Mapping[str, str] = field(default_factory=dict)
    """Colour of a line by name, so that a stream looks the same in all charts; others take the palette in turn."""


@dataclass(frozen=True)
class Picture:
    """A drawn chart for the page."""

    title: str
    uri: str
    alt: str


def charts(history: History) -> dict[str, list[Chart]]:
    """Sort a run's curves into charts: section title -> charts, sections without any left out."""
    train, validation = history.of("train"), history.of("validation")
    losses, rest = _loss_charts(train, validation)
    speed, rest = _speed_charts(rest)
    skip = {name for name in validation if name == "loss" or name in train}
    metrics = _metric_charts({name: curve for name, curve in validation.items() if name not in skip})
    counted, rest = _counter_charts(rest)
    other = counted + [Chart(_spelt(name), {"": curve}) for name, curve in rest.items()]
    sections = {"Losses": losses, "Validation": metrics, "Learning rate and speed": speed + other}
    return {title: found for title, found in sections.items() if found}


def draw(chart: Chart) -> Picture:
    """Draw one chart as an SVG picture with a spoken description."""
    figure = Figure(figsize=(4.6, 2.7), layout="constrained", facecolor="none")
    axes = figure.add_subplot()
    _style(axes)
    names = list(dict.fromkeys([*chart.lines, *chart.dashed]))
    colour = {name: chart.colours.get(name, PALETTE[index % len(PALETTE)]) for index, name in enumerate(names)}
    for name, curve in chart.lines.items():
        steps, values = _thin(curve)
        axes.plot(steps, values, color=colour[name], lw=1.6, label=name, marker="o" if len(steps) < 12 else None, ms=3.5)
    for name, curve in chart.dashed.items():
        label = f"{name}, validation" if name else "validation"
        axes.plot(*_thin(curve), color=colour[name], lw=1.2, ls="--", marker="o", ms=3.5, mfc="white", label=label)
    axes.set_xlim(left=0)
    if chart.unit == "%":
        axes.set_ylim(0, 100)
    elif chart.from_zero:
        axes.set_ylim(bottom=0)
    axes.set_ylabel(chart.unit, color=INK, fontsize=8.5)
    if len(axes.lines) > 1:
        axes.legend(frameon=False, fontsize=8.5, labelcolor=INK, ncols=2 if len(axes.lines) > 3 else 1)
    return Picture(chart.title, svg_uri(figure), _alt(chart))


def _loss_charts(train: Mapping[str, Curve], validation: Mapping[str, Curve]) -> tuple[list[Chart], dict[str, Curve]]:
    """Charts of the losses, and the training curves that are none."""
    by_objective: dict[str, dict[str, Curve]] = {}
    rest: dict[str, Curve] = {}
    for name, curve in train.items():
        stream, slash, objective = name.rpartition("/")
        if slash and not _is_rate(name) and not _is_speed(name) and stream not in COUNTERS:
            by_objective.setdefault(objective, {})[stream] = curve
        elif name != "loss":
            rest[name] = curve
    found = []
    if "loss" in train:
        held_out = {"total": validation["loss"]} if "loss" in validation else {}
        found.append(Chart("Total loss", {"total": train["loss"]}, held_out))
    streams = dict.fromkeys(stream for lines in by_objective.values() for stream in lines)
    colours = dict(zip(streams, itertools.cycle(PALETTE), strict=False))
    for objective in sorted(by_objective, key=lambda name: [*OBJECTIVES, name].index(name)):
        lines = by_objective[objective]
        held_out = {stream: validation[f"{stream}/{objective}"] for stream in lines if f"{stream}/{objective}" in validation}
        title = OBJECTIVES.get(objective, _spelt(objective))
        if len(lines) == 1 and len(streams) > 1:
            title += f" · {next(iter(lines))}"
        found.append(Chart(title, lines, held_out, colours=colours))
    return found, rest


def _speed_charts(curves: Mapping[str, Curve]) -> tuple[list[Chart], dict[str, Curve]]:
    """Learning rates, throughput and data wait, and what is left."""
    rates = {name.removeprefix("lr").strip("/"): curve for name, curve in curves.items() if _is_rate(name)}
    speeds = {name.replace("_per_second", ""): curve for name, curve in curves.items() if "per_second" in name}
    waits = [Curve(curve.steps, 100 * curve.values) for name, curve in curves.items() if "wait" in name]
    found = [Chart("Learning rate", rates)] if rates else []
    found += [Chart("Throughput", speeds, unit="per second", from_zero=True)] if speeds else []
    found += [Chart("Time spent waiting for data", {"": wait}, unit="%") for wait in waits]
    return found, {name: curve for name, curve in curves.items() if not (_is_rate(name) or _is_speed(name))}


def _counter_charts(curves: Mapping[str, Curve]) -> tuple[list[Chart], dict[str, Curve]]:
    """A chart of each counter with a line for each stream, and what is left."""
    grouped: dict[str, dict[str, Curve]] = {}
    for name, curve in curves.items():
        counter, slash, stream = name.partition("/")
        if slash and counter in COUNTERS:
            grouped.setdefault(counter, {})[stream] = curve
    rest = {name: curve for name, curve in curves.items() if name.partition("/")[0] not in grouped}
    return [Chart(f"{_spelt(counter)}, by stream", lines, from_zero=True) for counter, lines in grouped.items()], rest


def _metric_charts(curves: Mapping[str, Curve]) -> list[Chart]:
    grouped: dict[str, dict[str, Curve]] = {}
    units: dict[str, str] = {}
    for name, curve in curves.items():
        label = metric_label(name)
        title = label.chart or label.text
        grouped.setdefault(title, {})[label.text] = curve
        units[title] = label.unit
    return [Chart(title, lines, unit=units[title], from_zero=True) for title, lines in grouped.items()]


def _spelt(name: str) -> str:
    return {"grad_norm": "Gradient norm"}.get(name, name.replace("_", " ").capitalize())


def _is_rate(name: str) -> bool:
    return name == "lr" or name.startswith("lr/")


def _is_speed(name: str) -> bool:
    return "per_second" in name or "wait" in name


def _style(axes: Axes) -> None:
    axes.set_facecolor("none")
    axes.grid(axis="y", color=FAINT, lw=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#94A3B8")
    axes.tick_params(colors=INK, labelsize=8.5, length=0)
    axes.tick_params(axis="x", length=3, color="#94A3B8")
    axes.set_xlabel("step", color=INK, fontsize=8.5)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter("{x:.4g}")


def _thin(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """At most MAX_POINTS points, each the mean of its neighbours; a share without any finite value stays a gap."""
    if len(curve.steps) <= MAX_POINTS:
        return curve.steps, np.where(np.isfinite(curve.values), curve.values, np.nan)
    steps, values = np.array_split(curve.steps, MAX_POINTS), np.array_split(curve.values, MAX_POINTS)
    return np.array([share.mean() for share in steps]), np.array([_finite_mean(share) for share in values])


def _finite_mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else np.nan


def svg_bytes(figure: Figure) -> bytes:
    """A figure as an SVG file, the same every time."""
    buffer = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    return buffer.getvalue()


def svg_uri(figure: Figure) -> str:
    """A figure for the page, as an image of its own: the names inside one SVG cannot clash with those of another."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg_bytes(figure)).decode()}"


def _alt(chart: Chart) -> str:
    """The chart in words: what each line starts and ends with."""
    told = []
    for suffix, lines in (("", chart.lines), (" on validation", chart.dashed)):
        for name, curve in lines.items():
            finite = np.flatnonzero(np.isfinite(curve.values))
            if len(finite):
                first, last = finite[0], finite[-1]
                ends = f"{curve.values[first]:.4g} at step {curve.steps[first]} to {curve.values[last]:.4g} at step {curve.steps[last]}"
                told.append(f"{name}{suffix} from {ends}".strip())
    return f"{chart.title}{f' ({chart.unit})' if chart.unit else ''}: {'; '.join(told) or 'no values'}."
