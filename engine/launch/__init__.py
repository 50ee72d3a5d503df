"""Starting a task: in this process, in several of this machine, on several nodes, under SLURM (docs/launching.md)."""

from engine.launch.entry import ROOT, TASKS, Entry, Parser, Start, add_config_options, add_start_options, launch, run_task
from engine.launch.outcome import guard

__all__ = [
    "ROOT",
    "TASKS",
    "Entry",
    "Parser",
    "Start",
    "add_config_options",
    "add_start_options",
    "guard",
    "launch",
    "run_task",
]
