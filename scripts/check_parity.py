"""Compare this project with tensors recorded from the official code.

    python scripts/check_parity.py ../shared/golden            # every case in a folder
    python scripts/check_parity.py my_case --verbose           # one, parameter by parameter

Prints, for each case, scenario and output tensor, the largest relative error in float32 and in float64, and the same of gradient norms.
(Relative to the element, or to the tensor's mean size where the element is smaller.) An output that was recorded and is not computed is a
failure. Classes that this project does not have yet are listed as not covered: they neither pass nor fail.

Exit status: 0 nothing failed, 1 something is over its tolerance or missing, 2 wrong arguments.
Tolerances: float32 5e-5 + 1e-5 of the element, losses 5e-6; float64 1e-9; gradient norms 1e-4 of the norm; whole numbers none.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script finds the project wherever it is started

from common.compat import ensure_torchvision
from common.scripts import run_script

LAYOUT = """how to record a case: one folder, whose name means nothing, with

  config.json           repo and official_class of the official code; config.base, its config; config.dims, the sizes of its encoders as it
                        read them; tied_parameters {alias: name}; input_aliases {scenario/argument: scenario/argument stored once};
                        scenarios {name: {inputs: arguments that are no tensors}}
  weights.safetensors   the official state_dict() in float32, derived buffers included
  inputs.safetensors    scenario/argument, the arguments of the official forward
  outputs.safetensors   scenario/name, what a float32 run gave; losses are loss_..., their plain sum loss_total
  outputs_f64.safetensors   the same of model.double() on the same numbers
  grads.json            {scenario: {f32, f64: {module_norm, param_norm, no_grad_params}}} of loss_total.backward()

Seed torch, fill the weights with numbers large enough that every part matters, call model.eval() so that dropout is off, and keep gradients
on. Replace the random draw of hard negatives by the argmax of the same weights, and store the picks as neg_image_idx and neg_text_idx.
docs/parity.md has all names of arguments and outputs, and the layouts of optimiser trajectories and of examples of functions.
"""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=LAYOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", type=Path, metavar="CASE_DIR", help="a recorded case, or a folder of them")
    parser.add_argument("--verbose", action="store_true", help="a row for every parameter, absolute errors, and shares of the tolerance")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> bool:
    """Compare all cases; True if none failed."""
    ensure_torchvision()  # before transformers and timm are imported, which --help does without
    from transformers.utils.logging import disable_progress_bar

    from parity.check import check_cases, find_cases
    from parity.report import CaseReport, lines, summary

    disable_progress_bar()
    reports: list[CaseReport] = []
    for report in check_cases(find_cases(options.cases)):
        print("\n".join(lines(report, options.verbose)), flush=True)
        reports.append(report)
    print("\n".join(["", *summary(reports)]))
    return all(report.status != "failed" for report in reports)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.verbose:
        logging.getLogger("parity").setLevel(logging.DEBUG)  # tracebacks of cases that could not be computed
    passed: list[bool] = []
    status = run_script(lambda: passed.append(run(options)))
    return status or (0 if all(passed) else 1)


if __name__ == "__main__":
    sys.exit(main())
