"""`search.export`: a trained model as a file that others can run."""
