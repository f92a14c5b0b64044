"""The trials of a study: ask, list, score and rank them."""

import math
import re
from collections.abc import Callable, Iterable

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.text import assignments

PORTFOLIO = "portfolio"  # prefix of the origin of trials from the space's PORTFOLIO


class Attr:
    """The user attributes of a trial."""

    CONFIG = "config"
    ERROR = "error"
    LOST = "lost"  # workers that died while they trained it
    ALONE = "alone"  # its share of a GPU had too little memory: it gets one to itself
    WORKER = "worker"  # hostname and process id
    SECONDS = "seconds"
    MEMORY = "memory_gb"
    ORIGIN = "origin"  # where a trial comes from that no sampler proposed
    METRICS = "metrics"  # of its best epoch
    DUPLICATE = "duplicate"  # the trial that already has this configuration; this one did not run


def asha_rungs(epochs: int) -> list[int]:
    """The epochs after which a trial may be pruned: a ninth and a third of all epochs."""
    first = max(1, epochs / 9)
    return [math.ceil(epoch) for epoch in (first, 3 * first) if epoch < epochs]


def ask_trial(study: optuna.Study, fits: Callable[[FrozenTrial], bool]) -> optuna.Trial:
    """As `study.ask`, but enqueued trials that do not fit go on waiting."""
    study._thread_local.cached_all_trials = None
    storage = study._storage
    for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        if fits(trial) and storage.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING):
            return optuna.trial.Trial(study, trial._trial_id)
    return optuna.trial.Trial(study, storage.create_new_trial(study._study_id))


def started_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials so far, by number, without those that are only enqueued or duplicate another one."""
    return [
        t
        for t in study.get_trials(deepcopy=False)
        if t.state != TrialState.WAITING and Attr.DUPLICATE not in t.user_attrs
    ]


def portfolio_numbers(study: optuna.Study) -> set[int]:
    """The numbers of the trials from the space's PORTFOLIO, including waiting ones."""
    return {t.number for t in study.get_trials(deepcopy=False) if is_of_portfolio(t)}


def is_of_portfolio(trial: FrozenTrial) -> bool:
    return re.fullmatch(rf"{PORTFOLIO} \d+", trial.user_attrs.get(Attr.ORIGIN, "")) is not None


def trial_score(trial: FrozenTrial) -> float | None:
    """The best score of a trial's epochs, pruned or not; None if there is none or the trial failed."""
    if Attr.ERROR in trial.user_attrs or not trial.intermediate_values:
        return None
    return max(trial.intermediate_values.values())


def best_epoch(trial: FrozenTrial) -> int | None:
    """The first epoch that reached the trial's score."""
    value = trial_score(trial)
    return None if value is None else min(e for e, v in trial.intermediate_values.items() if v == value)


def rank_trials(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that scored, best first; earlier trials first among equals."""
    scored = [(score, t) for t in trials if (score := trial_score(t)) is not None]
    return [t for _, t in sorted(scored, key=lambda pair: (-pair[0], pair[1].number))]


def state_name(trial: FrozenTrial) -> str:
    """running, complete, pruned or failed (including diverged and out of memory)."""
    return "failed" if Attr.ERROR in trial.user_attrs or trial.state == TrialState.FAIL else trial.state.name.lower()


def describe_trial(trial: FrozenTrial) -> str:
    """Score, trial number, epoch and parameters on one line."""
    return f"{trial_score(trial):.4f} (trial {trial.number}, epoch {best_epoch(trial)}): {assignments(trial.params)}"
