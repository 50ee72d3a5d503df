"""Recorded classes with a classification head: that the comparison would show a wrong model."""

from dataclasses import replace

import torch

from parity.check import check_case, check_scenario
from parity.families.classification import Classifications
from recorded import recorded_case, recorded_folder


def test_every_tensor_of_mvps_entailment_is_met() -> None:
    report = check_case(recorded_folder("mvp_ve"))
    assert report.status == "passed" and not report.uncovered
    assert {"logits", "pooled", "sim_mat"} <= {finding.name for finding in report.findings}


def test_images_in_the_other_order_would_show() -> None:
    case = recorded_case("xvlm_nlvr_swin_sharp")
    images = case.inputs["train"]["image"]
    swapped = {"train": {**case.inputs["train"], "image": torch.cat(images.chunk(2)[::-1])}}
    built = Classifications().build(case, torch.float64)
    findings = check_scenario(Classifications(), built, replace(case, inputs=swapped), "train", "float64")
    assert findings is not None
    assert "logits" in {finding.name for finding in findings if not finding.passed}
