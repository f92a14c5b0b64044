"""voc-search: the commands under one name."""

import importlib
import sys

from search.command_line import run_command
from search.reporter import Reporter

COMMANDS = {  # module, function, and what it does
    "run": ("search.run", "main", "search the hyperparameters of a task"),
    "final": ("search.final", "main", "retrain the best configurations, train the final model"),
    "submit": ("search.submit", "main", "write the submission for the test images of a set"),
    "predict": ("search.predict", "main", "predict any images with a trained model"),
    "export": ("search.export", "main", "write a trained model as a file for use elsewhere"),
    "report": (
        "search.report.__main__",
        "main_beside_a_search",
        "look at a run, compare runs, print the best configuration",
    ),
    "audit": ("search.audit", "main", "rank the labels that are probably wrong"),
    "check": ("search.check", "main", "check the files of a run, and repair them"),
    "data": ("voctrain.data.__main__", "main", "describe, convert or create a set of images"),
}


def main(argv: list[str] | None = None) -> int:
    """Run a command. Returns its exit status, 2 for an unknown one."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help"):
        lines = [f"  {name:8}{text}" for name, (_, _, text) in COMMANDS.items()]
        Reporter().result("\n".join(["usage: voc-search COMMAND ...", "", *lines, "", "Each has its own --help."]))
        return 0
    if words[0] not in COMMANDS:
        Reporter().error(f"the command must be one of {', '.join(COMMANDS)}, but got {words[0]!r}")
        return 2
    module, function, _ = COMMANDS[words[0]]
    return getattr(importlib.import_module(module), function)(words[1:])


def entry_point() -> None:
    """The console script."""
    sys.exit(run_command(main))


if __name__ == "__main__":
    entry_point()
