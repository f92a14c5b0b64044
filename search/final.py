"""python -m search.final: retrain the best configurations, choose one, train the final model."""

import sys

from search.cluster.address import describe_start
from search.command_line import Parser, make_parser, run_command
from search.reporter import Reporter
from search.result_options import FinalOptions
from search.text import one_line


def parser() -> Parser:
    return make_parser(
        "python -m search.final",
        "Retrain the best configurations of a run in folds or with several seeds, and train the winner on all images.",
        "  python -m search.final runs/classify-…\n  python -m search.final --config best.json --data DIR --seeds 5",
        FinalOptions,
    )


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0 done, 1 a failure, 2 a mistake of the user, 128 + its number after a signal."""
    given = vars(parser().parse_args(argv))
    if ("run" in given) == ("config" in given):
        parser().error("give a run folder, or --config best.json with --data")
    if "config" in given and "data" not in given:
        parser().error("--config needs --data: the set to train on")
    reporter = Reporter()
    reporter.status(describe_start(given.get("address")))
    from search import api
    from search.run_folder.files import StorageError

    try:
        api.finalize(reporter=reporter, **given)
    except api.Stopped as stop:
        reporter.result("stopped; the same command continues it")
        return 128 + stop.signal
    except (api.RayStartError, api.SelectionFailed, StorageError) as error:
        reporter.error(str(error))
        return 1
    except (ValueError, OSError) as error:
        reporter.error(one_line(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
