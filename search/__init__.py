"""Hyperparameter search with Ray Tune and Optuna: who tries what, and when. `search.api` has the commands as functions."""

__version__ = "0.1.0"
