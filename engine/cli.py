"""The command line of run.py. Slow libraries are imported by the commands that need them, so that help and lists come at once."""

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from common.errors import UserError
from engine.launch import ROOT, TASKS, Entry, Parser, Start, add_config_options, add_start_options, guard, run_task
from engine.launch.plan import add_plan_options, make_plan
from engine.launch.sbatch import add_job_options, job_of, sbatch_file

PUBLISHED = "configs/published"
USAGE = """python run.py --task TASK --config FILE --output_dir DIR [--set KEY=VALUE ...] [--nproc N] [--max-restarts N]
                     [--nnodes N --rdzv HOST:PORT]
       python run.py sbatch --task TASK --config FILE --output_dir DIR --nodes N --gpus N [--set KEY=VALUE ...] [--out FILE]
       python run.py config|validate --config FILE [--set KEY=VALUE ...]
       python run.py bench --config FILE [--stages [MEASURE]] [--compare KEY=A,B ...] [--set KEY=VALUE ...]
       python run.py plan --config FILE --memory 80G [--gpus N] [--mfu SHARE] [--device NAME] [--set KEY=VALUE ...] [--out FILE]
       python run.py schema [--out FILE]
       python run.py report RUN_DIR ... [--all] [--markdown]
       python run.py list"""


def main(arguments: Sequence[str] | None = None, tasks: Mapping[str, Entry] = TASKS, root: Path = ROOT) -> int:
    """Run one command.

    Args:
        arguments: the command line without the program; None takes the process's own.
        tasks: what can be started, by name.
        root: the folder that holds configs/.

    Returns:
        The exit code, see `engine.launch`.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    return guard(lambda: _dispatch(given, tasks, root))


def _dispatch(given: list[str], tasks: Mapping[str, Entry], root: Path) -> int:
    commands: dict[str, Callable[[list[str], Mapping[str, Entry], Path], int]] = {
        "config": _config,
        "validate": _validate,
        "bench": _bench,
        "plan": _plan,
        "schema": _schema,
        "sbatch": _sbatch,
        "report": _report,
        "list": _list,
    }
    if not given or given[0].startswith("-"):
        return _train(given, tasks, root)
    if given[0] not in commands:
        raise UserError(f"run.py: {given[0]} is not a command; it is one of {', '.join(commands)}.{_hint(given[0], commands)}")
    return commands[given[0]](given[1:], tasks, root)


def _train(given: list[str], tasks: Mapping[str, Entry], root: Path) -> int:
    parser = Parser(prog="run.py", usage=USAGE, description="Train and evaluate a task.", allow_abbrev=False)
    add_plan_options(parser)
    options, start = _start(parser, given, tasks, root)
    return run_task(tasks[start.task], start, make_plan(options))


def _start(parser: Parser, given: list[str], tasks: Mapping[str, Entry], root: Path) -> tuple[Namespace, Start]:
    parser.add_argument("--task", required=True, metavar="TASK", help=f"one of {', '.join(tasks)}")
    add_start_options(parser)
    options = parser.parse(given)
    if options.task not in tasks:
        raise UserError(f"--task {options.task}: not a task; it is one of {', '.join(tasks)}.{_hint(options.task, tasks)}")
    _find(options.config, root)
    return options, Start(options.task, options.config, options.output_dir, options.overrides)


def _sbatch(given: list[str], tasks: Mapping[str, Entry], root: Path) -> int:
    parser = Parser(prog="run.py sbatch", description="Write a batch file for SLURM.", allow_abbrev=False)
    add_job_options(parser)
    options, start = _start(parser, given, tasks, root)
    _write(sbatch_file(job_of(options), start), options.out)
    return 0


def _config(given: list[str], tasks: Mapping[str, Entry], root: Path) -> int:
    from engine.config.loader import load_config
    from engine.config.render import config_yaml

    options = _config_parser("config", "Print the resolved config: every setting, and the files it came from.", tasks).parse(given)
    loaded = load_config(_find(options.config, root), options.overrides, options.task)
    print(config_yaml(loaded.config, loaded), end="")
    return 0


def _validate(given: list[str], tasks: Mapping[str, Entry], root: Path) -> int:
    parser = _config_parser("validate", "Check a config and everything it points at, without training.", tasks)
    parser.add_argument("--nproc", type=int, default=1, metavar="N", help="processes that the run would have (default 1)")
    options = parser.parse(given)
    from engine.config.loader import load_config
    from engine.config.validate import validate_run

    loaded = load_config(_find(options.config, root), options.overrides, options.task)
    for line in validate_run(loaded.config, options.nproc):
        print(line)
    return 0


def _bench(given: list[str], tasks: Mapping[str, Entry], root: Path) -> int:
    from engine.bench.command import bench

    print(bench(given, list(tasks), lambda config: _find(config, root)))
    return 0


def _plan(given: list[str], tasks: Mapping[str, Entry], root: Path) -> int:
    from engine.planning.command import plan

    print(plan(given, list(tasks), lambda config: _find(config, root)))
    return 0


def _schema(given: list[str], tasks: Mapping[str, Entry], root: Path) -> int:
    parser = Parser(prog="run.py schema", description="Write the JSON Schema of config files, for editors.", allow_abbrev=False)
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: standard output")
    options = parser.parse(given)
    from engine.config.render import json_schema

    _write(json.dumps(json_schema(), indent=2) + "\n", options.out)
    return 0


def _report(given: list[str], tasks: Mapping[str, Entry], root: Path) -> int:
    parser = Parser(prog="run.py report", description="Finished runs beside the published numbers they repeat.", allow_abbrev=False)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN_DIR", help="output folders of finished runs")
    parser.add_argument("--all", action="store_true", help="also published numbers that no run repeats")
    parser.add_argument("--markdown", action="store_true", help="tables in Markdown")
    options = parser.parse(given)
    from engine.reporting import LEGEND, report_tables
    from evaluation.tables import markdown, plain_text

    if not options.runs and not options.all:
        raise UserError("run.py report: name the folders of finished runs, or --all for the published numbers alone.")
    for title, table in report_tables(options.runs, root / PUBLISHED, options.all):
        print(f"{title}\n\n{(markdown if options.markdown else plain_text)(table)}\n")
    print(LEGEND)
    return 0


def _write(text: str, out: Path | None) -> None:
    if out is None:
        print(text, end="")
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error.strerror}.") from error


def _list(given: list[str], tasks: Mapping[str, Entry], root: Path) -> int:
    Parser(prog="run.py list", description="Show tasks and recipes.", allow_abbrev=False).parse(given)
    print("Tasks")
    for name, entry in tasks.items():
        print(f"  {name:<14} {entry.summary}")
    print("Recipes")
    names = [(str(file.relative_to(root)), _headline(file)) for file in recipes(root)]
    width = max((len(name) for name, _ in names), default=0)
    for name, headline in names:
        print(f"  {name:<{width}}  {headline}".rstrip())
    return 0


def recipes(root: Path) -> list[Path]:
    """All config files of the project; published numbers are none."""
    return sorted(file for file in (root / "configs").rglob("*.yaml") if file.parent != root / PUBLISHED)


def _headline(file: Path) -> str:
    """The first comment line of a recipe."""
    with file.open(encoding="utf-8") as lines:
        return next((line.lstrip("# ").strip() for line in lines if line.startswith("#") and line.strip("# \n")), "")


def _config_parser(name: str, description: str, tasks: Mapping[str, Entry]) -> Parser:
    parser = Parser(prog=f"run.py {name}", description=description, allow_abbrev=False)
    add_config_options(parser, tasks)
    return parser


def _find(config: Path, root: Path) -> Path:
    """The config itself, or an error that names the recipe most like it."""
    if config.is_file():
        return config
    known = [str(file.relative_to(root)) for file in recipes(root)]
    by_name = [name for name in known if Path(name).stem == config.stem]
    hint = f" Did you mean {by_name[0]}?" if by_name else _hint(str(config), known)
    reason = "is a folder" if config.is_dir() else "no such file"
    raise UserError(f"--config {config}: {reason}.{hint or ' See run.py list.'}")


def _hint(word: str, known: Mapping[str, object] | Sequence[str]) -> str:
    near = get_close_matches(word, list(known), n=1)
    return f" Did you mean {near[0]}?" if near else ""
