"""Ray Tune runs what a searcher suggests."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ray import tune
from ray.air.execution._internal import RayActorManager
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError
from ray.tune.execution import class_cache
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher

from search.cluster.growth import Growth
from search.cluster.hangs import Hangs
from search.cluster.pickling import NotPickled
from search.cluster.resources import Resources
from search.cluster.store_worker import StoreWorker
from search.cluster.tensorboard import TensorBoard
from search.cluster.trackers import Tracker
from search.cluster.worker import Worker
from search.run_folder.paths import RunPaths, training_name
from search.run_folder.store import ACCESS
from search.tasks import Task
from voctrain.data import Data

LOST_WORKERS = 3  # times that a training is continued from its last checkpoint after its worker was lost


class StopWhen(NotPickled, tune.Stopper):
    """Ends the whole search when `condition` returns True; running trials stay unfinished in the study."""

    def __init__(self, condition: Callable[[], bool]):
        self.condition = condition

    def __call__(self, trial_id: str, result: dict) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.condition()


class Ticker(NotPickled, tune.Callback):
    """Calls `on_start` when a training starts, and `on_step` after each step of Tune's loop: ten times per second.

    `on_loss` is called with Tune's id of a training whose worker was lost, before another one continues it.
    """

    def __init__(self, *, on_start: Callable[[], None], on_loss: Callable[[str], None], on_step: Callable[[], None]):
        self.on_start, self.on_loss, self.on_step = on_start, on_loss, on_step

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.on_start()

    def on_trial_recover(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.on_loss(trial.trial_id)

    def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:
        self.on_step()


def execute(
    searcher: Searcher,
    scheduler: TrialScheduler | None,
    *,
    data: Data,
    task: Task,
    paths: RunPaths,
    rungs: Sequence[int],
    resources: Resources,
    stop: Callable[[], bool],
    ticker: Ticker,
    tracker: Tracker | None = None,
) -> None:
    """Run the searcher's jobs on the connected cluster until it has no more, or `stop` returns True.

    rungs: the epochs before whose report the best weights are written. Raises `MachineError` if a node joins that
    cannot run trials.
    """
    # Without a limit Tune starts one worker at a time, and all trials go to the first until the next is ready.
    limiter = ConcurrencyLimiter(searcher, max_concurrent=resources.concurrent)
    growth = None if resources.most is None else Growth(limiter, resources, paths, data)
    callbacks = [ticker, TensorBoard(paths, task.metric), Hangs(paths), growth, tracker]
    kind = Worker if paths.mirror is None else StoreWorker
    worker: Any = tune.with_parameters(kind, data=data, task=task.name, paths=paths, rungs=rungs, resources=resources)

    def share(config: dict) -> tune.PlacementGroupFactory:
        return tune.PlacementGroupFactory([{"CPU": resources.cpus, "GPU": resources.gpus_of(config["alone"])}])

    worker = tune.with_resources(worker, share)
    worker.__name__ = worker.__qualname__ = task.name  # the actors' name in Ray's dashboard
    tuner = tune.Tuner(
        worker,
        tune_config=tune.TuneConfig(
            search_alg=limiter,
            scheduler=scheduler,
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=lambda trial: f"training-{training_name(trial.config['training'])}",
            trial_dirname_creator=lambda trial: f"{training_name(trial.config['training'])}-{time.strftime('%H%M%S')}",
        ),
        run_config=tune.RunConfig(
            name=paths.tensorboard.name,
            storage_path=str(paths.folder),
            verbose=0,
            stop=StopWhen(lambda: stop() or (growth is not None and growth.failure is not None)),
            callbacks=[callback for callback in callbacks if callback is not None],
            failure_config=tune.FailureConfig(max_failures=LOST_WORKERS),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # the worker keeps its own
        ),
    )
    with lost_workers_known(), credentials_untold(), growth or contextlib.nullcontext():
        tuner.fit()
    if growth is not None and growth.failure is not None:
        raise growth.failure


@contextlib.contextmanager
def lost_workers_known() -> Iterator[None]:
    """Let Tune see a lost worker as one, and once, whatever the cause and the moment.

    If Ray kills one to save memory, Tune ends everything. If one is lost between two trainings, Tune counts it twice:
    the next one gets no other worker.
    """
    handle_task, handle_trial = RayActorManager._actor_task_failed, TuneController._trial_task_failure

    def handle_lost(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError | NodeDiedError | WorkerCrashedError):
            exception = RayActorError(error_msg=str(exception))
        handle_task(self, tracked_actor_task, exception)

    def handle_once(self: TuneController, trial: Trial, exception: Exception) -> None:
        self._resetting_trials.discard(trial)
        if trial.status != Trial.PENDING or trial in self._trial_to_actor:  # otherwise it waits for another one already
            handle_trial(self, trial, exception)

    RayActorManager._actor_task_failed, TuneController._trial_task_failure = handle_lost, handle_once
    try:
        yield
    finally:
        RayActorManager._actor_task_failed, TuneController._trial_task_failure = handle_task, handle_trial


@contextlib.contextmanager
def credentials_untold() -> Iterator[None]:
    """Keep Tune from putting credentials into the `runtime_env` of each worker, which Ray logs."""
    before = class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.ENV_VARS_TO_PROPAGATE = {name for name in before if not name.startswith(ACCESS)}
    try:
        yield
    finally:
        class_cache.ENV_VARS_TO_PROPAGATE = before
