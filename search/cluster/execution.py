"""Ray Tune executing what the study asks for."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune

from search.cluster.asha import StudyASHA
from search.cluster.resources import Resources
from search.cluster.searcher import NeverRestored, StudySearcher
from search.cluster.tensorboard import TensorBoard
from search.cluster.worker import Worker
from search.running.live import Progress
from search.study.trials import asha_rungs
from voctrain.data import Data

LOST_WORKERS = 3  # times that a trial is continued from its last checkpoint after its worker was lost


class StopWhen(NeverRestored, tune.Stopper):
    """Ends the whole search when `condition` holds; running trials stay unfinished in the study."""

    def __init__(self, condition: Callable[[], bool]):
        self.condition = condition

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.condition()


class Ticker(NeverRestored, tune.Callback):
    """Tells `progress` when a training starts, and after each step of Tune's loop: at least ten times per second."""

    def __init__(self, progress: Progress):
        self.progress = progress

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.progress.training_starts()

    def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:
        self.progress.tick()


def execute(
    searcher: StudySearcher,
    scheduler: StudyASHA | None,
    *,
    data: Data,
    task: str,
    run: Path,
    resources: Resources,
    stop: Callable[[], bool],
    progress: Progress,
) -> None:
    """Run the searcher's trials on the cluster until it is finished or `stop` says so."""
    rungs = asha_rungs(searcher.epochs) if scheduler else []
    worker = tune.with_parameters(Worker, data=data, task=task, run=str(run), rungs=rungs, resources=resources)
    worker = tune.with_resources(worker, {"CPU": resources.cpus, "GPU": resources.gpus})
    worker.__name__ = worker.__qualname__ = task  # what Ray's dashboard calls the actors
    tuner = tune.Tuner(
        worker,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,
            # Without it Tune starts one worker after the other, and while a worker starts all trials go to the first.
            max_concurrent_trials=resources.concurrent,
            reuse_actors=True,
            trial_name_creator=lambda trial: f"trial-{trial.config['number']:04d}",
            trial_dirname_creator=lambda trial: f"{trial.config['number']:04d}-{time.strftime('%H%M%S')}",
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(run),
            verbose=0,
            stop=StopWhen(stop),
            callbacks=[Ticker(progress), TensorBoard(run / "ray", searcher.metric)],
            failure_config=tune.FailureConfig(max_failures=LOST_WORKERS),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # ours are kept by the worker
        ),
    )
    tuner.fit()
