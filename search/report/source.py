"""What a report is made from: a run's folder and its data, as far as they are there and are what they were."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from search.report.evidence import epochs_of, predictions_of
from search.run_folder.files import read_json, read_torch
from search.run_folder.records import read_run
from search.running.publishing import lock, trial_log
from search.study.journal import read_study
from search.study.trials import rank_trials, started_trials
from search.tasks import TASKS, Task
from search.tasks.victims import digest
from voctrain.data import Data, load


@dataclass(frozen=True)
class Source:
    """A run, which may be running. best: what is in best.json; data: None where they are gone, for this `reason`."""

    run: Path
    facts: dict[str, Any]  # run.json
    trials: list[FrozenTrial]
    best: dict[str, Any] | None
    data: Data | None = None
    reason: str = ""

    @property
    def task(self) -> Task:
        return TASKS[self.facts["task"]]

    @property
    def metric(self) -> str:
        return self.facts["metric"]

    @property
    def sampler(self) -> str:
        return self.facts["arguments"]["sampler"]

    @cached_property
    def ranked(self) -> list[FrozenTrial]:
        """The trials that scored, best first."""
        return rank_trials(self.trials)

    @property
    def victim_is_there(self) -> bool:
        """Whether the victim of an attack is still what it was; True for other tasks."""
        with suppress(OSError):
            return digest(self.best and self.best["config"].get("victim")) == self.facts.get("victim")
        return False

    @property
    def outdated(self) -> bool:
        """Whether the task's tables and pictures are missing, or older than the best checkpoint."""
        made, best = self.run / (self.task.conclusion or ""), self.run / "best.pt"
        if self.task.conclusion is None or not best.exists():
            return False
        return not made.exists() or made.stat().st_mtime < best.stat().st_mtime

    def conclude(self) -> None:
        """Bring these up to the best checkpoint, unless another process drives the run."""
        best = read_torch(self.run / "best.pt")
        if self.data is None or best is None or not self.outdated or not self.victim_is_there:
            return
        with suppress(ValueError):  # it is driven, or of another version
            lock(self.run)
            self.task.conclude(self.run, best, self.data)

    def rescored(self) -> tuple[Callable[[Any], float], list[str]] | None:
        """The best score as a function of the indices of validation images, and their ids.

        None where the predictions are missing, or the victim of an attack is.
        """
        if self.best is None or not self.victim_is_there or (predictions := predictions_of(self.run)) is None:
            return None
        with suppress(ValueError):  # the configuration of an attack made by another version
            return self.task.rescore(predictions, self.best["config"]), predictions["ids"].tolist()
        return None

    def unfinished_seconds(self) -> dict[int, float]:
        """The seconds that each unfinished trial has trained, as its log says."""
        logs = {t.number: epochs_of(trial_log(self.run, t.number)) for t in self.trials if not t.state.is_finished()}
        return {number: epochs[max(epochs)].get("seconds", 0.0) for number, epochs in logs.items() if epochs}


def read_source(run: Path, data: Data | None = None, *, with_data: bool = True) -> Source:
    """Read a run; its data are loaded unless they are given. Raises `ValueError` for what is not a run."""
    facts, reason = read_run(run), ""
    if data is None and with_data:
        data, reason = _load(facts)
    trials = started_trials(read_study(run / "study.journal"))
    return Source(run, facts, trials, read_json(run / "best.json"), data, reason)


def _load(facts: dict[str, Any]) -> tuple[Data | None, str]:
    """The data of a run; or None, and why."""
    arguments = facts["arguments"]
    try:
        data = load(arguments["data"], image_size=arguments["image_size"], use_val=arguments["use_val"])
        if data.fingerprint != facts["data"]["fingerprint"]:
            return None, f"{arguments['data']} is no longer what it was"
        return data.with_split(facts["split"]["train"], facts["split"]["val"]), ""
    except (ValueError, OSError) as error:
        return None, str(error).splitlines()[0]
