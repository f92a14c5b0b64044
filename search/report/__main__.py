"""python -m search.report: look at a run, compare runs, or print the best configuration."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from search.options import Parser, without_traceback
from search.run_folder.records import read_run

FORMATS = ("yaml", "json", "py")
WAITING_SECONDS = 20  # after which the user is told why it takes so long
WAITING = "still waiting for processors that others leave idle; --now takes a share of them"


def parser() -> Parser:
    result = Parser(
        prog="python -m search.report",
        description="Write the report of a run, which may be running; of several runs, a comparison.",
    )
    add = result.add_argument
    add("runs", nargs="+", metavar="RUN", help="run folders; if several, of the same task")
    add("--out", metavar="FILE", help="where the comparison of several runs goes (compare.html)")
    add("--best", action="store_true", help="print the best configuration instead")
    add("--format", choices=FORMATS, help="of --best (yaml)")
    add("--now", action="store_true", help="do not wait for processors that a running search leaves idle")
    return result


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0 done, 2 a mistake of the user."""
    command, _ = checked(argv)
    return command()


def checked(argv: list[str] | None = None) -> tuple[Callable[[], int], bool]:
    """What the arguments ask for, and whether it must not wait. Exits with status 2 for a mistake of the user."""
    arguments = parser().parse_args(argv)
    runs = [Path(run) for run in arguments.runs]
    if arguments.format is not None and not arguments.best:
        parser().error("--format needs --best")
    if arguments.best and len(runs) > 1:
        parser().error("--best takes one run")
    if arguments.out is not None and len(runs) == 1:
        parser().error("--out needs several runs; the report of one run goes into its folder")
    out = Path(arguments.out or "compare.html")
    if len(runs) > 1 and (out.is_dir() or not out.parent.is_dir()):
        parser().error(f"--out must be a file in an existing folder, but got {out}")
    try:
        tasks = {read_run(run)["task"] for run in runs}
    except ValueError as error:
        parser().exit(2, f"error: {error}\n")
    if len(tasks) > 1:
        parser().error(f"the runs to compare must be of one task, but these are of {' and '.join(sorted(tasks))}")

    def command() -> int:
        try:
            if arguments.best:
                print_best(runs[0], arguments.format or "yaml")
            else:
                draw(runs, out)
        except (ValueError, OSError) as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            return 2
        return 0

    return command, arguments.now or arguments.best


def print_best(run: Path, form: str) -> None:
    from search.report.export import best_configuration

    print(best_configuration(run, form))


def draw(runs: list[Path], out: Path) -> None:
    """Write the report of one run, or compare several."""
    if len(runs) > 1:
        from search.report.compare import compare

        print(f"comparing {len(runs)} runs", flush=True)
        print(compare(runs, out))
        print(f"wrote {out}")
    else:
        from search.report.page import write_report

        print(f"drawing the report of {runs[0]}", flush=True)
        print(f"wrote {write_report(runs[0])}")


def beside_a_search(command: Callable[[], int], now: bool) -> int:
    """Run a command in a process that has only the processors that others leave idle, unless it is wanted now."""
    child = 0

    def stop(number: int, frame: object) -> None:
        if child:
            os.kill(child, signal.SIGKILL)  # files are replaced atomically
            print("stopped before it was written", file=sys.stderr)
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    child = os.fork()
    if child == 0:
        if not now:
            give_way()
        return command()
    if not now:
        signal.signal(signal.SIGALRM, lambda *_: print(WAITING, file=sys.stderr))
        signal.alarm(WAITING_SECONDS)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if status >= 0 else 128 - status  # as a shell reports a process that a signal killed


def give_way() -> None:
    """Let this process come last, and in a session of its own: Linux shares processors among sessions first."""
    os.setsid()
    with suppress(OSError):  # no autogroups here
        Path("/proc/self/autogroup").write_text("19")
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(19)


if __name__ == "__main__":
    sys.exit(without_traceback(lambda: beside_a_search(*checked())))
