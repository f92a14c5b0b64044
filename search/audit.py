"""python -m search.audit: the labels that models contradict which have not seen the image."""

import sys

from search.command_line import Parser, make_parser, run_command
from search.option_values import make_options
from search.reporter import Reporter
from search.result_options import AuditOptions
from search.text import one_line


def parser() -> Parser:
    return make_parser(
        "python -m search.audit",
        "Rank the labels that are probably wrong, by the out-of-fold predictions of search.final --folds.",
        "  python -m search.audit runs/classify-…\n"
        "  python -m search.run classify --data DIR --corrections runs/classify-…/audit.csv",
        AuditOptions,
    )


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0 written, 1 the machine failed, 2 a mistake of the user."""
    options = make_options(AuditOptions, vars(parser().parse_args(argv)))
    from search.report.auditing import audit
    from search.run_folder.files import StorageError
    from search.study.quiet import quiet_optuna

    reporter = Reporter()
    try:
        with quiet_optuna():
            reporter.result(str(audit(options, reporter)))
    except StorageError as error:
        reporter.error(str(error))
        return 1
    except (ValueError, OSError) as error:
        reporter.error(one_line(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
