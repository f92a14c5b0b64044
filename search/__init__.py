"""Hyperparameter search with Ray Tune and Optuna: who tries what, and when. See `search.api`."""

__version__ = "0.1.0"
