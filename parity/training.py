"""Recorded optimiser trajectories, repeated with the step, the parameter groups and the schedule of this project's engine."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.optim import Optimizer

from dataset.batches import StreamBatch
from engine.config.engine_settings import EngineSettings
from engine.config.schema import OptimizerSettings, ScheduleSettings
from engine.faults import FaultCounter
from engine.meters import Clock
from engine.optimizer import build_optimizer, parameter_groups, set_learning_rate
from engine.schedule import linear_factor
from engine.step import Stepper
from engine.strategies.replicated import Replicated
from models.tasks.pretrain import Pretraining, StreamObjectives
from models.vlm import VisionLanguageModel
from parity.case import Case
from parity.compare import EXACT, Finding, Tolerance, compare, compare_number, in_one_row
from parity.families.shared import LOSS_NAMES
from parity.family import Built, Trainable

METERS = Tolerance(5e-6, 5e-7)
"""Losses and gradient norms pass the engine's meters, which are float32."""
NORMS = {"float32": Tolerance(1e-4, 1e-4), "float64": Tolerance(1e-9, 1e-9)}
WEIGHTS = {"float32": Tolerance(5e-5, 1e-5), "float64": Tolerance(1e-9, 1e-9)}
ROUNDING = 4.0
"""How many times the rounding of the recording ours may be."""
RECORDED = {"float32": "f32", "float64": "f64"}


def is_training(case: Case) -> bool:
    """Whether a case is an optimiser trajectory."""
    return "result" in case.recorded


def check_training(case: Case, family: Trainable) -> list[Finding]:
    """Compare the parameter groups, and the trajectory in both precisions."""
    findings: list[Finding] = []
    for dtype, key in RECORDED.items():
        if key in case.recorded["result"]:
            findings += _Trajectory(case, family, dtype).check(case.recorded["result"][key])
    return findings


def optimizer_settings(case: Case) -> OptimizerSettings:
    """The recorded optimizer, as this project's config would name it."""
    given = {name: value for name, value in case.recorded["optimizer"].items() if name in OptimizerSettings.model_fields}
    return OptimizerSettings.model_validate({**given, "clip_norm": case.recorded.get("clip_grad_norm"), "implementation": "official"})


def schedule_settings(recorded: Mapping[str, Any], lr: float) -> ScheduleSettings:
    """The recorded schedule, as this project's config would name it."""
    steps = recorded.get("num_training_steps") or recorded["epochs"] * recorded["step_per_epoch"]
    floor = recorded.get("min_rate", 0.0) * lr
    return ScheduleSettings(kind=recorded["sched"], steps=steps, warmup_steps=recorded["num_warmup_steps"], min_lr=floor)


class _Trajectory:
    """One run of a recorded training in one precision."""

    def __init__(self, case: Case, family: Trainable, dtype: str) -> None:
        self.case, self.family, self.dtype = case, family, dtype
        self.torch_dtype: torch.dtype = getattr(torch, dtype)
        self.built: Built = family.build(case, self.torch_dtype)
        model = self.built.model
        assert isinstance(model, VisionLanguageModel)
        self.model = model
        self.exact: Mapping[str, Any] = case.recorded["result"].get("f64", case.recorded["result"].get("f32"))
        self.settings = optimizer_settings(case)
        self.schedule = schedule_settings(case.recorded["schedule"], self.settings.lr)
        self.before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        new = frozenset(ours for ours, official in self.built.sources.items() if official in set(case.recorded["init_params"]))
        self.groups = parameter_groups(model.named_parameters(), self.settings, new)

    def check(self, recorded: Mapping[str, Any]) -> list[Finding]:
        """Take the recorded steps, comparing on the way and at the end."""
        findings = self._check_groups()
        objectives = {scenario: StreamObjectives(1.0, self._stream(scenario)[1]) for scenario in self.case.inputs}
        task = Pretraining(self.model.config, objectives, "exact")
        task.model = self.model
        task.eval()
        optimizer = build_optimizer(self.groups, self.settings)
        strategy = Replicated(EngineSettings(), self.settings.clip_norm, timeout=None)
        strategy.prepare(task, optimizer)
        stepper = Stepper(strategy, accumulation=1)
        total, floor = self.schedule.steps or 0, self.schedule.min_lr / self.settings.lr
        for step, entry in enumerate(recorded["log"]):
            set_learning_rate(strategy.optimizer, linear_factor(step, total, self.schedule.warmup(total), floor))
            findings += self._check_rates(f"step {step}", entry["lr"], strategy.optimizer)
            findings += self._step(stepper, f"step {step}", entry)
        return findings + self._check_end(recorded)

    def _step(self, stepper: Stepper, scenario: str, entry: Mapping[str, Any]) -> list[Finding]:
        """One recorded step: one update with all streams, or, as X-VLM trains, one after another."""
        streams = list(dict.fromkeys(name.split("/")[0] for name in entry["losses"] if "/" in name))
        apart = any(name.endswith("/loss_total") for name in entry["losses"])
        ours: dict[str, float] = {}
        for index, names in enumerate([[name] for name in streams] if apart else [streams]):
            numbers = stepper.step(self._batches(names), Clock(), FaultCounter(Path("unused"), 1.0))
            read = {name: float(value) for name, value in numbers.items()}
            ours[f"gradient norm {index}"] = read["gradient_norm"]
            ours[f"{names[0]}/loss_total" if apart else "loss_total"] = read["loss"]
            ours |= {f"{name.split('/')[0]}/{LOSS_NAMES[name.split('/')[1]]}": read[name] for name in read if "/" in name}
        expected = {f"gradient norm {index}": norm for index, norm in enumerate(entry["grad_norm_before_clip"])} | entry["losses"]
        findings = [self._number(scenario, name, value, ours.get(name), self._metered()) for name, value in expected.items()]
        temperature = float(self.model.temperature.detach())
        return [*findings, self._number(scenario, "temperature", entry["temp_after"], temperature, WEIGHTS[self.dtype])]

    def _batches(self, names: list[str]) -> Iterator[dict[str, StreamBatch]]:
        yield {name: StreamBatch(self._stream(name)[0], name, seen=0) for name in names}

    def _stream(self, scenario: str) -> tuple[dict[str, Tensor], dict[str, float]]:
        stream = self.family.stream(self.built, self.case, scenario, self.torch_dtype)
        return stream.batch, stream.objectives

    def _metered(self) -> Tolerance:
        return METERS if self.dtype == "float64" else NORMS["float32"]

    def _number(self, scenario: str, name: str, recorded: float, ours: float | None, allowed: Tolerance) -> Finding:
        return compare_number(scenario, name, self.dtype, recorded, ours, allowed)

    def _check_groups(self) -> list[Finding]:
        """Rate and decay of every parameter."""
        ours = {self.built.sources[name]: (group["base_lr"], group["weight_decay"]) for group in self.groups for name in group["names"]}
        findings = []
        for group in self.case.recorded["param_groups"]:
            for name in group["names"]:
                rate, decay = ours.get(name, (None, None))
                findings.append(self._number("groups", f"rate of {name}", group["initial_lr"], rate, Tolerance(0.0, 1e-12)))
                findings.append(self._number("groups", f"decay of {name}", group["weight_decay"], decay, EXACT))
        return in_one_row("rates and decays", findings)

    def _check_rates(self, scenario: str, recorded: list[float], optimizer: Optimizer) -> list[Finding]:
        """The rate in force in every recorded group."""
        ours = {self.built.sources[name]: group["lr"] for group in optimizer.param_groups for name in group["names"]}
        pairs = zip(self.case.recorded["param_groups"], recorded, strict=True)
        findings = [
            self._number(scenario, f"rate of group {index}", rate, ours.get(group["names"][0]), Tolerance(0.0, 1e-12))
            for index, (group, rate) in enumerate(pairs)
            if group["names"]
        ]
        return in_one_row("rates", findings)

    def _check_end(self, recorded: Mapping[str, Any]) -> list[Finding]:
        """Lengths of all parameters and of their ways, and the recorded parameters themselves."""
        after = {self.built.sources[name]: parameter.detach().double() for name, parameter in self.model.named_parameters()}
        begun = {self.built.sources[name]: value.double() for name, value in self.before.items()}
        norms = {
            "param_norm": {name: float(value.norm()) for name, value in after.items()},
            "param_delta_norm": {name: float((value - begun[name]).norm()) for name, value in after.items()},
        }
        findings = [
            self._number("end", f"{what} of {name}", value, ours.get(name), self._rounded(NORMS, value, self.exact[what][name]))
            for what, ours in norms.items()
            for name, value in recorded[what].items()
        ]
        final, exact = (load_file(self.case.folder / f"final_params_{key}.safetensors") for key in (RECORDED[self.dtype], "f64"))
        findings += [
            compare("end", name, self.dtype, value, after.get(name), self._rounded(WEIGHTS, value, exact[name]))
            for name, value in final.items()
        ]
        return in_one_row("weights", findings)

    def _rounded(self, allowed: Mapping[str, Tolerance], value: Tensor | float, exact: Tensor | float) -> Tolerance:
        """A tolerance widened by what rounding did to the recording itself.

        Adam makes whole steps of the rounding errors that stand for a gradient of 0, such as that of the bias of attention keys.
        """
        given = allowed[self.dtype]
        noise = float((torch.as_tensor(value, dtype=torch.float64) - torch.as_tensor(exact, dtype=torch.float64)).abs().max())
        return Tolerance(given.absolute + ROUNDING * noise, given.relative)
