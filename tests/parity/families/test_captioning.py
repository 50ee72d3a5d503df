"""Captions written by the recorded models, as texts."""

import pytest
import torch
from transformers import BertTokenizer

from parity.case import read_case
from parity.families.captioning import NAMES, Captions
from recorded import GOLDEN


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the recordings are not here")
@pytest.mark.parametrize(("name", "ids"), [("x2vlm_captioning", "beam_ids"), ("xvlm_captioning_swin", "gen_ids")])
def test_the_decoded_captions_are_the_recorded_ones(name: str, ids: str) -> None:
    case, family = read_case(GOLDEN / name), Captions()
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(case.recorded["config"]["vocab"])}, do_lower_case=True)
    built = family.build(case, torch.float32)
    assert case.recorded["extra"]
    for scenario, extra in case.recorded["extra"].items():
        computed = family.run(built, case, scenario, torch.float32)
        assert computed is not None
        texts = [str(tokenizer.decode(row, skip_special_tokens=True)) for row in computed.outputs[ids].tolist()]
        prompt = len(" ".join(NAMES[1:])) + 1 if ids == "gen_ids" else 0
        assert [text[prompt:].strip() for text in texts] == [text.strip() for text in extra["f32"]["captions"]]
