"""python -m search.check: whether the files of a run are whole."""

import sys

from search.command_line import Parser, make_parser, run_command
from search.option_values import make_options
from search.reporter import Reporter
from search.result_options import CheckOptions
from search.text import one_line, shell_path


def parser() -> Parser:
    return make_parser(
        "python -m search.check",
        "Check the files of a run: journal, record, checkpoints, best and final model.",
        "  python -m search.check runs/classify-…\n  python -m search.check runs/classify-… --repair",
        CheckOptions,
    )


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0 whole or repaired, 1 damaged, 2 a mistake of the user."""
    options = make_options(CheckOptions, vars(parser().parse_args(argv)))
    from search.run_folder.location import whole_copy
    from search.running.checking import check_run

    reporter, left, curable = Reporter(), 0, False
    try:
        run = whole_copy(options.run, repair=options.repair)
        for damage in check_run(run, repair=options.repair):
            left += not damage.cured
            curable |= damage.cure is not None
            reporter.result(str(damage))
    except (ValueError, OSError) as error:
        reporter.error(one_line(error))
        return 2
    if not left:
        reporter.result(f"{run} is whole")
    elif curable and not options.repair:
        reporter.result(f"repair it with: python -m search.check {shell_path(run)} --repair")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
