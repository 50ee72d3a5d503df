"""Every promise of docs/reliability.md names a test that is there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_test_that_a_promise_names_exists() -> None:
    page = (ROOT / "docs/reliability.md").read_text()
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", page)
    assert len(named) > 40
    for file, function in named:
        tree = ast.parse((ROOT / "tests" / file).read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{file}::{function}"


def test_every_row_of_a_promise_names_a_test() -> None:
    rows = [line for line in (ROOT / "docs/reliability.md").read_text().split("## By command")[0].splitlines() if line.startswith("| ")]
    promises = [row for row in rows if not row.startswith(("| what happens", "|---"))]
    assert all("::" in row for row in promises)
