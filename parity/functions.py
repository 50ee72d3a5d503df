"""Recorded examples of pure functions beside this project's own."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from dataset.boxes import patch_mask
from dataset.text import EmptyCaption, Punctuation, pre_caption, pre_question
from dataset.video import sample_frame_ids
from engine.schedule import linear_factor
from evaluation.retrieval import recall_metrics
from parity.compare import Finding, Tolerance, compare_number, exactly
from parity.layers import check_layers, is_layer_mapping
from parity.mappings import check_mappings
from parity.tables import check_tensors
from parity.training import schedule_settings

Examples = list[dict[str, Any]]
Check = Callable[[str, Any, Mapping[str, Tensor]], list[Finding]]
NUMBERS = Tolerance(1e-12, 1e-12)


@dataclass(frozen=True)
class Rules:
    """In what the official repositories differ."""

    punctuation: Punctuation
    floor: bool
    """Whether the schedule knows a lowest rate; where it does not, a recorded one has no effect."""


REPOSITORIES = {"X2-VLM, CCLM": Rules("space", floor=True), "X-VLM": Rules("delete", floor=False), "X-FM": Rules("space", floor=False)}


def is_functions(folder: Path) -> bool:
    """Whether a folder holds examples of functions."""
    return (folder / "functions.json").is_file()


def check_functions(folder: Path) -> tuple[list[Finding], list[str]]:
    """Compare all examples of a folder; returns also the names of functions that are not covered."""
    recorded = json.loads((folder / "functions.json").read_text())
    file = folder / "tensors.safetensors"
    tensors = load_file(file) if file.is_file() else {}
    findings: list[Finding] = []
    uncovered: list[str] = []
    for name, examples in recorded.items():
        if name in CHECKS:
            findings += CHECKS[name](name, examples, tensors)
        elif name in RULED:
            continue
        elif is_layer_mapping(name):
            findings += check_layers(name, examples)
        else:
            uncovered.append(name)
    findings += _by_the_rules(recorded)
    used = tuple(f"{entry['tensors']}/" for entry in recorded.get("itm_eval", []))  # those are inputs of another function
    compared, unknown = check_tensors({name: value for name, value in tensors.items() if not name.startswith(used)})
    mapping = folder / "checkpoint_mapping.json"
    mapped, foreign = check_mappings(json.loads(mapping.read_text())) if mapping.is_file() else ([], [])
    return [*findings, *compared, *mapped], [*uncovered, *unknown, *foreign]


def _patch_masks(name: str, examples: Examples, tensors: Mapping[str, Tensor]) -> list[Finding]:
    findings = []
    for example in examples:
        x, y, w, h = example["box_xywh"]
        mask = patch_mask((x, y, w, h), example["image_res"], example["patch_size"])
        ours = [0, *(1 + np.flatnonzero(mask)).tolist()]  # the recording counts the global token, which is always seen
        findings.append(exactly("functions", name, (example["ones"], example["length"]), (ours, 1 + len(mask))))
    return findings


def _by_the_rules(recorded: Mapping[str, Examples]) -> list[Finding]:
    """Compare what depends on the repository. A recording does not say which it is from: the one that explains most is meant, and must
    explain all."""
    candidates = [
        [finding for name, check in RULED.items() if name in recorded for finding in check(name, recorded[name], rules)]
        for rules in REPOSITORIES.values()
    ]
    return min(candidates, key=lambda findings: sum(not finding.passed for finding in findings))


def _captions(name: str, examples: Examples, rules: Rules) -> list[Finding]:
    return [exactly("functions", name, item["out"], pre_caption(item["text"], item["max_words"], rules.punctuation)) for item in examples]


def _questions(name: str, examples: Examples, rules: Rules) -> list[Finding]:
    return [exactly("functions", name, item["out"], pre_question(item["text"], item["max_words"], rules.punctuation)) for item in examples]


def _empty_caption(name: str, error: str, tensors: Mapping[str, Tensor]) -> list[Finding]:
    try:
        ours = repr(pre_caption("", 30))
    except EmptyCaption as raised:
        ours = [kind.__name__ for kind in type(raised).__mro__]
    return [exactly("functions", name, True, error in ours)]


def _frames(name: str, examples: Examples, tensors: Mapping[str, Tensor]) -> list[Finding]:
    return [exactly("functions", name, item["out"], sample_frame_ids(item["num_frames"], item["num_segments"])) for item in examples]


def _schedules(name: str, examples: Examples, rules: Rules) -> list[Finding]:
    findings = []
    for example in examples:
        schedule = schedule_settings(example["config"], 1.0)
        total, floor = schedule.steps or 0, schedule.min_lr if rules.floor else 0.0
        findings += [
            compare_number("functions", name, "", factor, linear_factor(step, total, schedule.warmup(total), floor), NUMBERS)
            for step, factor in enumerate(example["factor_at_step"])
        ]
    return findings


def _recalls(name: str, examples: Examples, tensors: Mapping[str, Tensor]) -> list[Finding]:
    """Officially retrieved texts are `txt`, images `img`; ours are named tr and ir as in the papers' tables."""
    findings = []
    for example in examples:
        scores = [tensors[f"{example['tensors']}/{way}"].numpy() for way in ("i2t", "t2i")]
        ours = recall_metrics(scores[0], scores[1], example["txt2img"])
        for key, value in example["out"].items():
            own = key.replace("txt_", "tr_").replace("img_", "ir_").replace("_r_mean", "_mean")
            findings.append(compare_number("functions", name, "", value, ours.get(own), NUMBERS))
    return findings


CHECKS: dict[str, Check] = {
    "get_image_attns": _patch_masks,
    "pre_caption_empty": _empty_caption,
    "sample_frame_ids_eval": _frames,
    "itm_eval": _recalls,
}
RULED: dict[str, Callable[[str, Examples, Rules], list[Finding]]] = {"pre_caption": _captions, "pre_question": _questions, "lr": _schedules}
