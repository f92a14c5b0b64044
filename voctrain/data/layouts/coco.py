"""COCO's layout: a JSON file of instances per part, with the images beside it or in a folder.

Annotations become labels, and their shapes become masks: small objects lie over large ones, and crowds are void.
Drawing shapes needs pycocotools.
"""

import importlib.util
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voctrain.data.class_names import VOID, ClassList, canonical, check_names, find_class_list, is_background, is_void
from voctrain.data.image_files import Index, files_below
from voctrain.data.layouts.listing import Example, Listing, checked, find_all
from voctrain.data.layouts.parts import pair_key, part_of, part_of_folder
from voctrain.data.text_files import naming_file

ID = (int, str)
KEYS = {
    "images": {"id": ID, "file_name": str},
    "annotations": {"image_id": ID, "category_id": ID},
    "categories": {"id": ID, "name": str},
}


@dataclass(frozen=True, eq=False)
class Drawing:
    """The shapes of one image."""

    path: Path  # of the JSON file
    name: str  # of the image
    size: tuple[object, object]  # height and width as the file says, or None
    shapes: tuple[tuple[int, Any], ...]  # class number or void, and polygons or run-length codes, bottom first

    def draw(self, height: int, width: int) -> np.ndarray:
        """The label map, uint8 (height, width). Raises `ValueError` if a shape is malformed, or for another size."""
        from pycocotools import mask as coco

        if None not in self.size and self.size != (height, width):
            raise ValueError(
                f"shapes must be drawn on the image as it is shown, but {self.path} says that {self.name} is"
                f" {self.size[0]} x {self.size[1]}, and it is {height} x {width}: export it again"
            )
        label_map = np.zeros((height, width), np.uint8)
        for number, shape in self.shapes:
            if not _is_shape(shape, height, width):
                raise ValueError(
                    "a shape must be polygons of at least three points near the image, or a run-length code of its"
                    f" size, but {self.path} has another one for {self.name}: export it again"
                )
            with naming_file(self.path):
                if isinstance(shape, list):
                    code = coco.merge(coco.frPyObjects(shape, height, width))
                else:
                    code = coco.frPyObjects(shape, height, width) if isinstance(shape["counts"], list) else shape
                label_map[coco.decode(code).astype(bool)] = number
        return label_map


def _is_shape(shape: object, height: int, width: int) -> bool:
    """Whether pycocotools can draw this: it crashes, or draws something else, for what it cannot."""
    if isinstance(shape, dict):
        counts = shape.get("counts")
        if isinstance(counts, list):
            sound = all(type(n) is int and n >= 0 for n in counts) and sum(counts) == height * width
        else:
            sound = isinstance(counts, str) and counts.isascii()
        return sound and shape.get("size") == [height, width]
    far = 2 * max(height, width)
    return isinstance(shape, list) and all(
        isinstance(points, list)
        and len(points) >= 6
        and len(points) % 2 == 0
        and all(type(value) in (int, float) and -far <= value <= far for value in points)
        for points in shape
    )


def instance_files(folder: Path) -> list[Path]:
    """The JSON files of instances in a folder, its parts and its folder of annotations.

    COCO itself puts files of captions and of keypoints of the same images beside these.
    """
    places = (folder, *(path for path in sorted(folder.iterdir()) if path.is_dir()))
    candidates = (path for place in places for path in files_below(place, [".json"], deep=False))
    found = [path for path in candidates if _is_instances(path)]
    return [path for path in found if path.stem.startswith("instances")] or found


def _is_instances(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(1 << 20)
    except OSError:
        return False
    # Files of gigabytes are not parsed only to find out: the keys stand somewhere at the start or end of the file.
    return b'"images"' in head and (b'"categories"' in head or b'"annotations"' in head or len(head) == 1 << 20)


def read_coco(root: Path, files: list[Path]) -> Listing:
    """List the files. Raises `ValueError` for a malformed file, or if shapes cannot be drawn."""
    index = Index(root)
    parts = [(path, part_of(path.stem) or part_of_folder(root, path) or "train", _read(path)) for path in files]
    names = _categories([(path, content) for path, _, content in parts])
    own = find_class_list(root)
    classes = own or ClassList(canonical(names), f"the categories of {files[0].name}")
    numbers = {name: classes.number(name) for name in names}
    if unknown := next((name for name, number in numbers.items() if number is None), None):
        raise ValueError(f"{files[0]} has the category {unknown!r}, which {classes.source} does not list: add it")
    examples: list[Example] = []
    tests: list[Example] = []
    for path, part, content in parts:
        for example in _examples(path, part, content, index, {k: v or 0 for k, v in numbers.items()}):
            (tests if part == "test" else examples).append(example)
    if any(example.mask for example in examples) and importlib.util.find_spec("pycocotools") is None:
        raise ValueError(f"{files[0]} has shapes, which need pycocotools: run pip install pycocotools")
    used = {example.id for example in (*examples, *tests)}
    others = [
        Example(name, path)
        for name, path in index.paths.items()
        if name not in used and not pair_key(path.relative_to(root))[1]
    ]
    found = checked(examples, str(files[0]))
    notes = tuple(note for path, _, content in parts for note in _unused(path, content))
    return Listing("coco", root, found, checked([*tests, *others], str(root), allow_none=True), classes, notes)


def _unused(path: Path, content: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """What the user should know of annotations of images that the file does not list."""
    known = {image["id"] for image in content["images"]}
    lost = [a["image_id"] for a in content["annotations"] if a["image_id"] not in known]
    if lost:
        yield f"{len(lost)} annotations in {path} belong to no image, such as one of image {lost[0]}: they are not used"


def _read(path: Path) -> dict[str, list[dict[str, Any]]]:
    with naming_file(path):
        content = json.loads(path.read_bytes())
        for kind, keys in KEYS.items():
            for entry in content.setdefault(kind, []):
                if wrong := next((key for key, types in keys.items() if not isinstance(entry.get(key), types)), None):
                    raise TypeError(f"an entry of {kind} has no valid {wrong}")
                if not isinstance(entry.get("area") or 0, (int, float)):
                    raise TypeError(f"an area in {kind} is not a number")
        for number, count in Counter(image["id"] for image in content["images"]).items():
            if count > 1:
                raise ValueError(f"{count} images have the id {number}")
    return content


def _categories(parts: list[tuple[Path, dict[str, list[dict[str, Any]]]]]) -> list[str]:
    """The names of the categories by their ids. Roboflow adds one that only groups the others: it is left out."""
    by_id: dict[int | str, str] = {}
    used = {a["category_id"] for _, content in parts for a in content["annotations"]}
    every = [category for _, content in parts for category in content["categories"]]
    above = {str(c.get("supercategory")) for c in every if c.get("supercategory") != c["name"]}
    for path, content in parts:
        for category in content["categories"]:
            name = by_id.setdefault(category["id"], category["name"])
            if name != category["name"]:
                raise ValueError(
                    f"all parts must number the categories alike, but {category['id']} is {name!r} and, in {path},"
                    f" {category['name']!r}: export them together"
                )
    in_order = sorted(by_id.items(), key=lambda item: (isinstance(item[0], str), item[0]))
    names = [name for number, name in in_order if number in used or name not in above]
    names = [name for name in names if not is_background(name) and not is_void(name)]
    check_names(names, str(parts[0][0]))
    return names


def _examples(
    path: Path, part: str, content: dict[str, list[dict[str, Any]]], index: Index, numbers: dict[str, int]
) -> Iterator[Example]:
    categories = {c["id"]: c["name"] for c in content["categories"]}
    by_image: dict[object, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        if annotation["category_id"] not in categories:
            raise ValueError(
                f"{path} has an annotation of category {annotation['category_id']}, which it does not list"
            )
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    drawn = any(annotation.get("segmentation") for annotation in content["annotations"])
    texts = [str(image["file_name"]) for image in content["images"]]
    for image, text, name in zip(content["images"], texts, find_all(index, texts, path), strict=True):
        found = [(a, categories[a["category_id"]]) for a in by_image.get(image["id"], [])]
        shapes = sorted((pair for pair in found if pair[0].get("segmentation")), key=lambda a: -(a[0].get("area") or 0))
        layers = tuple(
            (VOID if a.get("iscrowd") or is_void(category) else numbers.get(category, 0), a["segmentation"])
            for a, category in shapes
        )
        whole = drawn and len(shapes) == len(found)  # an object without a shape would be background
        mask = Drawing(path, text, (image.get("height"), image.get("width")), layers) if whole else None
        labels = frozenset(category for _, category in found if category in numbers)
        yield Example(name, index.paths[name], mask, names=labels, in_val=part == "val")
