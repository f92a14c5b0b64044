"""The law of the house: who may import whom, who may print, and what --help may load."""

import ast
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("search", "spaces", "voctrain")
HEAVY = ("torch", "torchvision", "ray", "pandas", "optuna", "sklearn")


def sources(*packages):
    return [file for package in packages for file in sorted((ROOT / package).rglob("*.py"))]


def imported(file):
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def top(names):
    return {name.split(".")[0] for name in names}


def test_the_scan_sees_imports():
    assert "ray" in top(imported(ROOT / "search" / "cluster" / "connection.py"))
    assert len(sources(*OURS)) > 20


@pytest.mark.parametrize("file", sources("voctrain"), ids=lambda f: str(f.relative_to(ROOT)))
def test_how_a_trial_trains_knows_nothing_of_the_search(file):
    assert not top(imported(file)) & {"ray", "optuna", "search", "spaces"}


@pytest.mark.parametrize("file", sources("spaces"), ids=lambda f: str(f.relative_to(ROOT)))
def test_spaces_import_nothing_of_ours_nor_torch_nor_ray(file):
    assert not top(imported(file)) & {*OURS, "torch", "torchvision", "ray"}


def test_there_is_no_other_package():
    folders = {p.name for p in ROOT.iterdir() if any(p.glob("*.py")) and not p.name.startswith(".")}
    assert folders == {*OURS, "tests"}
    assert not [file for file in sources(*OURS) if file.name in ("utils.py", "helpers.py")]


@pytest.mark.parametrize("file", sources("voctrain"), ids=lambda f: str(f.relative_to(ROOT)))
def test_only_the_command_of_the_data_prints_and_reads_arguments(file):
    if file == ROOT / "voctrain" / "data" / "__main__.py":
        return
    assert not top(imported(file)) & {"argparse", "rich"}
    for node in ast.walk(ast.parse(file.read_text())):
        assert not (isinstance(node, ast.Name) and node.id == "print"), f"line {node.lineno}"
        called = node.func if isinstance(node, ast.Call) else None  # torch names parameters `input`
        assert not (isinstance(called, ast.Name) and called.id == "input"), f"line {node.lineno}"
        assert not (isinstance(node, ast.Attribute) and node.attr == "argv"), f"line {node.lineno}"


# Lowest first. A module imports only from lower floors and from its own room.
TRAINING_FLOORS = (
    ("config",),
    ("data",),
    ("augment", "losses", "metrics", "models", "optim", "sampling", "precision", "overflow"),
    ("images", "checkpoint", "device_array", "seeding", "submission", "weight_averaging"),
    ("loop",),
    ("classify", "segment"),
    ("attack",),
)
ATTACK_FLOORS = (("goals", "victim", "visibility"), ("objective",), ("training",), ("baselines",), ("__init__",))


def upward_imports(folder, floors):
    """Imports within a package folder that do not lead to a lower floor, as (importing file, imported room)."""
    floor_of = {room: number for number, rooms in enumerate(floors) for room in rooms}
    prefix = ".".join(folder.relative_to(ROOT).parts) + "."
    for file in sorted(folder.rglob("*.py")):
        room = file.relative_to(folder).with_suffix("").parts[0]
        if file.relative_to(folder) == Path("__init__.py") and "__init__" not in floor_of:
            continue
        assert room in floor_of, f"{file} is on no floor"
        for name in imported(file):
            other = name.removeprefix(prefix).split(".")[0]
            if name.startswith(prefix) and other != room and other in floor_of and floor_of[other] >= floor_of[room]:
                yield file, other


def test_layers_of_the_training():
    assert not list(upward_imports(ROOT / "voctrain", TRAINING_FLOORS))


def test_layers_of_the_attack():
    assert not list(upward_imports(ROOT / "voctrain" / "attack", ATTACK_FLOORS))
    for file in (ROOT / "voctrain" / "attack").glob("*.py"):
        assert "voctrain.attack" not in set(imported(file)), f"{file} imports from the package's door"


@pytest.mark.parametrize("command", ["search.run", "search.final", "search.submit", "search.report", "voctrain.data"])
def test_help_loads_nothing_heavy(command):
    code = f"import runpy, sys; sys.argv = ['x', '--help']; runpy.run_module('{command}', run_name='__main__')"
    code = f"import sys\ntry:\n    {code}\nexcept SystemExit as end:\n    assert not end.code\n"
    code += f"print('loaded:', *(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "usage:" in done.stdout
    loaded = [line for line in done.stdout.splitlines() if line.startswith("loaded:")]
    assert set(loaded) == {"loaded:"}, "each process says so: search.report has two"


def test_a_report_does_without_ray():
    """It may be made beside a search, and Ray's imports are a tenth of its time."""
    reached, ahead = set(), {"search.report.page", "search.report.compare"}
    while ahead:
        file = ROOT / f"{ahead.pop().replace('.', '/')}.py"
        if file.exists() and file not in reached:
            reached.add(file)
            ahead |= {name for name in imported(file) if top([name]) <= set(OURS)}
    assert ROOT / "search" / "run_folder" / "records.py" in reached
    assert not [file for file in reached if "ray" in top(imported(file))]


def test_help_answers_at_once():
    def seconds():
        """Of the processor, which others may be using, too."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-m", "search.run", "--help"], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.5


def test_each_dependency_names_a_file_that_needs_it():
    project = (ROOT / "pyproject.toml").read_text()
    lines = re.findall(r'^ +"([\w-]+)(?:\[[\w,]+\])?[^"]*",\s*# ([\w./]+)', project, re.M)
    modules = {
        "pillow": "PIL",
        "scikit-learn": "sklearn",
        "pyyaml": "yaml",
        "tensorboardx": "tensorboardX",
        "pytest-timeout": "pytest",
    }
    assert len(lines) == len(re.findall(r'^ +"[\w-]+.*[<>=].*",', project, re.M)) > 10
    for name, place in lines:
        files = sorted((ROOT / place).rglob("*.py")) if place.endswith("/") else [ROOT / place]
        assert any(name == "ruff" or modules.get(name, name) in top(imported(file)) for file in files), (name, place)
