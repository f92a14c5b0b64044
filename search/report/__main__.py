"""python -m search.report: look at a run, compare runs, or print the best configuration."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from search.command_line import Parser, make_parser, run_command
from search.option_values import make_options
from search.reporter import Reporter
from search.result_options import ReportOptions
from search.run_folder.location import is_stored, local_copy, locate
from search.run_folder.records import read_run
from search.text import one_line

WAITING_SECONDS = 20  # after which the user is told why it takes so long
WAITING = "still waiting for idle processors; --now takes a share of busy ones"


def parser() -> Parser:
    return make_parser(
        "python -m search.report",
        "Write the report of a run, which may be running, or a comparison of several runs.",
        "  python -m search.report runs/classify-…\n  python -m search.report runs/classify-… --best --format json",
        ReportOptions,
    )


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0 done, 2 a mistake of the user."""
    command, _ = checked(argv)
    return command()


def checked(argv: list[str] | None = None) -> tuple[Callable[[], int], bool]:
    """The command, and whether it must not wait. Exits with status 2 for a mistake of the user."""
    given = vars(parser().parse_args(argv))
    options = make_options(ReportOptions, given)
    if "format" in given and not options.best:
        parser().error("--format needs --best")
    if options.best and len(options.runs) > 1:
        parser().error("--best takes one run")
    if "out" in given and len(options.runs) == 1:
        parser().error("--out needs several runs; the report of one run goes into its folder")
    out = Path(options.out)
    if len(options.runs) > 1 and (out.is_dir() or not out.parent.is_dir()):
        parser().error(f"--out must be a file in an existing folder, but got {out}")
    try:
        runs = [local_copy(run) for run in options.runs]
        tasks = {read_run(run).task for run in runs}
    except (ValueError, OSError) as error:
        parser().exit(2, f"error: {one_line(error)}\n")
    if len(tasks) > 1:
        parser().error(f"the runs to compare must be of one task, but these are of {' and '.join(sorted(tasks))}")

    def command() -> int:
        reporter = Reporter()
        try:
            if options.best:
                from search.report.export import best_configuration

                reporter.result(best_configuration(runs[0], options.format))
            else:
                draw(runs, out, reporter)
                if len(runs) == 1 and is_stored(options.runs[0]):
                    paths = locate(options.runs[0])
                    paths.share(paths.report)
        except (ValueError, OSError) as error:
            reporter.error(one_line(error))
            return 2
        return 0

    return command, options.now or options.best


def draw(runs: list[Path], out: Path, reporter: Reporter) -> None:
    """Write the report of one run, or compare several."""
    from search.report.compare import compare
    from search.report.page import write_report
    from search.study.quiet import quiet_optuna

    with quiet_optuna():
        if len(runs) > 1:
            reporter.status(f"comparing {len(runs)} runs")
            reporter.result(compare(runs, out))
            reporter.result(f"wrote {out}")
        else:
            reporter.status(f"drawing the report of {runs[0]}")
            reporter.result(f"wrote {write_report(runs[0])}")


def beside_a_search(command: Callable[[], int], now: bool) -> int:
    """Run a command in a process that takes only the processor time that others leave idle, unless it is wanted now."""
    child = 0

    def stop(number: int, frame: object) -> None:
        if child:
            os.kill(child, signal.SIGKILL)  # files are replaced atomically
            Reporter().warning("stopped before the report was written")
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    child = os.fork()
    if child == 0:
        if not now:
            give_way()
        return command()
    if not now:
        signal.signal(signal.SIGALRM, lambda *_: Reporter().warning(WAITING))
        signal.alarm(WAITING_SECONDS)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if status >= 0 else 128 - status  # as a shell reports a process that a signal killed


def give_way() -> None:
    """Give this process the lowest priority, in a session of its own: Linux shares processors among sessions first."""
    os.setsid()
    with suppress(OSError):  # no autogroups here
        Path("/proc/self/autogroup").write_text("19")
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(19)


def main_beside_a_search(argv: list[str] | None = None) -> int:
    """As `main`, in a process that leaves the processors to a running search."""
    return beside_a_search(*checked(argv))


if __name__ == "__main__":
    sys.exit(run_command(main_beside_a_search))
