"""What installation promises: the lock, setup.py and the imports agree, and the scripts parse."""

import ast
import os
import re
import runpy
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]

IMPORT_NAMES = {
    "pillow": "PIL",
    "opencv-python-headless": "cv2",
    "ruamel-yaml": "ruamel",
    "pytest-timeout": "pytest_timeout",
    "pytest-xdist": "xdist",
}
"""Distribution -> imported module, where the two differ in more than a hyphen."""

NOT_IN_REGISTRY = {"apex"}
"""Imported only where a user has built it; the registry's package of that name is another thing, so setup.py must not name it."""

BUILD_ONLY = {"setuptools"}
PARTS = {"pydantic_core": "pydantic"}
"""Modules that come with a declared distribution, which pins them exactly."""


@cache
def setup_arguments() -> dict[str, Any]:
    """What setup.py hands to setuptools."""
    found: dict[str, Any] = {}
    folder, original = Path.cwd(), setuptools.setup
    setuptools.setup = lambda **arguments: found.update(arguments)
    os.chdir(ROOT)
    try:
        runpy.run_path(str(ROOT / "setup.py"))
    finally:
        setuptools.setup = original
        os.chdir(folder)
    return found


def declared(*extras: str) -> dict[str, Requirement]:
    """Distribution name -> requirement: the core ones and those of the named extras."""
    lines = [*setup_arguments()["install_requires"]]
    for extra in extras:
        lines += setup_arguments()["extras_require"][extra]
    return {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, lines)}


def lock_requirements() -> list[Requirement]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def pins(python: str) -> dict[str, str]:
    """Distribution name -> the version that this Python version is given."""
    chosen = [r for r in lock_requirements() if r.marker is None or r.marker.evaluate({"python_version": python})]
    return {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in chosen}


def sources(*places: str) -> list[Path]:
    files: list[Path] = []
    for place in places:
        path = ROOT / place
        files += [path] if path.is_file() else sorted(path.rglob("*.py"))
    return files


def imported_names(node: ast.AST) -> list[str]:
    """The absolute dotted names one statement or call imports; `importlib.import_module("name")` counts."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return [node.module]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "import_module":
        return [argument.value for argument in node.args if isinstance(argument, ast.Constant) and isinstance(argument.value, str)]
    return []


def imported(*places: str) -> dict[str, str]:
    """Top-level third-party module -> one file that imports it (`torch.utils.tensorboard` counts as tensorboard too)."""
    local = {path.stem for path in [*ROOT.iterdir(), *(ROOT / "scripts").glob("*.py"), *(ROOT / "tests/support").glob("*.py")]}
    found: dict[str, str] = {}
    for path in sources(*places):
        for node in ast.walk(ast.parse(path.read_text())):
            for name in imported_names(node):
                found.setdefault(name.split(".")[0], str(path.relative_to(ROOT)))
                if name.startswith("torch.utils.tensorboard"):
                    found.setdefault("tensorboard", str(path.relative_to(ROOT)))
    return {name: path for name, path in found.items() if name not in local and name not in sys.stdlib_module_names}


def module_of(distribution: str) -> str:
    return IMPORT_NAMES.get(distribution, distribution.replace("-", "_"))


def shipped() -> list[str]:
    """Everything that is installed or run: packages, entry scripts and scripts/."""
    packages = {name.split(".")[0] for name in setup_arguments()["packages"]}
    return [*sorted(packages), *(f"{name}.py" for name in setup_arguments()["py_modules"]), "scripts"]


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.13"])
def test_lock_pins_every_requirement_to_a_version_its_range_admits(python):
    chosen = pins(python)
    for name, requirement in declared("dev").items():
        assert name in chosen, f"{name} is not in requirements.lock for Python {python}: run scripts/update_lock.py"
        assert requirement.specifier.contains(chosen[name]), f"setup.py asks for {requirement}, the lock has {chosen[name]}"


def test_lock_holds_plain_exact_versions_once_each():
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    plain = re.compile(r'[a-z0-9-]+==[0-9][0-9a-z.]*( ; python_version (>=|<) "3\.11")?')
    assert [line for line in lines if not plain.fullmatch(line)] == []  # no address, no path, no build tag such as +cpu
    for python in ("3.10", "3.11"):
        names = [r.name for r in lock_requirements() if r.marker is None or r.marker.evaluate({"python_version": python})]
        assert len(names) == len(set(names))


def test_lock_leaves_the_build_of_torch_open():
    assert pins("3.11")["torch"] == "2.13.0"
    assert [name for name in pins("3.11") if name.startswith(("nvidia-", "cuda-")) or name == "triton"] == []


def test_every_third_party_import_is_declared():
    for_users = set(setup_arguments()["extras_require"]) - {"dev"}
    allowed = {module_of(name) for name in declared(*for_users)} | NOT_IN_REGISTRY | BUILD_ONLY | set(PARTS)
    undeclared = {name: path for name, path in imported(*shipped()).items() if name not in allowed}
    assert undeclared == {}, "add to setup.py, then run scripts/update_lock.py"
    allowed |= {module_of(name) for name in declared("dev")}
    assert {name: path for name, path in imported("tests").items() if name not in allowed} == {}


def test_every_core_requirement_is_imported():
    used = imported(*shipped())
    assert [name for name in declared() if module_of(name) not in used] == []


def test_every_package_and_template_is_installed():
    packages = set(setup_arguments()["packages"])
    for top in {name.split(".")[0] for name in packages}:
        for path in sources(top):
            folder = ".".join(path.parent.relative_to(ROOT).parts)
            assert folder in packages, f"{path.relative_to(ROOT)} is not installed: its folder has no __init__.py"
        for template in (ROOT / top).rglob("*.j2"):
            assert ".".join(template.parent.relative_to(ROOT).parts) in packages
    assert "*.j2" in setup_arguments()["package_data"][""]
    assert all((ROOT / f"{name}.py").is_file() for name in setup_arguments()["py_modules"])


@pytest.mark.parametrize("script", [".ci/run", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "scripts").glob("*.sh"))])
def test_shell_scripts_parse(script):
    result = subprocess.run(["bash", "-n", str(ROOT / script)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_set_up_never_empties_a_directory_that_is_not_its_own(tmp_path):
    keep = tmp_path / "letters.txt"
    keep.write_text("mine")
    environment = {**os.environ, "VENV": str(tmp_path)}
    result = subprocess.run(["bash", str(ROOT / "scripts/setup_env.sh")], capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 1
    assert "holds other files" in result.stderr
    assert keep.read_text() == "mine"


def test_set_up_names_the_python_it_needs(tmp_path):
    environment = {**os.environ, "VENV": str(tmp_path / "venv"), "PYTHON": "/no/such/python"}
    result = subprocess.run(["bash", str(ROOT / "scripts/setup_env.sh")], capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 1
    assert "no Python 3.10 or newer among: /no/such/python" in result.stderr
