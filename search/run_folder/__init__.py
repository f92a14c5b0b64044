"""A run's folder: its files, who may write it, and the records in it."""
