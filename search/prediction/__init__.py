"""`search.predict`: predict any images with a trained model."""
