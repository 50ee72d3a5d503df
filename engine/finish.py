"""The end of a run: final numbers, metrics.json and the report."""

import json
import logging
from pathlib import Path

from common.distributed import barrier, is_main
from common.errors import Requeue
from common.files import replace_file
from engine.config.schema import RunConfig
from engine.evaluators import Evaluator
from engine.faults import fault_table
from engine.interruption import Interrupted
from engine.trainer import Engine
from engine.watchdog_heartbeat import Phase
from evaluation.report import ReportPanels, write_report
from evaluation.tables import METRICS_FILE, metrics_table, plain_text, read_result
from models.vlm import VisionLanguageModel

logger = logging.getLogger(__name__)


def finish(engine: Engine, evaluator: Evaluator | None, config: RunConfig) -> None:
    """Evaluate the chosen weights once, write metrics.json and report.html, and show the table.

    Args:
        engine: after training.
        evaluator: of the test set; None when there is nothing to evaluate on.
        config: of the run.

    Raises:
        Requeue: the run was asked to stop; the same command evaluates again.
    """
    try:
        with engine.watchdog.watching(engine.state.step), engine.best_model() as model:
            with engine.watchdog.evaluating(model):
                metrics = engine.evaluate(evaluator, model) if evaluator is not None else {}
            with engine.watchdog.phase(Phase.REPORTING):
                if is_main():
                    _report(engine, evaluator, config, model, metrics)
                barrier()
    except Interrupted:
        name = engine.interruption.name()
        raise Requeue(f"Stopped by {name} in the last evaluation. The same command takes it up again; training is finished.") from None
    finally:
        engine.interruption.close()


def _report(engine: Engine, evaluator: Evaluator | None, config: RunConfig, model: VisionLanguageModel, metrics: dict[str, float]) -> None:
    write_result(engine, config.task, metrics, evaluator.baselines() if evaluator is not None else {})
    panels = evaluator.panels(model, config.report.samples) if evaluator is not None else ReportPanels()
    write_report(engine.output_dir, panels)
    if metrics:
        logger.info("%s\n%s", engine.output_dir, plain_text(metrics_table(read_result(engine.output_dir))))


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
        "nonfinite_steps": state.nonfinite,
    }
    path = engine.output_dir / METRICS_FILE
    replace_file(path, json.dumps(result, indent=1))
    return path
