"""Adversarial attack: a generator of perturbations that fool a classifier."""

from voctrain.attack.training import (
    METRIC,
    AttackEvaluator,
    check,
    check_victim,
    checkpoint,
    deploy,
    input_size,
    new_model,
    perturbations,
    predict,
    restore,
    train,
    training_images,
)

__all__ = [
    "METRIC",
    "AttackEvaluator",
    "check",
    "check_victim",
    "checkpoint",
    "deploy",
    "input_size",
    "new_model",
    "perturbations",
    "predict",
    "restore",
    "train",
    "training_images",
]
