"""How many random draws of a fine-tuning space are worth their first rung.

python tests/benchmarks/random_draws.py classify|segment [--data DIR] [--image-size PX] [--draws N] prints JSON, one
line per draw, then a summary: the probe's score, and the share of the draws that are above half of it at the first
rung. A draw that diverges counts as 0. Networks whose weights cannot be had are left out.
"""

import argparse
import json
import time
from itertools import islice

import optuna

from search.reporter import Reporter
from search.session.session import Session, open_session
from search.study.sampler import SeededSampler
from search.study.trials import asha_rungs
from search.tasks.pretrained import IMAGENET
from voctrain.config import TrainConfig


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=("classify", "segment"))
    parser.add_argument("--data", default="sample")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    given = {"data": arguments.data, "image_size": arguments.image_size, "weights": IMAGENET}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    session = open_session(arguments.task, {k: v for k, v in given.items() if v}, Reporter(quiet=True))
    probe = session.record.baseline[session.task.metric]
    study = optuna.create_study(sampler=SeededSampler("random", arguments.seed, {}))
    good = 0
    for number in range(1, arguments.draws + 1):
        config = session.problem.config(trial := study.ask())
        begin = time.monotonic()
        score = first_score(session, config)
        good += score > probe / 2
        line = {"draw": number, "score": round(score, 4), "seconds": round(time.monotonic() - begin, 1)}
        print(json.dumps({**line, **trial.params}), flush=True)
    name = f"{arguments.task} on {arguments.data}, {session.options.image_size} px"
    print(json.dumps({"space": name, "draws": arguments.draws, "probe": probe, "share": good / arguments.draws}))


def first_score(session: Session, config: TrainConfig) -> float:
    """The score at the first rung."""
    epochs = session.task.module.train(config, session.data)
    try:
        return list(islice(epochs, asha_rungs(config.epochs)[0]))[-1].metrics[session.task.metric]
    except FloatingPointError:
        return 0.0


if __name__ == "__main__":
    main()
