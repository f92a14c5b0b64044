"""python -m search.run: search the hyperparameters of a task."""

import sys

from search.options import announce_start, run_parser, without_traceback


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0 done, 1 nothing scored, 2 a mistake of the user, 128 + its number after a signal."""
    given = vars(run_parser().parse_args(argv))
    if not given.get("quiet"):
        announce_start(given.get("address"))
    # torch, ray and optuna load only after the arguments are known to be good
    from search.cluster.connection import RayStartError, connect
    from search.session.session import announce, claim, prepare

    try:
        session = prepare(given)
        if session.arguments["dry_run"]:
            from search.session.dry_run import describe_session

            return describe_session(session)
        from search.running.driver import search

        dashboard = "nothing left to run"
        if not session.complete:
            if session.address is None:
                announce(session.arguments, "starting Ray")
            dashboard = connect(session.address, session.resources.total_cpus)
        session = claim(session)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except RayStartError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return search(session, dashboard)


if __name__ == "__main__":
    sys.exit(without_traceback(main))
