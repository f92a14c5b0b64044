"""The notebook's classifiers (SEED.md §2), for square images of any size from 32 px."""

from torch import nn


def simple(num_classes: int, image_size: int, in_channels: int = 3) -> nn.Sequential:
    """Two convolutions and a linear layer; 3,605,108 parameters for 20 classes at 300 px."""
    features = [
        *(nn.Conv2d(in_channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
    ]
    return nn.Sequential(*features, nn.Linear(_width(features, image_size), num_classes))


def complex(num_classes: int, image_size: int, in_channels: int = 3) -> nn.Sequential:
    """Four convolutions with batch normalisation and two linear layers; 42,867,476 parameters."""
    features: list[nn.Module] = []
    for before, after in zip((in_channels, 32, 64, 128), (32, 64, 128, 256), strict=True):
        features += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    features.append(nn.Flatten())
    width = _width(features, image_size)
    return nn.Sequential(*features, nn.Linear(width, 512), nn.ReLU(), nn.Linear(512, num_classes))


def tinyvgg(num_classes: int, image_size: int, in_channels: int = 3) -> nn.Sequential:
    """Five convolutions in three blocks with dropout, and two linear layers; 82,222,164 parameters."""

    def block(before: int, *after: int) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for width in after:
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(width)]
            before = width
        return layers

    features = [
        *(*block(in_channels, 32), nn.MaxPool2d(3), nn.Dropout(0.25)),
        *(*block(32, 64, 64), nn.MaxPool2d(2), nn.Dropout(0.25)),
        *(*block(64, 128, 128), nn.MaxPool2d(2), nn.Dropout(0.25)),
        nn.Flatten(),
    ]
    width = _width(features, image_size)
    head = [nn.Linear(width, 1024), nn.ReLU(), nn.BatchNorm1d(1024), nn.Dropout(0.5), nn.Linear(1024, num_classes)]
    return nn.Sequential(*features, *head)


def _width(features: list[nn.Module], image_size: int) -> int:
    """Of the flattened map that these layers make of an image."""
    side = image_size
    for layer in features:
        if isinstance(layer, nn.MaxPool2d):
            side //= layer.kernel_size
    channels = [layer.out_channels for layer in features if isinstance(layer, nn.Conv2d)][-1]
    return channels * side * side


NOTEBOOK = {"simple": simple, "complex": complex, "tinyvgg": tinyvgg}
