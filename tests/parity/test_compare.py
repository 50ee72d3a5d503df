"""Errors, tolerances and gradients of the comparison."""

import math

import pytest
import torch
from torch import nn

from parity.compare import Tolerance, compare, compare_outputs, tolerance
from parity.gradients import compare_gradients, gradient_norms


def test_largest_errors_and_share_of_the_tolerance() -> None:
    recorded = torch.tensor([1.0, -4.0, 0.0])
    found = compare("s", "n", "float32", recorded, recorded + torch.tensor([0.0, 0.02, 0.01]), Tolerance(0.01, 0.0025))
    assert found.absolute == pytest.approx(0.02)
    assert found.relative == pytest.approx(0.01 / recorded.abs().mean().item())  # next to zero it is the tensor's mean size that counts
    assert found.used == pytest.approx(1.0)


def test_numbers_that_are_none_fail() -> None:
    found = compare("s", "n", "float32", torch.ones(2), torch.tensor([1.0, math.nan]), Tolerance(1.0))
    assert not found.passed and found.absolute == math.inf


def test_other_shapes_and_absent_tensors_fail() -> None:
    findings = compare_outputs("s", "float32", {"a": torch.ones(2), "b": torch.ones(2)}, {"a": torch.ones(2, 1)}, {})
    assert [(finding.problem, finding.passed) for finding in findings] == [("shape [2, 1], recorded [2]", False), ("missing", False)]


def test_masked_rows_do_not_count_and_others_do() -> None:
    recorded, ours = torch.zeros(2, 3), torch.tensor([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]])
    mask = torch.tensor([[True], [False]])
    assert compare("s", "n", "float32", recorded, ours, Tolerance(1e-3), mask).passed
    assert not compare("s", "n", "float32", recorded, ours, Tolerance(1e-3), ~mask).passed


def test_whole_numbers_must_be_equal() -> None:
    picks = torch.tensor([0, 1])
    assert tolerance("neg_text_idx", picks, "float32") == Tolerance(0.0)
    assert not compare("s", "neg_text_idx", "float32", picks, torch.tensor([1, 0]), Tolerance(0.0)).passed


def two_layers() -> tuple[nn.Module, dict[str, float]]:
    first, second = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    model = nn.ModuleDict({"first": first, "second": second, "unused": nn.Linear(1, 1)})
    (first.weight * 3 + second.weight * 4).sum().backward()
    names = {"first.weight": "one.a.weight", "second.weight": "one.b.weight", "unused.weight": "two.weight", "unused.bias": "two.bias"}
    return model, gradient_norms(dict(model.named_parameters()), names)


def test_norms_of_modules_are_summed_under_official_names() -> None:
    _, norms = two_layers()
    assert norms == {"one.a.weight": 3.0, "one.b.weight": 4.0}
    recorded = {"module_norm": {"one": 5.0, "__all__": 5.0}, "param_norm": {"one.a.weight": 3.0}, "no_grad_params": ["two.weight"]}
    assert all(finding.passed for finding in compare_gradients("s", "float64", recorded, norms))


@pytest.mark.parametrize(
    ("recorded", "name"),
    [
        ({"module_norm": {"one": 5.002, "__all__": 5.0}}, "gradient of one"),
        ({"module_norm": {"__all__": 5.0}, "param_norm": {"one.b.weight": 4.001}}, "gradient of one.b.weight"),
        ({"module_norm": {"__all__": 5.0}, "param_norm": {"two.weight": 0.1}}, "gradient of two.weight"),
        ({"module_norm": {"__all__": 5.0}, "no_grad_params": ["one.a.weight"]}, "gradient of one.a.weight"),
    ],
)
def test_gradients_that_differ_fail(recorded: dict, name: str) -> None:
    _, norms = two_layers()
    assert [finding.name for finding in compare_gradients("s", "float64", recorded, norms) if not finding.passed] == [name]


def test_what_was_recorded_in_single_precision_is_compared_by_its_last_digits() -> None:
    single, double = torch.tensor(4.4466524), torch.tensor(4.4466524, dtype=torch.float64)
    assert compare("s", "loss_cap", "float64", single, single.double() + 3e-7, tolerance("loss_cap", single, "float64")).used < 1
    assert compare("s", "loss_cap", "float64", single, single.double() + 3e-6, tolerance("loss_cap", single, "float64")).used > 1
    assert compare("s", "loss_cap", "float64", double, double + 3e-7, tolerance("loss_cap", double, "float64")).used > 1
