"""Retrieval's recorded evaluations: the same order of candidates and the same recalls, by the code that ranks."""

import pytest
import torch

from evaluation.retrieval import recall_metrics
from models.vlm import VisionLanguageModel
from parity.families.retrieval import RetrievalTuning, evaluated
from recorded import recorded_case

SHORT = {"float32": "f32", "float64": "f64"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["x2vlm_retrieval", "x2vlm_plus_retrieval_xlmr"])
def test_rankings_and_recalls_are_those_of_the_official_evaluation(name: str, dtype: str) -> None:
    case = recorded_case(name)
    model = RetrievalTuning().build(case, getattr(torch, dtype)).model
    assert isinstance(model, VisionLanguageModel)
    ours, recorded = evaluated(model, case, getattr(torch, dtype)), case.outputs[dtype]["eval"]
    for scores in ("score_i2t", "score_t2i"):
        assert torch.equal(ours[scores].argsort(descending=True, stable=True), recorded[scores].argsort(descending=True, stable=True))
    captions = case.recorded["config"]["img2txt"]
    owner = [next(int(image) for image, texts in captions.items() if text in texts) for text in range(len(recorded["score_t2i"]))]
    found = recall_metrics(ours["score_i2t"].numpy(), ours["score_t2i"].numpy(), owner)
    official = case.recorded["extra"]["eval"][SHORT[dtype]]["itm_eval"]
    for name_of, value in official.items():
        short = name_of.replace("txt_r_mean", "tr_mean").replace("img_r_mean", "ir_mean").replace("txt", "tr").replace("img", "ir")
        # the order among candidates that were not ranked again is chance there, ours counts them against the model
        assert found[short] <= value + 1e-9
        if short in ("tr_r1", "ir_r1"):
            assert found[short] == pytest.approx(value)
