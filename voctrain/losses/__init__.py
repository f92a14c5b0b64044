"""Training losses, one module per task."""
