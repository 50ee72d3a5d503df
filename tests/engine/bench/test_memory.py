"""What a forward pass keeps, and the peak of a process."""

import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from engine.bench.memory import SavedBytes, peak_bytes


def test_saved_bytes_are_those_of_activations_each_once_and_no_weights() -> None:
    layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8, bias=False))
    saved = SavedBytes(layers)
    inputs = torch.ones(2, 4, requires_grad=True)
    with saved.counting():
        layers(inputs).sum().backward()
    assert saved.total == 4 * (2 * 4 + 2 * 8)  # the input; what the ReLU gives, which the second layer takes


def test_of_passes_that_are_differentiated_in_turn_the_one_that_keeps_most_counts() -> None:
    layer = nn.Linear(4, 4)
    saved = SavedBytes(layer)
    inputs = [torch.ones(rows, 4) for rows in (2, 8, 4)]
    with saved.counting():
        for rows in inputs:
            layer(rows).sum().backward()
    assert saved.total == inputs[1].nbytes


def test_peak_of_a_process_does_not_hold_that_of_the_one_which_started_it() -> None:
    ballast = torch.ones(400 * 2**20, dtype=torch.uint8)
    code = "import torch; from engine.bench.memory import peak_bytes; print(peak_bytes(torch.device('cpu')))"
    root = Path(__file__).parents[3]
    told = int(subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout)
    assert told < peak_bytes(torch.device("cpu")) - len(ballast) // 2
