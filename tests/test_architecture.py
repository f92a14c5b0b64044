"""The laws of the architecture: who may import whom, who may print, and what --help may load."""

import ast
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from search.options import TASK_NAMES

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


def test_the_import_scan_finds_imports():
    assert "ray" in top(imported(ROOT / "search" / "cluster" / "connection.py"))
    assert len(sources(*OURS)) > 20


@pytest.mark.parametrize("file", sources("voctrain"), ids=lambda f: str(f.relative_to(ROOT)))
def test_how_a_trial_trains_knows_nothing_of_the_search(file):
    assert not top(imported(file)) & {"ray", "optuna", "search", "spaces"}


@pytest.mark.parametrize("file", sources("spaces"), ids=lambda f: str(f.relative_to(ROOT)))
def test_spaces_import_neither_our_packages_nor_torch_nor_ray(file):
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
        called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None
        assert called not in ("print", "input"), f"line {node.lineno}"
        assert not (isinstance(node, ast.Attribute) and node.attr == "argv"), f"line {node.lineno}"


# Lowest first. A module imports only from lower floors and from its own room.
TRAINING_FLOORS = (
    ("config", "contact_sheet"),
    ("data",),
    ("augment", "losses", "metrics", "device_array", "models", "sampling", "precision", "overflow", "determinism"),
    ("images", "label_audit", "optim", "checkpoint", "seeding", "self_training", "submission", "weight_averaging"),
    ("features", "loop"),
    ("probe",),
    ("pixel_probe",),
    ("classify", "segment"),
    ("attack",),
    ("deploy",),
)
ATTACK_FLOORS = (
    ("goals", "unrolled", "victim", "visibility"),
    ("objective",),
    ("training",),
    ("baselines",),
    ("__init__",),
)
DATA_FLOORS = (
    ("array_file", "cache", "palette", "resizing", "sample_classes", "split", "text_files"),
    ("class_names", "corrections", "image_files"),
    ("dataset", "mask_files"),
    ("layouts",),
    ("discovery",),
    ("agreement",),
    ("content", "convert", "decode", "sample", "validation"),
    ("description", "digits", "named_sets"),
    ("__init__",),
    ("__main__",),
)


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


# The doors parse, print one error line and return an exit status; `api` does what they ask for.
SEARCH_FLOORS = (
    ("text", "command_line"),
    ("reporter", "options"),
    ("result_options",),
    ("option_values",),
    ("run_folder",),
    ("study",),
    ("trial",),
    ("pictures",),
    ("tasks",),
    ("cluster",),
    ("session",),
    ("running", "selection", "submission", "prediction", "packaging", "report"),
    ("api",),
    ("run", "final", "submit", "predict", "export", "audit", "check"),
    ("__main__",),
)


def test_layers_of_the_search():
    assert not list(upward_imports(ROOT / "search", SEARCH_FLOORS))


def test_a_worker_loads_nothing_that_only_serves_the_end_of_a_run():
    modules = "search.cluster.worker, " + ", ".join(f"voctrain.{task}" for task in TASK_NAMES)
    code = f"import sys, {modules}\nfrom search.tasks import find_task\n"
    code += f"assert [find_task(name).module for name in {TASK_NAMES}]\n"
    code += "print(*(name for name in sys.modules if name.startswith('search.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    rooms = {name.split(".")[1] for name in done.stdout.split()}
    assert "trial" in rooms
    late = {"pictures", "session", "running", "selection", "submission", "prediction", "packaging", "report"}
    assert not rooms & late


@pytest.mark.parametrize("file", sources("search"), ids=lambda f: str(f.relative_to(ROOT)))
def test_only_the_file_of_a_task_knows_it(file):
    """A new task needs a configuration class, voctrain/<task>.py, spaces/<task>.py and search/tasks/<task>.py."""
    if file.parent == ROOT / "search" / "tasks" and file.stem != "__init__":
        return
    for node in ast.walk(ast.parse(file.read_text())):
        names = {getattr(node, part, None) for part in ("id", "attr", "arg", "name", "value")}
        assert not {name for name in names if isinstance(name, str)} & set(TASK_NAMES), f"line {node.lineno}"
    ours = {name for name in imported(file) if name.split(".")[0] in OURS}
    assert not {name for name in ours if set(name.split(".")) & set(TASK_NAMES)}


@pytest.mark.parametrize("file", sources(*OURS), ids=lambda f: str(f.relative_to(ROOT)))
def test_importing_a_module_changes_nothing(file):
    """No environment variable, warnings filter or log level: statements at the top only define names."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Expr):
            assert isinstance(node.value, ast.Constant), f"line {node.lineno} calls something"
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            assert not any(isinstance(target, ast.Attribute | ast.Subscript) for target in targets), f"{node.lineno}"


@pytest.mark.parametrize("file", sources("search"), ids=lambda f: str(f.relative_to(ROOT)))
def test_only_the_reporter_prints(file):
    if file == ROOT / "search" / "reporter.py":
        return
    for node in ast.walk(ast.parse(file.read_text())):
        assert not (isinstance(node, ast.Name) and node.id in ("print", "input")), f"line {node.lineno}"


@pytest.mark.parametrize("file", sources("search"), ids=lambda f: str(f.relative_to(ROOT)))
def test_public_signatures_are_typed(file):
    """Records instead of dictionaries of anything; `Configuration` and its like name what a user or torch defines."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.name != "to_json":
            hints = [a.annotation for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            assert "dict[str, Any]" not in " ".join(ast.unparse(h) for h in (*hints, node.returns) if h), node.name


@pytest.mark.parametrize("file", sources(*OURS), ids=lambda f: str(f.relative_to(ROOT)))
def test_files_and_functions_are_short(file):
    text = file.read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name


def test_layers_of_the_training():
    assert not list(upward_imports(ROOT / "voctrain", TRAINING_FLOORS))


def test_layers_of_the_attack():
    assert not list(upward_imports(ROOT / "voctrain" / "attack", ATTACK_FLOORS))
    for file in (ROOT / "voctrain" / "attack").glob("*.py"):
        assert "voctrain.attack" not in set(imported(file)), f"{file} imports from the package's door"


def test_layers_of_the_data():
    """Each module of voctrain/data imports only from lower floors, so there is no import cycle."""
    folder = ROOT / "voctrain" / "data"
    assert not list(upward_imports(folder, DATA_FLOORS))
    for file in set(folder.glob("*.py")) - {folder / "__init__.py", folder / "__main__.py"}:
        assert "voctrain.data" not in set(imported(file)), f"{file} imports from the package's door"


COMMANDS = ("run", "final", "submit", "predict", "export", "audit", "report")


@pytest.mark.parametrize("command", [*(f"search.{name}" for name in COMMANDS), "voctrain.data"])
def test_help_loads_nothing_heavy(command):
    code = f"import runpy, sys; sys.argv = ['x', '--help']; runpy.run_module('{command}', run_name='__main__')"
    code = f"import sys\ntry:\n    {code}\nexcept SystemExit as end:\n    assert not end.code\n"
    code += f"print('loaded:', *(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "usage:" in done.stdout
    loaded = [line for line in done.stdout.splitlines() if line.startswith("loaded:")]
    assert set(loaded) == {"loaded:"}, "each process says so: search.report has two"


def test_a_report_does_not_load_ray():
    """It may be made beside a search, and Ray's imports are a tenth of its time."""
    reached, ahead = set(), {"search.report.page", "search.report.compare"}
    while ahead:
        file = ROOT / f"{ahead.pop().replace('.', '/')}.py"
        if file.exists() and file not in reached:
            reached.add(file)
            ahead |= {name for name in imported(file) if top([name]) <= set(OURS)}
    assert ROOT / "search" / "run_folder" / "records.py" in reached
    assert not [file for file in reached if "ray" in top(imported(file))]


def test_help_is_fast():
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
        "grpcio": "grpc",
        "segmentation-models-pytorch": "segmentation_models_pytorch",
        "tensorboardx": "tensorboardX",
        "pytest-timeout": "pytest",
        "pytest-xdist": "pytest",
        "onnxscript": "torch",  # whose exporter needs it
        "mlflow-skinny": "mlflow",
        "wandb": "ray",  # whose callback needs it
    }
    assert len(lines) == len(re.findall(r'^ +"[\w-]+.*[<>=].*",', project, re.M)) > 10
    for name, place in lines:
        files = sorted((ROOT / place).rglob("*.py")) if place.endswith("/") else [ROOT / place]
        module = modules.get(name, name)
        # A package of data is only named.
        used = [module in top(imported(file)) or f'"{name.replace("-", "_")}"' in file.read_text() for file in files]
        assert name in ("ruff", "pyright") or any(used), (
            name,
            place,
        )
