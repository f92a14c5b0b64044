"""`Listing`: the files of a set, however they are laid out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from voctrain.data.class_names import VOID, ClassList, are_vocs, in_short, object_names
from voctrain.data.image_files import Index, read_image
from voctrain.data.mask_files import read_mask
from voctrain.data.text_files import naming_file


class DrawnMask(Protocol):
    """A mask that is drawn from shapes in an annotation file."""

    @property
    def path(self) -> Path:
        """The annotation file."""
        ...

    def draw(self, height: int, width: int) -> np.ndarray:
        """The label map, uint8 (height, width)."""
        ...


@dataclass(frozen=True)
class Example:
    """One labeled image. Its labels are `names`; if None, those in the mask; without one, those in the annotation."""

    id: str
    image: Path
    mask: Path | DrawnMask | None = None
    annotation: Path | None = None  # Pascal XML
    names: frozenset[str] | None = None
    group: str | None = None  # images of one group belong on one side of a split
    in_val: bool = False  # in the set's own validation part

    @property
    def files(self) -> list[Path]:
        """All files that this example is read from."""
        mask = self.mask if self.mask is None or isinstance(self.mask, Path) else self.mask.path
        return [path for path in (self.image, mask, self.annotation) if path is not None]


@dataclass(frozen=True, eq=False)
class Listing:
    """The labeled and the test images of a set: which there are and where. Nothing is decoded yet."""

    layout: str  # devkit, kaggle, table, folders or coco
    root: Path
    examples: tuple[Example, ...]
    tests: tuple[Example, ...]
    class_list: ClassList | None  # None: the layout does not say, see `discovery.find_classes`
    notes: tuple[str, ...] = ()  # what the user should know, one line each

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(example.id for example in self.examples)

    @property
    def test_ids(self) -> tuple[str, ...]:
        return tuple(example.id for example in self.tests)

    @property
    def val_ids(self) -> tuple[str, ...]:
        """The labeled images in the set's own validation part."""
        return tuple(example.id for example in self.examples if example.in_val)

    @property
    def groups(self) -> tuple[str, ...] | None:
        """The group of each labeled image; an image without one is its own. None if no image has a group."""
        if all(example.group is None for example in self.examples):
            return None
        return tuple(f"image {e.id}" if e.group is None else f"group {e.group}" for e in self.examples)

    @property
    def files(self) -> list[Path]:
        """All files, each once, in a fixed order."""
        return list(dict.fromkeys(path for example in (*self.examples, *self.tests) for path in example.files))

    @property
    def classes(self) -> ClassList:
        """The classes, once they are known."""
        assert self.class_list is not None
        return self.class_list

    @property
    def masked(self) -> int:
        """The number of labeled images with a mask."""
        return sum(example.mask is not None for example in self.examples)

    def only(self, kept: Sequence[bool], kept_tests: Sequence[bool]) -> "Listing":
        """The labeled and test images for which these are true."""
        examples = tuple(example for example, keep in zip(self.examples, kept, strict=True) if keep)
        tests = tuple(example for example, keep in zip(self.tests, kept_tests, strict=True) if keep)
        return replace(self, examples=examples, tests=tests)

    def with_classes(self, classes: ClassList) -> "Listing":
        """The same files with these classes."""
        return replace(self, class_list=classes)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Read labeled image `index`: uint8 (H, W, 3), its mask, uint8 (H, W) or None, and its labels, uint8 (C,).

        Raises `ValueError` for a file that is damaged or malformed.
        """
        example = self.examples[index]
        image = read_image(example.image)
        mask = self._read_mask(example, image.shape[0], image.shape[1])
        if mask is not None and mask.shape != image.shape[:2]:
            raise ValueError(
                f"image and mask must have the same height and width, but {example.image} is {image.shape[:2]} and"
                f" {example.files[1]} is {mask.shape}: replace the wrong one"
            )
        return image, mask, self.labels(example, mask)

    def _read_mask(self, example: Example, height: int, width: int) -> np.ndarray | None:
        if example.mask is None:
            return None
        if isinstance(example.mask, Path):
            return read_mask(example.mask, self.classes)
        return example.mask.draw(height, width)

    def labels(self, example: Example, mask: np.ndarray | None) -> np.ndarray:
        """The labels, uint8 (C,), of an example with this mask."""
        if example.names is not None:
            return numbered(example.names, self.classes, str(example.image))
        if mask is not None:
            return classes_in(mask, len(self.classes.names))
        assert example.annotation is not None, "a labeled image has labels"
        return read_objects(example.annotation, self.classes)


def classes_in(mask: np.ndarray, num_classes: int) -> np.ndarray:
    """The labels, uint8 (num_classes,), of a label map: 1 for each class with at least one pixel."""
    return (np.bincount(mask.ravel(), minlength=256)[1 : num_classes + 1] > 0).astype(np.uint8)


def labels_in(mask: np.ndarray | None, labels: np.ndarray) -> np.ndarray:
    """The labels, uint8 (C,), in the mask of an image; without one, or if all of it is void, the image's labels."""
    return labels if mask is None or (mask == VOID).all() else classes_in(mask, len(labels))


def read_objects(path: Path, classes: ClassList) -> np.ndarray:
    """The labels, uint8 (C,), in an XML annotation: 1 for each class with an object, including difficult ones."""
    with naming_file(path):
        names = object_names(path)
    return numbered(names, classes, str(path))


def numbered(names: Sequence[str] | frozenset[str], classes: ClassList, origin: str) -> np.ndarray:
    """Class names as labels, uint8 (C,). Raises `ValueError` for a name that is not a class."""
    labels = np.zeros(len(classes.names), np.uint8)
    for name in names:
        number = classes.number(name)
        if number is None:
            own = "VOC's 20" if are_vocs(classes.names) and len(classes.names) == 20 else in_short(classes.names)
            raise ValueError(
                f"labels must be of the classes of {classes.source} ({own}), but {origin} has {name!r}: rename it, or"
                " list it there"
            )
        labels[number - 1] = 1
    return labels


def find_all(index: Index, texts: Sequence[str], origin: Path) -> list[str]:
    """The ids of the images that a file lists, by paths below its folder or as `Index.find`.

    Raises `ValueError` that names those that are missing.
    """
    place = origin.parent.relative_to(index.folder)
    found = [index.find((place / text).as_posix()) or index.find(text) for text in texts]
    if missing := [text for text, name in zip(texts, found, strict=True) if name is None]:
        raise ValueError(
            f"every file of the data set must exist, but {origin} lists {in_short(missing)}, missing in {index.folder}:"
            " restore the images, or remove the entries"
        )
    return [name for name in found if name is not None]


def checked(examples: Sequence[Example], origin: str, allow_none: bool = False) -> tuple[Example, ...]:
    """The examples. Raises `ValueError` if an id occurs twice, or there are none."""
    twice = next((name for name, n in Counter(example.id for example in examples).items() if n > 1), None)
    if twice is not None:
        raise ValueError(f"ids must be unique, but {origin} has {twice!r} twice: remove one")
    if not examples and not allow_none:
        raise ValueError(f"a set must have labeled images, but {origin} lists no images: list those with labels")
    return tuple(examples)
