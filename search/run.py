"""python -m search.run: search the hyperparameters of a task."""

import sys

from search.cluster.address import describe_start
from search.command_line import run_command
from search.options import run_parser
from search.reporter import Reporter
from search.text import one_line


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0 done, 1 a failure, 2 a mistake of the user, 128 + its number after a signal."""
    given = vars(run_parser().parse_args(argv))
    task, reporter = given.pop("task"), Reporter(given.get("quiet", False))
    reporter.status(describe_start(given.get("address")))
    from search import api  # loads torch, Ray and Optuna
    from search.run_folder.files import StorageError

    try:
        if given.get("dry_run"):
            for line in api.dry_run(task, reporter=reporter, **given):
                reporter.result(line)
            return 0
        run = api.search(task, reporter=reporter, **given)
    except (api.RayStartError, api.SearchFailed, StorageError) as error:
        reporter.error(str(error))
        return 1
    except (ValueError, OSError) as error:
        reporter.error(one_line(error))
        return 2
    assert run.outcome is not None
    return 0 if run.outcome.signal is None else 128 + run.outcome.signal


if __name__ == "__main__":
    sys.exit(run_command(main))
