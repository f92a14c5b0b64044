"""One training with its checkpoints."""
