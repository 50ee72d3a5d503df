"""CCLM's recorded scenarios through the training code."""

from dataclasses import replace

import pytest
import torch

from parity.compare import compare_outputs
from parity.families import FAMILIES
from parity.families.cclm import CrossView
from parity.gradients import compare_gradients, gradient_norms
from recorded import recorded_case

SCENARIOS = {
    "cclm_pretrain_sharp": ("image", "image_two_captions", "region", "para_text"),
    "cclm_pretrain_tlm": ("para_text",),
    "x2vlm_crossviewlm_xlmr_sharp": ("image", "region", "para_text"),
}
SHORT = {"float32": "f32", "float64": "f64"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "scenario"), [(name, scenario) for name, scenarios in SCENARIOS.items() for scenario in scenarios])
def test_outputs_and_gradients_equal_the_recorded_ones(name: str, scenario: str, dtype: str) -> None:
    case = recorded_case(name)
    family = next(family for family in FAMILIES if family.covers(case))
    assert isinstance(family, CrossView)
    built = family.build(case, getattr(torch, dtype))
    computed = family.run(built, case, scenario, getattr(torch, dtype))
    assert computed is not None
    assert computed.total is not None
    findings = compare_outputs(scenario, dtype, case.outputs[dtype][scenario], computed.outputs, computed.masks)
    computed.total.backward()
    norms = gradient_norms(dict(built.model.named_parameters()), built.sources)
    findings += compare_gradients(scenario, dtype, case.gradients[scenario][SHORT[dtype]], norms)
    assert len(findings) > 10
    assert [finding for finding in findings if not finding.passed] == []


@pytest.mark.parametrize("setting", ["text.layer_norm_eps", "fusion.layer_norm_eps"])
def test_another_epsilon_shows_in_float64(setting: str) -> None:
    case = recorded_case("x2vlm_crossviewlm_xlmr_sharp")
    part = {"text": "text", "fusion": "cross"}[setting.split(".", maxsplit=1)[0]]
    changed = {**case.dims, part: {**case.dims[part], "layer_norm_eps": 2e-6}}
    built = CrossView().build(replace(case, dims=changed), torch.float64)
    computed = CrossView().run(built, case, "para_text", torch.float64)
    assert computed is not None
    findings = compare_outputs("para_text", "float64", case.outputs["float64"]["para_text"], computed.outputs, computed.masks)
    assert "mlm_logits" in {finding.name for finding in findings if not finding.passed}


def test_a_fixed_temperature_is_the_configured_one() -> None:
    case = recorded_case("cclm_pretrain_tlm")
    weights = {name: tensor for name, tensor in case.weights.items() if name != "temp"}
    model = CrossView().build(replace(case, weights=weights, base={**case.base, "temp": 0.1}), torch.float64).model
    assert model.get_parameter("temperature").item() == 0.1
    assert not model.get_parameter("temperature").requires_grad
