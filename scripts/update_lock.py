"""Write requirements.lock anew: `python3.11 scripts/update_lock.py PYTHON3.10` (two minutes; needs the package registry).

Installs setup.py's requirements and its `dev` extra into a clean environment, torch first, and writes down what came. Python 3.10
cannot have the newest of every package, so what its pip would choose is asked for as well and the lines that differ carry a marker.
(pip's own --python-version will not do for that: it still reads requirement markers as the running version does.)
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TORCH = ("torch==2.13.0", "torchvision==0.28.0")
"""These two belong together and are chosen by hand; everything else is the newest that fits."""

HEADER = """\
# Exact versions of everything that scripts/setup_env.sh installs: setup.py's requirements and its `dev` extra.
# Made by `python3.11 scripts/update_lock.py PYTHON3.10` from clean environments; edit setup.py and run it again rather than editing here.
# torch's own CUDA packages are left to torch, which pins them itself, so that the same lock serves its CPU and its CUDA builds.
"""
TORCH_BUILD = re.compile(r"^(nvidia-|cuda-|triton$)")

READ_REQUIREMENTS = """
import importlib.metadata
from packaging.requirements import Requirement
for line in importlib.metadata.requires("multigrain"):
    requirement = Requirement(line)
    if requirement.marker is None or requirement.marker.evaluate({"extra": "dev"}):
        requirement.marker = None
        print(requirement)
"""


def normalized(name: str) -> str:
    """A distribution's name in the one spelling that compares equal (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def python(executable: Path, *arguments: str) -> str:
    """Run one Python command to its end and return what it printed; CalledProcessError if it fails."""
    return subprocess.run([str(executable), *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def installed_here(executable: Path) -> dict[str, str]:
    """Install everything into the clean environment and return {name: version}, without local build tags such as +cpu."""
    constraints = executable.parent / "constraints.txt"
    constraints.write_text("\n".join(TORCH))
    pip = ("-m", "pip", "install", "--quiet", "--constraint", str(constraints))
    python(executable, *pip, TORCH[0])
    python(executable, *pip, f"{ROOT}[dev]")
    rows = json.loads(python(executable, "-m", "pip", "list", "--format", "json"))
    return {row["name"]: row["version"].split("+")[0] for row in rows if row["name"] not in ("pip", "multigrain")}


def resolved_for(executable: Path, requirements: str, folder: Path) -> dict[str, str]:
    """Ask this Python's pip, without installing anything, what it would choose: {name: version}."""
    report, wanted = folder / "report.json", folder / "wanted.txt"
    wanted.write_text("\n".join([*TORCH, requirements]))
    python(executable, "-m", "pip", "install", "--quiet", "--upgrade", "pip")  # older ones download every wheel to look into it
    options = ("--dry-run", "--ignore-installed", "--report", str(report))
    python(executable, "-m", "pip", "install", "--quiet", *options, "-r", str(wanted))
    rows = [row["metadata"] for row in json.loads(report.read_text())["install"]]
    return {row["name"]: row["version"].split("+")[0] for row in rows if not TORCH_BUILD.match(row["name"])}


def lock_lines(newer: dict[str, str], older: dict[str, str]) -> list[str]:
    """One line a package; two with markers where Python 3.10 needs another version."""
    new, old = ({normalized(name): version for name, version in pins.items()} for pins in (newer, older))
    lines = []
    for name in sorted({*new, *old}):
        if new.get(name) == old.get(name):
            lines.append(f"{name}=={new[name]}")
            continue
        if name in new:
            lines.append(f'{name}=={new[name]} ; python_version >= "3.11"')
        if name in old:
            lines.append(f'{name}=={old[name]} ; python_version < "3.11"')
    return lines


def main() -> None:
    """Make the two environments, ask, compare, write."""
    if sys.version_info[:2] != (3, 11) or len(sys.argv) != 2:
        sys.exit(f"usage: python3.11 {sys.argv[0]} PYTHON3.10   (the second one is the path of a Python 3.10)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for python_of, environment in ((sys.executable, "newer"), (sys.argv[1], "older")):
            python(Path(python_of), "-m", "venv", str(folder / environment))
        newer, older = (folder / environment / "bin" / "python" for environment in ("newer", "older"))
        installed = installed_here(newer)
        lines = lock_lines(installed, resolved_for(older, python(newer, "-c", READ_REQUIREMENTS), folder))
    (ROOT / "requirements.lock").write_text(HEADER + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
