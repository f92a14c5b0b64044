"""The networks by name, and their published or saved weights."""

from voctrain.models.classifiers import CLASSIFIERS, Classifier, build_classifier

__all__ = ["CLASSIFIERS", "Classifier", "build_classifier"]
