"""Recorded optimiser trajectories: the real one is met, and nothing else."""

from collections.abc import Callable

import pytest

import parity.training
from engine.config.schema import OptimizerSettings
from parity.case import Case, read_case
from parity.families.xvlm import JointPretraining
from parity.training import check_training, schedule_settings
from recorded import recorded_folder


def failures(case: Case) -> set[tuple[str, str]]:
    """Scenario and kind of what differs."""
    findings = check_training(case, JointPretraining())
    assert len(findings) > 1000
    return {(finding.scenario, finding.row or finding.name) for finding in findings if not finding.passed}


def test_another_order_of_decay_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    case = read_case(recorded_folder("x2vlm_train_mixed"))
    official: Callable[[Case], OptimizerSettings] = parity.training.optimizer_settings
    monkeypatch.setattr(parity.training, "optimizer_settings", lambda case: official(case).model_copy(update={"implementation": "single"}))
    assert ("end", "weights") in failures(case)


def test_other_groups_are_noticed() -> None:
    case = read_case(recorded_folder("x2vlm_train_vision_text_lr"))
    case.recorded["init_params"].remove("vision_proj.weight")
    assert ("groups", "rates and decays") in failures(case)


def test_schedules_are_read_in_both_spellings() -> None:
    by_epochs = schedule_settings({"sched": "linear", "epochs": 3, "step_per_epoch": 4, "num_warmup_steps": 0.3, "min_rate": 0.1}, 0.01)
    assert (by_epochs.steps, by_epochs.warmup(12), by_epochs.min_lr) == (12, 3, pytest.approx(0.001))
    by_steps = schedule_settings({"sched": "linear", "num_training_steps": 12, "num_warmup_steps": 2}, 0.01)
    assert (by_steps.steps, by_steps.warmup(12), by_steps.min_lr) == (12, 2, 0.0)
