"""What a call of `search.run` would do, and about how long it would take."""

import time

import optuna
import torch

from search.running.live import duration
from search.session.problem import Problem
from search.session.session import Session
from search.study.sampler import SeededSampler
from search.study.time_left import expected_epochs
from search.trial.training import pick_device
from voctrain.config import TrainConfig


def describe_session(session: Session) -> int:
    """Print trials, epochs, resources, the time by one measured epoch, and the first configurations; returns 0."""
    arguments, data = session.arguments, session.data
    resources = session.resources
    configs = first_configurations(session.problem, arguments["sampler"], 5)
    seconds = epoch_seconds(session, configs[0])
    plan = session.plan
    print(
        f"{arguments['task']} on {arguments['data']}: {len(data.train)} training, {len(data.val)} validation and"
        f" {len(data.test_ids)} test images at {arguments['image_size']} px"
    )
    print(
        f"{arguments['trials']} trials of up to {arguments['epochs']} epochs, {resources.concurrent} at a time,"
        f" {resources.cpus} CPU and {resources.gpus:g} GPU each, into {session.folder}"
    )
    expected = duration(seconds * expected_epochs(plan) / resources.concurrent)
    print(
        f"one epoch of the first configuration took {seconds:.1f} s: about"
        f" {expected} in all{' with pruning' if plan.prunes else ''},"
        " more or less by the architectures"
    )
    for number, config in enumerate(configs):
        changed = {k: v for k, v in config.to_dict().items() if v is not None}
        print(
            f"{number}: " + " ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in changed.items())
        )
    return 0


def first_configurations(problem: Problem, sampler: str, number: int) -> list[TrainConfig]:
    """The configurations that the search would try first: its portfolio, then the sampler's random start."""
    study = optuna.create_study(sampler=SeededSampler(sampler, problem.fixed["seed"], problem.pins))
    for _, entry in problem.portfolio():
        study.enqueue_trial(entry)
    return [problem.config(study.ask()) for _ in range(number)]


def epoch_seconds(session: Session, config: TrainConfig) -> float:
    """Seconds of one epoch, evaluation included, with a trial's share of the machine; its start is not counted."""
    torch.set_num_threads(session.resources.cpus)
    before = time.monotonic()
    next(session.problem.task.module.train(config, session.data, device=pick_device(session.resources.gpus)))
    return time.monotonic() - before
