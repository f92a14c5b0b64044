"""What a search says when it ends."""

import shlex

from search.command_line import flag
from search.running.driver import Outcome, SearchFailed
from search.session.session import Session
from search.study.trials import describe_trial


def tell(session: Session, outcome: Outcome) -> None:
    """How the search ended, and the next command. Raises `SearchFailed`."""
    say, task, run = session.reporter.result, session.task, session.paths.place
    if outcome.best is not None:
        say(f"best {task.metric} {describe_trial(outcome.best)}")
        say(f"{session.record.baseline_name} {session.record.baseline[task.metric]:.4f} | run folder {run}")
    if outcome.broken is not None:
        raise SearchFailed(outcome.broken)
    if outcome.exhausted:
        say(f"the space has only {outcome.finished} configurations: all of them have been tried")
    if outcome.missing:
        budget = session.options.time_budget
        longer = f" --time-budget {2 * round(outcome.seconds + 0.5)}s" if budget and outcome.seconds >= budget else ""
        say(f"stopped with {outcome.missing} trials to go; continue with: {session.command}{longer}")
        if outcome.signal is not None:
            say(f"look at it with: python -m search.report {run}")
    if outcome.signal is not None:
        return
    if outcome.best is None:
        raise SearchFailed(f"no trial has scored: see {run}/trials.csv and {run}/logs")
    if not outcome.missing:
        say(f"next: python -m search.final {run}")
        if task.submits is not None:
            say(f"      python -m search.submit --data {shlex.quote(session.options.data)} {flag(task.name)} {run}")
