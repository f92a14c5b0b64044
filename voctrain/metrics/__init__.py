"""Metrics, counted over all images and divided once."""
