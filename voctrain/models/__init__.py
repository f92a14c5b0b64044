"""Networks by name, and their published or saved weights."""

from voctrain.models.classifiers import CLASSIFIERS, Classifier, build_classifier
from voctrain.models.generators import GENERATORS, build_generator
from voctrain.models.segmenters import SEGMENTERS, Segmenter, build_segmenter

__all__ = [
    "CLASSIFIERS",
    "GENERATORS",
    "SEGMENTERS",
    "Classifier",
    "Segmenter",
    "build_classifier",
    "build_generator",
    "build_segmenter",
]
