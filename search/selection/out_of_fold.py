"""What the retrained models say of the images that they never saw, put together over the folds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search.run_folder.records import Configuration
from search.selection.ensemble import Column
from search.selection.retraining import Retraining, Retrainings
from search.study.bootstrap import Score
from search.tasks import Predictions, Task


@dataclass(frozen=True)
class OutOfFold:
    """The N images that were held out, with a column for each configuration, seed, and view."""

    task: Task
    config: Configuration
    ids: np.ndarray  # (N,)
    truth: np.ndarray  # (N, …)
    fold: np.ndarray  # (N,), the part that each image was held out in
    columns: list[Column]
    seeds: int

    def of(self, probabilities: np.ndarray, rows: np.ndarray | slice = slice(None)) -> Predictions:
        """Averaged probabilities of the images `rows` as the task's predictions."""
        return {"ids": self.ids[rows], **self.task.predictions(self.truth[rows], probabilities)}

    def score(self, probabilities: np.ndarray, rows: np.ndarray) -> Score:
        """See `search.selection.ensemble.Scorer`."""
        return self.task.rescore(self.of(probabilities, rows), self.config)


def pooled(trainings: Retrainings, jobs: Sequence[Retraining], seeds: int) -> list[Predictions]:
    """The predictions of each seed, over all folds; the jobs are those of `Selection.retrainings`."""
    parts = [[trainings.predictions(job) for job in jobs[seed::seeds]] for seed in range(seeds)]
    return [_joined(part) for part in parts]


def mean_score(scores: Sequence[Score]) -> Score:
    """The mean of several seeds' scores."""
    return lambda rows: float(np.mean([score(rows) for score in scores]))


def out_of_fold(
    task: Task, trainings: Retrainings, jobs: Mapping[str, Sequence[Retraining]], config: Configuration, seeds: int
) -> OutOfFold:
    """jobs: of each configuration, as in `pooled`."""
    columns, first = [], None
    for name, own in jobs.items():
        for seed in range(seeds):
            parts = [trainings.held_out(job) for job in own[seed::seeds]]
            together = _joined(parts)
            if first is None:
                first = together | {"fold": np.repeat(np.arange(len(parts)), [len(part["ids"]) for part in parts])}
            label = f"{name}, seed {own[seed].config.seed}"
            networks = tuple(own[seed::seeds])
            columns += [Column(label, view == "mirrored", networks, together[view]) for view in ("plain", "mirrored")]
    assert first is not None
    return OutOfFold(task, config, first["ids"], first["truth"], first["fold"], columns, seeds)


def _joined(parts: Sequence[Predictions]) -> Predictions:
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
