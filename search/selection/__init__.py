"""`search.final`: retrain the best configurations, choose one, train the final model."""
