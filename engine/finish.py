"""The end of a run: final numbers, metrics.json and the report."""

import json
import logging
from pathlib import Path

from common.distributed import barrier, is_main
from common.files import replace_file
from engine.config.schema import RunConfig
from engine.evaluators import Evaluator
from engine.faults import fault_table
from engine.trainer import Engine
from evaluation.report import ReportPanels, write_report
from evaluation.tables import METRICS_FILE, metrics_table, plain_text, read_result
from models.tasks.base import Task

logger = logging.getLogger(__name__)


def finish(engine: Engine, task: Task, evaluator: Evaluator | None, config: RunConfig) -> None:
    """Evaluate the chosen weights once, write metrics.json and report.html, and show the table.

    Args:
        engine: that trained the task.
        task: its best weights are put back first.
        evaluator: of the test set; None when there is nothing to evaluate on.
        config: of the run.
    """
    engine.load_best(task.model)
    task.to(engine.device).eval()
    metrics = evaluator(task.model) if evaluator is not None else {}
    if is_main():
        write_result(engine, config.task, metrics, evaluator.baselines() if evaluator is not None else {})
        panels = evaluator.panels(task.model, config.report.samples) if evaluator is not None else ReportPanels()
        write_report(engine.output_dir, panels)
        if metrics:
            logger.info("%s\n%s", engine.output_dir, plain_text(metrics_table(read_result(engine.output_dir))))
    barrier()


def write_result(engine: Engine, task: str, metrics: dict[str, float], baselines: dict[str, dict[str, float]]) -> Path:
    """Write OUTPUT_DIR/metrics.json."""
    state = engine.state
    result = {
        "task": task,
        "metrics": metrics,
        "baselines": baselines,
        "step": state.step,
        "best_step": state.best_step,
        "seconds": round(state.seconds, 1),
        "records_read": state.seen,
        "records_skipped": state.faults,
        "streams": fault_table(state),
    }
    path = engine.output_dir / METRICS_FILE
    replace_file(path, json.dumps(result, indent=1))
    return path
