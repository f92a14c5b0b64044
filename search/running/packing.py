"""Small trials share a GPU, as measured before the first one."""

from collections.abc import Sequence
from dataclasses import replace

import ray

from search.cluster.resources import share_resources
from search.run_folder.records import Configuration
from search.session.dry_run import first_configurations
from search.session.session import Session
from search.tasks import find_task
from search.text import first_line
from search.trial import memory
from search.trial.demand import Demand, measure_demands, trainings_per_gpu
from search.trial.device import device_of
from voctrain.data import Data

RECIPES = 4  # configurations that are measured
WAIT_SECONDS = 300.0


def share_gpus(session: Session) -> Session:
    """The session with as many trials at a time as its GPUs have room for, unless the user has decided that.

    It measures on a GPU of the connected cluster, or here if there is no connection. Without a result, each trial has
    a GPU to itself.
    """
    options, resources = session.options, session.resources
    decided = options.concurrent is not None or options.gpus_per_trial is not None
    if session.complete or decided or resources.gpus < 1 or resources.concurrent >= options.trials:
        return session
    session.reporter.status("measuring how many trials share a GPU")
    configs = [config.to_dict() for config in first_configurations(session.problem, options.sampler, RECIPES)]
    arguments = session.task.name, configs, session.data
    try:
        if ray.is_initialized():
            measure = ray.remote(num_cpus=1, num_gpus=1, max_calls=1)(measure_on_gpu)  # ends, and frees its memory
            demands, gpu_gb = ray.get(measure.remote(*arguments), timeout=WAIT_SECONDS)
        else:
            demands, gpu_gb = measure_on_gpu(*arguments)
    except Exception as error:  # whatever a GPU, its driver or its profiler may lack, the search can do without
        session.reporter.warning(f"each trial has a GPU to itself, because measuring failed: {first_line(error)}")
        return session
    shared = share_resources(
        session.machines,
        options,
        trials=options.trials,
        elastic=session.address is not None,
        per_gpu=trainings_per_gpu(demands, gpu_gb),
    )
    most, busy = max(d.memory_gb for d in demands), max(d.busy for d in demands)
    session.reporter.status(
        f"a trial takes up to {most:.1f} of a GPU's {gpu_gb:.0f} GB and {busy:.0%} of its time:"
        f" {round(1 / shared.gpus)} share one"
    )
    return replace(session, resources=shared)


def measure_on_gpu(task: str, configs: Sequence[Configuration], data: Data) -> tuple[list[Demand], float]:
    """What these configurations take of the GPU of this process, and the GB that it has.

    Raises `MachineError` if there is none, and `ValueError` if no configuration can be measured.
    """
    found, device = find_task(task), device_of(1.0)
    demands = measure_demands(found.module, map(found.config.from_dict, configs), data, device)
    if not demands:
        raise ValueError("no configuration trains on a few batches")
    return demands, memory.total(device)
