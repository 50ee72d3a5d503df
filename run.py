"""The launcher. `python run.py --help` shows what it can do, `python run.py list` the tasks and recipes."""

import sys

from engine.cli import main

if __name__ == "__main__":
    sys.exit(main())
