"""Put a run's numbers, curves and pictures into one HTML file."""

import json
import logging
import shlex
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from ruamel.yaml import YAML, YAMLError

from common.errors import FAULT_LABELS
from common.files import replace_file
from evaluation.labels import format_metric, metric_label
from evaluation.report import curves, pictures
from evaluation.report.history import METRICS_LINES, History, read_history
from evaluation.report.panels import AnswerPanel, AttentionPanel, BoxPanel, CaptionPanel, LabelPanel, ReportPanels, RetrievalPanel
from evaluation.report.skipped import skipped_by_stream
from evaluation.report.stages import stage_picture
from evaluation.tables import RunResult, metrics_table, read_result

REPORT_FILE = "report.html"
CONFIG_FILE = "config.yaml"
ENVIRONMENT_FILE = "environment.json"
SKIPPED_FILE = "bad_records.txt"
"""One line for each record that could not be used."""

BOX_SIDE, RETRIEVAL_SIDE, ATTENTION_SIDE = 288, 192, 128
"""Longer side of the pictures in pixels; with 16 panels of each kind a report of photographs stays below 3 MB."""
MAX_WORDS, MAX_SKIPPED = 14, 50
HEADLINES = ("accuracy", "acc", "vqa_accuracy", "mean_iou", "tr_r1", "ir_r1", "r_mean", "cider", "cider_words")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Headline:
    label: str
    value: str
    beside: str


def write_report(run_dir: Path, panels: ReportPanels) -> Path:
    """Write the report of a run: self-contained, opens offline, nothing in it is fetched or executed.

    Reads what the run folder has of metrics.json, metrics.jsonl, config.yaml, bad_records.txt, bench.json (see `stage_picture`) and
    environment.json ({"git": {"commit", "changed"}, "command", "python", "packages", "host", "processes"}). What is missing is left out
    of the page, so that a report of an unfinished run can be written too.

    Args:
        run_dir: the run's output folder.
        panels: pictures to show.

    Returns:
        Path of the written run_dir/report.html, put in place in one go.

    Raises:
        UserError: metrics.json is not a result file.
        ValueError: an image or a map of a panel has the wrong shape or dtype.
    """
    result, history = read_result(run_dir), read_history(run_dir / METRICS_LINES)
    config_text = _read_text(run_dir / CONFIG_FILE)
    skipped = _read_text(run_dir / SKIPPED_FILE).splitlines()
    skipped_count = len(skipped) if result.records_skipped is None else result.records_skipped
    config, environment = _mapping_of_yaml(config_text), _mapping_of_json(_read_text(run_dir / ENVIRONMENT_FILE))
    page = _template().render(
        title=f"{(result.task or config.get('task') or 'run')} · {run_dir.resolve().name}",
        task=result.task or config.get("task"),
        run=run_dir.resolve().name,
        finished=result.metrics is not None,
        facts=_facts(result, history, config, environment),
        headlines=_headlines(result),
        table=metrics_table(result),
        sections={title: [curves.draw(chart) for chart in found] for title, found in curves.charts(history).items()},
        step=stage_picture(run_dir),
        boxes=[_box_view(panel) for panel in panels.boxes],
        retrieval=[_retrieval_view(panel) for panel in panels.retrieval],
        attention=[_attention_view(panel) for panel in panels.attention],
        answers=[_answer_view(panel) for panel in panels.answers],
        labels=[_label_view(panel) for panel in panels.labels],
        captions=[_caption_view(panel) for panel in panels.captions],
        config=config_text,
        command=shlex.join(map(str, environment.get("command") or [])),
        versions=_versions(environment),
        skipped=skipped[:MAX_SKIPPED],
        skipped_count=skipped_count,
        records_read=result.records_read,
        streams=skipped_by_stream(result, skipped),
        causes=list(FAULT_LABELS.values()),
    )
    path = run_dir / REPORT_FILE
    replace_file(path, page)
    logger.info("report: %s (%.1f MB)", path, path.stat().st_size / 1e6)
    return path


def _template() -> Any:
    source = files("evaluation.report").joinpath("template.html.j2").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(source)


def _facts(result: RunResult, history: History, config: dict[str, Any], environment: dict[str, Any]) -> list[tuple[str, str]]:
    """What the head of the page says about the run, unknown things left out."""
    train = history.of("train")
    last_step = max((int(curve.steps[-1]) for curve in train.values()), default=None)
    speeds = [curve.values[np.isfinite(curve.values)] for name, curve in train.items() if "per_second" in name]
    facts = [
        ("Config", _config_name(environment)),
        ("Commit", _commit(environment)),
        ("Seed", config.get("seed")),
        ("Steps", None if last_step is None else f"{last_step:,}"),
        ("Best step", None if result.best_step is None else f"{result.best_step:,}"),
        ("Time at work", _duration(history.seconds if result.seconds is None else result.seconds)),
        ("Throughput", f"{np.median(speeds[0]):,.0f} / s" if speeds and speeds[0].size else None),
        ("Host", environment.get("host")),
        ("Processes", environment.get("processes")),
    ]
    return [(name, str(value)) for name, value in facts if value not in (None, "")]


def _commit(environment: dict[str, Any]) -> str | None:
    """Twelve digits of the commit, and whether the code differed from it."""
    state = environment.get("git") or {}
    return f"{state['commit'][:12]}{' + changes' if state.get('changed') else ''}" if state.get("commit") else None


def _versions(environment: dict[str, Any]) -> dict[str, str]:
    python = {"python": environment["python"]} if environment.get("python") else {}
    return {name: str(version) for name, version in {**python, **(environment.get("packages") or {})}.items()}


def _config_name(environment: dict[str, Any]) -> str | None:
    """The config file as it was given on the command line."""
    words = [str(word) for word in environment.get("command") or []]
    for word, following in pairwise([*words, ""]):
        if word == "--config":
            return following
        if word.startswith("--config="):
            return word.removeprefix("--config=")
    return None


def _headlines(result: RunResult) -> list[_Headline]:
    """The few numbers to see first, each with its best baseline."""
    shown = []
    for name, value in (result.metrics or {}).items():
        if name.rpartition("/")[2] in HEADLINES:
            guesses = {guess: number for guess in result.baselines or () if (number := result.baseline(guess, name)) is not None}
            best = max(guesses, key=guesses.__getitem__, default=None)
            beside = "" if best is None else f"{best} {format_metric(name, guesses[best])}"
            shown.append(_Headline(metric_label(name).text, format_metric(name, value), beside))
    return shown[:4]


def _box_view(panel: BoxPanel) -> dict[str, Any]:
    height, width = panel.image.shape[:2]
    heat = panel.heat
    picture = pictures.image_uri(panel.image, BOX_SIDE) if heat is None else pictures.attention_uri(panel.image, heat, BOX_SIDE)
    outcome = None if panel.iou is None else ("right" if panel.iou >= 0.5 else "wrong")
    agreement = "" if panel.iou is None else f", IoU {panel.iou:.2f}"
    return {
        "text": panel.text,
        "uri": picture,
        "width": width,
        "height": height,
        "predicted": pictures.rectangle(panel.predicted_xywh),
        "true": None if panel.true_xywh is None else pictures.rectangle(panel.true_xywh),
        "iou": None if panel.iou is None else f"{panel.iou:.2f}",
        "outcome": outcome,
        "alt": f"Image with the predicted{'' if panel.true_xywh is None else ' and the true'} box for “{panel.text}”{agreement}.",
    }


def _retrieval_view(panel: RetrievalPanel) -> dict[str, Any]:
    hits = [
        {
            "uri": pictures.image_uri(found.image, RETRIEVAL_SIDE),
            "score": f"{found.score:.3g}",
            "correct": found.correct,
            "caption": found.caption,
            "alt": f"Rank {rank}, {'the right image' if found.correct else 'another image'}{f': {found.caption}' if found.caption else ''}",
        }
        for rank, found in enumerate(panel.images, start=1)
    ]
    right = next((rank for rank, found in enumerate(panel.images, start=1) if found.correct), None)
    return {"text": panel.text, "hits": hits, "right": right}


def _answer_view(panel: AnswerPanel) -> dict[str, Any]:
    return {
        "uri": pictures.image_uri(panel.image, RETRIEVAL_SIDE),
        "question": panel.question,
        "answer": panel.answer,
        "given": panel.given,
        "confidence": f"{panel.confidence:.2f}",
        "outcome": None if panel.score is None else ("right" if panel.score >= 0.5 else "wrong"),
        "alt": f"Image of the question “{panel.question}”, answered “{panel.answer}”.",
    }


def _label_view(panel: LabelPanel) -> dict[str, Any]:
    return {
        "uris": [pictures.image_uri(image, RETRIEVAL_SIDE) for image in panel.images],
        "text": panel.text,
        "predicted": panel.predicted,
        "label": panel.label,
        "confidence": f"{panel.confidence:.2f}",
        "outcome": "right" if panel.predicted == panel.label else "wrong",
    }


def _caption_view(panel: CaptionPanel) -> dict[str, Any]:
    return {
        "uri": pictures.image_uri(panel.image, RETRIEVAL_SIDE),
        "caption": panel.caption,
        "given": panel.given,
        "score": "" if panel.score is None else f"CIDEr {panel.score:.0f}",
        "alt": f"Image described as “{panel.caption}”.",
    }


def _attention_view(panel: AttentionPanel) -> dict[str, Any]:
    if panel.maps.ndim != 3 or len(panel.maps) != len(panel.words):
        raise ValueError(f"attention maps {list(panel.maps.shape)} for {len(panel.words)} words: expected [W, g, g] with one map a word")
    words = [
        {
            "word": word,
            "uri": pictures.attention_uri(panel.image, weights, ATTENTION_SIDE),
            "alt": f"Attention of “{word}”, strongest at the {pictures.place_of_maximum(weights)}.",
        }
        for word, weights in list(zip(panel.words, panel.maps, strict=True))[:MAX_WORDS]
    ]
    uri = pictures.image_uri(panel.image, ATTENTION_SIDE)
    return {"text": " ".join(panel.words), "uri": uri, "words": words, "left_out": max(0, len(panel.words) - MAX_WORDS)}


def _duration(seconds: float) -> str | None:
    """Seconds in words: "48 s", "12 min 30 s", "3 h 5 min"."""
    whole = round(seconds)
    if whole <= 0:
        return None
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _mapping_of_yaml(text: str) -> dict[str, Any]:
    try:
        content = YAML(typ="safe").load(text) if text else {}
    except YAMLError:
        content = {}
    return content if isinstance(content, dict) else {}


def _mapping_of_json(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text) if text else {}
    except ValueError:
        content = {}
    return content if isinstance(content, dict) else {}
