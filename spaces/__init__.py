"""Search spaces: what may vary, as plain functions of an Optuna trial."""
