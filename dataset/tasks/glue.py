"""GLUE's tasks (arXiv 1804.07461): the official files, or what Hugging Face's `datasets` saved of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.labels import IGNORED
from common.scores import Score
from dataset.tasks.labelled import LabelledRecord
from dataset.tasks.sources_config import GlueSource

Column = int | str
"""By its number in files without a header, else by its name."""
ENTAILMENT = ("entailment", "not_entailment")


@dataclass(frozen=True)
class GlueTask:
    """One task."""

    folder: str
    """Of the official files; predictions of the test set are called like it."""
    texts: tuple[Column, ...]
    """Columns of one text, or of two."""
    saved_texts: tuple[str, ...]
    """How `datasets` calls them."""
    label: Column
    labels: tuple[str, ...]
    """In the order of the classes; none where a number is learned."""
    metrics: tuple[Score, ...]
    headless: bool = False
    """train and dev have no header."""


BINARY = ("0", "1")
PAIR = ("sentence1", "sentence2")
TASKS: dict[str, GlueTask] = {
    "cola": GlueTask("CoLA", (3,), ("sentence",), 1, BINARY, ("matthews",), headless=True),
    "sst2": GlueTask("SST-2", ("sentence",), ("sentence",), "label", BINARY, ("acc",)),
    "mrpc": GlueTask("MRPC", ("#1 String", "#2 String"), PAIR, "Quality", BINARY, ("acc", "f1")),
    "stsb": GlueTask("STS-B", PAIR, PAIR, "score", (), ("pearson", "spearman")),
    "qqp": GlueTask("QQP", ("question1", "question2"), ("question1", "question2"), "is_duplicate", BINARY, ("acc", "f1")),
    "mnli": GlueTask("MNLI", PAIR, ("premise", "hypothesis"), "gold_label", ("entailment", "neutral", "contradiction"), ("acc",)),
    "qnli": GlueTask("QNLI", ("question", "sentence"), ("question", "sentence"), "label", ENTAILMENT, ("acc",)),
    "rte": GlueTask("RTE", PAIR, PAIR, "label", ENTAILMENT, ("acc",)),
}
"""By `GlueSource.task`. The first metric chooses the best weights."""
MNLI_SPLITS = {"dev": "dev_matched", "test": "test_matched", "validation": "validation_matched"}


def glue_records(source: GlueSource, split: str) -> list[LabelledRecord]:
    """The records of a split; those of secret labels have IGNORED.

    Args:
        source: which task, and where it is.
        split: train, validation, test (of MNLI the matched ones), or the name of another file: dev_mismatched, test_mismatched.

    Raises:
        UserError: the file is missing, or not of the official form.
    """
    return _saved(source, split) if source.layout == "datasets" else _official(source, split)


def official_file(source: GlueSource, split: str) -> Path:
    """The official file of a split."""
    name = {"validation": "dev"}.get(split, split)
    return Path(source.root) / TASKS[source.task].folder / f"{MNLI_SPLITS.get(name, name) if source.task == 'mnli' else name}.tsv"


def submission_name(task: str, split: str) -> str:
    """What GLUE's server wants a file of predictions to be called, without its ending."""
    return TASKS[task].folder + ({True: "-mm", False: "-m"}["mismatched" in split] if task == "mnli" else "")


def _official(source: GlueSource, split: str) -> list[LabelledRecord]:
    task, file = TASKS[source.task], official_file(source, split)
    try:
        lines = file.read_text(encoding="utf-8").split("\n")  # not splitlines, which breaks texts at rare separators
    except FileNotFoundError as error:
        raise UserError(f"{file} does not exist. Put the official files of {task.folder} there, or correct data.source.root.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({error}).") from error
    rows = [(number, line.rstrip("\r").split("\t")) for number, line in enumerate(lines, 1) if line.strip()]
    headless = task.headless and split != "test"
    header = [] if headless or not rows else rows.pop(0)[1]
    texts: tuple[Column, ...] = ("sentence",) if task.headless and not headless else task.texts
    places = [_place(file, header, column) for column in texts]
    secret = split.startswith("test")
    label = None if secret else _place(file, header, task.label)
    index = header.index("index") if "index" in header else header.index("id") if "id" in header and secret else None
    records = []
    for order, (number, cells) in enumerate(rows):
        where = f"{file}, line {number}"
        if max([*places, label or 0]) >= len(cells):
            raise UserError(f"{where}: {len(cells)} columns; the official files have more.")
        found = [cells[place] for place in places]
        value = IGNORED if label is None else _label(where, task, cells[label])
        key = cells[index] if secret and index is not None else str(order)
        records.append(LabelledRecord(where, (), found[0], value, key, second=found[1] if len(found) > 1 else None))
    return records


def _place(file: Path, header: list[str], column: Column) -> int:
    if isinstance(column, int):
        return column
    if column not in header:
        raise UserError(f"{file}: no column {column} in its first line, which has {', '.join(header)}.")
    return header.index(column)


def _label(where: str, task: GlueTask, text: str) -> int | float:
    if task.labels:
        if text not in task.labels:
            raise UserError(f"{where}: the label is {text!r}; it is one of {', '.join(task.labels)}.")
        return task.labels.index(text)
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"{where}: the score is {text!r}, which is no number.") from error


def _saved(source: GlueSource, split: str) -> list[LabelledRecord]:
    """What `datasets.load_from_disk` finds; its class numbers are in the order of `GlueTask.labels`."""
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError("data.source.layout is datasets, but that package is not installed: pip install datasets.") from error
    task, folder = TASKS[source.task], Path(source.root) / source.task
    name = split.replace("dev", "validation")
    name = MNLI_SPLITS.get(name, name) if source.task == "mnli" else name
    try:
        rows: Any = datasets.load_from_disk(str(folder))[name]
    except (FileNotFoundError, KeyError) as error:
        raise UserError(f"data.source: {folder} holds no split {name} that datasets saved.") from error
    secret = split.startswith("test")
    records = []
    for order, row in enumerate(rows):
        found = [row[column] for column in task.saved_texts]
        label = IGNORED if secret else row["label"] if task.labels else float(row["label"])
        where, key = f"{folder}, {name} {order}", str(row.get("idx", order)) if secret else str(order)
        records.append(LabelledRecord(where, (), found[0], label, key, second=found[1] if len(found) > 1 else None))
    return records
