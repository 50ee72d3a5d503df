"""`run.py report`: finished runs beside the published numbers that they repeat."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from common.errors import UserError
from evaluation.published import UNVERIFIED, FinishedRun, PublishedNumber, comparison, other_runs, read_published
from evaluation.tables import MISSING, Table, read_result

COMMIT_LENGTH = 10


def read_run(folder: Path) -> FinishedRun:
    """What a finished run says of itself: metrics.json, config.yaml and environment.json.

    Raises:
        UserError: the folder holds no finished run.
    """
    result = read_result(folder)
    if result.metrics is None:
        raise UserError(f"{folder}: holds no finished run, it has no metrics.json.")
    config = _content(folder / "config.yaml", YAML(typ="safe").load)
    environment = _content(folder / "environment.json", json.loads)
    repeats = (config.get("report") or {}).get("published") or {}
    git = environment.get("git") or {}
    commit = str(git.get("commit", MISSING))[:COMMIT_LENGTH] + (" (changed)" if git.get("changed") else "")
    about = {key: None if repeats.get(key) is None else str(repeats[key]) for key in ("paper", "model", "data", "task")}
    return FinishedRun(
        str(folder),
        result.metrics,
        **about,
        names=repeats.get("metrics") or {},
        checkpoint=str((config.get("initialize") or {}).get("checkpoint") or MISSING),
        config=_config_file(environment.get("command") or []),
        commit=commit,
        seed=str(config.get("seed", MISSING)),
    )


def report_tables(run_dirs: Sequence[Path], published: Path, everything: bool = False) -> list[tuple[str, Table]]:
    """Titles and tables: one for each paper of which there is something to show, then runs that repeat no published number.

    Args:
        run_dirs: output folders of finished runs.
        published: the folder of published numbers.
        everything: also published numbers that no run repeats.

    Raises:
        UserError: a folder holds no finished run, or a file of published numbers is malformed.
    """
    runs = [read_run(folder) for folder in run_dirs]
    papers = read_published(published)
    tables = [(f"{name}: {title}", comparison(numbers, runs, everything)) for name, (title, numbers) in papers.items()]
    numbers: list[PublishedNumber] = [number for _, found in papers.values() for number in found]
    tables.append(("runs that repeat no published number", other_runs(runs, numbers)))
    return [(title, table) for title, table in tables if table.rows]


LEGEND = f"A ? marks a published number that is {UNVERIFIED}: remembered, seen in no document."


def _content(file: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    """A file's mapping; empty where it is missing or not readable, which a result need not fail for."""
    try:
        content = parse(file.read_text(encoding="utf-8"))
    except Exception:  # parsers raise errors of their own
        return {}
    return content if isinstance(content, dict) else {}


def _config_file(command: list[str]) -> str:
    """The file named by --config in a command line."""
    for place, word in enumerate(command):
        if word == "--config" and place + 1 < len(command):
            return command[place + 1]
        if word.startswith("--config="):
            return word.split("=", 1)[1]
    return MISSING
