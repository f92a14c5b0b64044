"""What a call of `search.run` would run, and about how long it would take."""

import time

import optuna
import torch

from search.session.problem import Problem
from search.session.session import Session
from search.study.sampler import SeededSampler
from search.study.time_left import expected_epochs
from search.text import assignments, duration
from search.trial.device import pick_device
from voctrain.config import TrainConfig


def describe_session(session: Session) -> list[str]:
    """Lines that tell trials, epochs, resources, the time by one measured epoch, and the first configurations."""
    record, data, resources = session.record, session.data, session.resources
    configs = first_configurations(session.problem, session.options.sampler, 5)
    seconds = epoch_seconds(session, configs[0])
    workload = session.workload
    expected = duration(seconds * expected_epochs(workload) / resources.concurrent)
    changed = ({k: v for k, v in config.to_dict().items() if v is not None} for config in configs)
    return [
        f"{record.task} on {session.options.data}: {len(data.train)} training, {len(data.val)} validation and"
        f" {len(data.test_ids)} test images at {record.image_size} px ({record.resize})",
        f"{session.options.trials} trials of up to {record.epochs} epochs, {resources.concurrent} at a time,"
        f" {resources.cpus} CPU and {resources.gpus:g} GPU each, into {session.paths.folder}",
        f"one epoch of the first configuration took {seconds:.1f} s: about {expected} in all"
        f"{' with pruning' if workload.prunes else ''}, depending on the architectures",
        *(f"{number}: {assignments(config)}" for number, config in enumerate(changed)),
    ]


def first_configurations(problem: Problem, sampler: str, number: int) -> list[TrainConfig]:
    """The configurations that the search would try first: its portfolio, then random ones."""
    study = optuna.create_study(sampler=SeededSampler(sampler, problem.fixed["seed"], problem.pins))
    for _, entry in problem.portfolio():
        study.enqueue_trial(entry)
    return [problem.config(study.ask()) for _ in range(number)]


def epoch_seconds(session: Session, config: TrainConfig) -> float:
    """Seconds of one epoch, including its evaluation but not the set-up, with a trial's share of the machine."""
    torch.set_num_threads(session.resources.cpus)
    before = time.monotonic()
    next(session.task.module.train(config, session.data, device=pick_device() if session.resources.gpus else "cpu"))
    return time.monotonic() - before
