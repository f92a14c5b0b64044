"""The trials of a study: asked for, listed, scored and ranked."""

import math
import re
from collections.abc import Callable, Iterable

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.text import assignments

PORTFOLIO = "portfolio"  # the origin of a trial of the space's PORTFOLIO begins with it


class Attr:
    """The user attributes of a trial."""

    CONFIG = "config"
    ERROR = "error"
    WORKER = "worker"  # hostname and process id
    SECONDS = "seconds"
    MEMORY = "memory_gb"
    ORIGIN = "origin"  # of a trial that no sampler proposed
    METRICS = "metrics"  # of its best epoch
    DUPLICATE = "duplicate"  # the number of the trial that has the same configuration: this one was not run


def asha_rungs(epochs: int) -> list[int]:
    """The epochs after which a trial of so many may be pruned: a ninth and a third of them."""
    first = max(1, epochs / 9)
    return [math.ceil(epoch) for epoch in (first, 3 * first) if epoch < epochs]


def ask_trial(study: optuna.Study, fits: Callable[[FrozenTrial], bool]) -> optuna.Trial:
    """As `study.ask`, except that enqueued trials that do not fit go on waiting."""
    study._thread_local.cached_all_trials = None
    storage = study._storage
    for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        if fits(trial) and storage.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING):
            return optuna.trial.Trial(study, trial._trial_id)
    return optuna.trial.Trial(study, storage.create_new_trial(study._study_id))


def started_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials of the run so far, by number, without those that are only enqueued or repeat another one."""
    return [
        t
        for t in study.get_trials(deepcopy=False)
        if t.state != TrialState.WAITING and Attr.DUPLICATE not in t.user_attrs
    ]


def portfolio_numbers(study: optuna.Study) -> set[int]:
    """The numbers of the trials that try the space's PORTFOLIO, waiting ones included."""
    return {
        t.number
        for t in study.get_trials(deepcopy=False)
        if re.fullmatch(rf"{PORTFOLIO} \d+", t.user_attrs.get(Attr.ORIGIN, ""))
    }


def trial_score(trial: FrozenTrial) -> float | None:
    """The best of a trial's epochs, pruned or not; None without any, or where it broke down."""
    if Attr.ERROR in trial.user_attrs or not trial.intermediate_values:
        return None
    return max(trial.intermediate_values.values())


def best_epoch(trial: FrozenTrial) -> int | None:
    """The first epoch with the trial's score."""
    value = trial_score(trial)
    return None if value is None else min(e for e, v in trial.intermediate_values.items() if v == value)


def rank_trials(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Those of these trials that scored, best first; of equal ones the earlier."""
    scored = [(score, t) for t in trials if (score := trial_score(t)) is not None]
    return [t for _, t in sorted(scored, key=lambda pair: (-pair[0], pair[1].number))]


def state_name(trial: FrozenTrial) -> str:
    """running, complete, pruned or failed (which includes diverged and out of memory)."""
    return "failed" if Attr.ERROR in trial.user_attrs or trial.state == TrialState.FAIL else trial.state.name.lower()


def describe_trial(trial: FrozenTrial) -> str:
    """Score, trial number, epoch and parameters on one line."""
    return f"{trial_score(trial):.4f} (trial {trial.number}, epoch {best_epoch(trial)}): {assignments(trial.params)}"
