"""Compare recorded cases of any kind: scenarios of a model, optimiser trajectories, functions."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from common.errors import UserError
from parity.case import Case, read_case
from parity.compare import Finding, compare_outputs
from parity.families import FAMILIES
from parity.family import Built, Family, Trainable
from parity.functions import check_functions, is_functions
from parity.gradients import compare_gradients, gradient_norms
from parity.report import CaseReport
from parity.training import check_training, is_training

logger = logging.getLogger(__name__)
RECORDED = {"float32": "f32", "float64": "f64"}


def find_cases(paths: Iterable[Path]) -> list[Path]:
    """The cases among these folders and in them.

    Raises:
        UserError: a path holds no case.
    """
    found: list[Path] = []
    for path in paths:
        folders = [path] if _is_case(path) else sorted(folder for folder in path.glob("*/") if _is_case(folder))
        if not folders and path.is_file():
            logger.info("%s: not a folder, left out", path)  # a shell's `golden/*` names them, too
        elif not folders:
            raise UserError(f"{path}: no recorded case, neither it nor a folder in it has a config.json or functions.json")
        found += [folder for folder in folders if folder not in found]
    if not found:
        raise UserError("no recorded case among the given paths; see --help for the layout")
    return found


def _is_case(folder: Path) -> bool:
    return is_functions(folder) or (folder / "config.json").is_file()


def check_case(folder: Path) -> CaseReport:
    """Compare one case. Whatever goes wrong in it is part of its report, so that other cases are still compared."""
    name = folder.resolve().name
    try:
        if is_functions(folder):
            findings, uncovered = check_functions(folder)
            return CaseReport(name, "functions", findings, uncovered)
        return _check_model(name, read_case(folder))
    except Exception as error:
        logger.debug("%s", name, exc_info=True)
        return CaseReport(name, "not computed", problem=f"{type(error).__name__}: {error}")


def _check_model(name: str, case: Case) -> CaseReport:
    title = f"{case.repo} {case.official_class}"
    family = next((family for family in FAMILIES if family.covers(case)), None)
    if family is None:
        return CaseReport(name, title, uncovered=[f"the class {case.official_class} of {case.repo}"])
    if is_training(case):
        if not isinstance(family, Trainable):
            return CaseReport(name, title, uncovered=[f"training of {case.official_class}"])
        return CaseReport(name, f"{title}, training", check_training(case, family))
    findings: list[Finding] = []
    uncovered: list[str] = []
    for dtype, outputs in case.outputs.items():
        built = family.build(case, getattr(torch, dtype))
        for scenario in outputs:
            found = check_scenario(family, built, case, scenario, dtype)
            if found is None:
                uncovered.append(f"scenario {scenario}")
            else:
                findings += found
    return CaseReport(name, title, findings, list(dict.fromkeys(uncovered)))


def check_scenario(family: Family, built: Built, case: Case, scenario: str, dtype: str) -> list[Finding] | None:
    """Compare the outputs and gradients of one scenario; None where the family does not compute it."""
    computed = family.run(built, case, scenario, getattr(torch, dtype))
    if computed is None:
        return None
    findings = compare_outputs(scenario, dtype, case.outputs[dtype][scenario], computed.outputs, computed.masks)
    recorded = case.gradients.get(scenario, {}).get(RECORDED[dtype])
    if recorded:
        built.model.zero_grad(set_to_none=True)
        if computed.total is not None:
            computed.total.backward()
        findings += compare_gradients(scenario, dtype, recorded, gradient_norms(dict(built.model.named_parameters()), built.sources))
    return findings


def check_cases(folders: Iterable[Path]) -> Iterator[CaseReport]:
    """Compare cases one by one."""
    for folder in folders:
        yield check_case(folder)
