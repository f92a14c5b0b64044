"""python -m search.submit: the submission for the test images of a set."""

import sys

from search.command_line import Parser, make_parser, run_command
from search.option_values import make_options
from search.reporter import Reporter
from search.result_options import SubmitOptions
from search.tasks import submitted_tasks
from search.text import one_line

WITHOUT = {"labels": "the classes are those of the masks", "masks": "the segmentation rows are empty"}


def parser() -> Parser:
    names = [task.name for task in submitted_tasks().values()]
    result = make_parser(
        "python -m search.submit",
        "Write the submission for the test images of a set.",
        f"  python -m search.submit --data DIR --{names[0]} runs/{names[0]}-…\n"
        f"  python -m search.submit --data DIR {' '.join(f'--{name} runs/{name}-…' for name in names)} --gate",
        SubmitOptions,
    )
    for what, task in submitted_tasks().items():
        text = f"a run, or a checkpoint file; without it {WITHOUT[what]}"
        result.add_argument(f"--{task.name}", metavar="RUN", help=text)
    return result


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0 written, 2 a mistake of the user."""
    given = vars(parser().parse_args(argv))
    runs = {what: given.pop(task.name) for what, task in submitted_tasks().items() if task.name in given}
    options = make_options(SubmitOptions, given)
    names = [f"--{task.name} RUN" for task in submitted_tasks().values()]
    if not options.data:
        parser().error("the following arguments are required: --data")
    if not runs:
        parser().error(f"give {' or '.join(names)}, or both")
    if options.gate and len(runs) < len(names):
        parser().error(f"--gate needs {' and '.join(names)}")
    from search.submission.submission import submit

    reporter = Reporter()
    try:
        reporter.result(str(submit(runs, options, reporter)))
    except (ValueError, OSError) as error:
        reporter.error(one_line(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
