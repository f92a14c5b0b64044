"""The Optuna study of a run: its journal, its sampler and its trials."""
