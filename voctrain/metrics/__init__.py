"""Metrics: counts are accumulated over all images and divided once."""
