"""Search spaces: what may vary. Plain functions over an Optuna trial."""
