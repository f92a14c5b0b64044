"""python -m search.final: retrain the best configurations, choose honestly, train the final model."""

import sys

from search.options import Parser, announce_start, share, whole, without_traceback


def parser() -> Parser:
    result = Parser(
        prog="python -m search.final",
        description="Retrain the best configurations of a run with several seeds, then the winner on all images.",
    )
    add = result.add_argument
    add("run", nargs="?", metavar="RUN", help="a run folder; the final model goes into its final/")
    add("--config", metavar="best.json", help="instead of a run: one configuration, with --data")
    add("--data", metavar="DIR", help="a VOC folder, voc2009 or sample (the run's own)")
    add("--top", type=whole(1), default=3, metavar="K", help="configurations that are retrained (3)")
    add("--seeds", type=whole(1), default=3, metavar="N", help="seeds of each (3)")
    add("--out", metavar="FOLDER", help="with --config: where final/ goes (runs/<task>-final)")
    add("--concurrent", type=whole(1), metavar="N", help="trainings at a time (one a GPU, else one a CPU core)")
    add("--cpus-per-trial", type=whole(1), metavar="N", help="CPUs of a training")
    add("--gpus-per-trial", type=share, metavar="F", help="GPUs of a training")
    add("--address", metavar="ADDR", help="Ray cluster to join, or local (RAY_ADDRESS, else local)")
    return result


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0 done, 1 a training failed, 2 a mistake of the user, 128 + a signal's number."""
    arguments = parser().parse_args(argv)
    if (arguments.run is None) == (arguments.config is None):
        parser().error("give a run folder, or --config best.json with --data")
    if arguments.config is not None and arguments.data is None:
        parser().error("--config needs --data: the set to train on")
    announce_start(arguments.address)
    from search.cluster.connection import RayStartError
    from search.selection.selection import finish, prepare

    try:
        plan = prepare(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except RayStartError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return finish(plan)


if __name__ == "__main__":
    sys.exit(without_traceback(main))
