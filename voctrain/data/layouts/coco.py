"""COCO's layout: a JSON file of instances per part, with the images beside it or in a folder.

Annotations become labels, and their shapes become masks: small objects lie over large ones, and crowds are void.
Drawing shapes needs pycocotools.
"""

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voctrain.data.class_names import VOID, ClassList, canonical, check_names, find_class_list
from voctrain.data.image_files import Index
from voctrain.data.layouts.listing import Example, Listing, checked
from voctrain.data.layouts.table import part_of
from voctrain.data.text_files import naming_file

KEYS = {"images": ("id", "file_name"), "annotations": ("image_id", "category_id"), "categories": ("id", "name")}


@dataclass(frozen=True, eq=False)
class Drawing:
    """The shapes of one image."""

    path: Path  # of the JSON file
    shapes: tuple[tuple[int, Any], ...]  # class number or void, and polygons or run-length codes, bottom first

    def draw(self, height: int, width: int) -> np.ndarray:
        """The label map, uint8 (height, width)."""
        from pycocotools import mask as coco

        label_map = np.zeros((height, width), np.uint8)
        with naming_file(self.path):
            for number, shape in self.shapes:
                if isinstance(shape, list):
                    code = coco.merge(coco.frPyObjects(shape, height, width))
                elif isinstance(shape["counts"], list):
                    code = coco.frPyObjects(shape, *shape["size"])
                else:
                    code = shape
                label_map[coco.decode(code).astype(bool)] = number
        return label_map


def instance_files(folder: Path) -> list[Path]:
    """The JSON files of instances in a folder, its parts and its folder of annotations."""
    places = (folder, *(path for path in sorted(folder.iterdir()) if path.is_dir()))
    candidates = (path for place in places for path in sorted(place.glob("*.json")))
    return [path for path in candidates if _is_instances(path)]


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
    parts = [(path, part_of(path.stem) or part_of(path.parent.name) or "train", _read(path)) for path in files]
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
    others = [Example(name, path) for name, path in index.paths.items() if name not in used]
    found = checked(examples, str(files[0]))
    return Listing("coco", root, found, checked([*tests, *others], str(root), allow_none=True), classes)


def _read(path: Path) -> dict[str, list[dict[str, Any]]]:
    with naming_file(path):
        content = json.loads(path.read_bytes())
        for kind, keys in KEYS.items():
            for entry in content.setdefault(kind, []):
                for key in keys:
                    entry[key]  # pyright: ignore[reportUnusedExpression]  # raises for a malformed entry
    return content


def _categories(parts: list[tuple[Path, dict[str, list[dict[str, Any]]]]]) -> list[str]:
    """The names of the categories by their ids. Roboflow adds one that only groups the others: it is left out."""
    by_id: dict[int, str] = {}
    used = {a["category_id"] for _, content in parts for a in content["annotations"]}
    above = {c.get("supercategory") for _, content in parts for c in content["categories"]}
    for path, content in parts:
        for category in content["categories"]:
            name = by_id.setdefault(category["id"], category["name"])
            if name != category["name"]:
                raise ValueError(
                    f"all parts must number the categories alike, but {category['id']} is {name!r} and, in {path},"
                    f" {category['name']!r}: export them together"
                )
    names = [name for number, name in sorted(by_id.items()) if number in used or name not in above]
    check_names(names, str(parts[0][0]))
    return names


def _examples(
    path: Path, part: str, content: dict[str, list[dict[str, Any]]], index: Index, numbers: dict[str, int]
) -> Iterator[Example]:
    categories = {c["id"]: c["name"] for c in content["categories"] if c["name"] in numbers}
    by_image: dict[object, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        if annotation["category_id"] not in categories:
            raise ValueError(
                f"{path} has an annotation of category {annotation['category_id']}, which it does not list"
            )
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    drawn = any(annotation.get("segmentation") for annotation in content["annotations"])
    for image in content["images"]:
        text = str(image["file_name"])
        name = index.find((path.parent.relative_to(index.folder) / text).as_posix()) or index.find(text)
        if name is None:
            raise ValueError(
                f"every file of the data set must exist, but {path} lists {text!r}, which is missing in {index.folder}:"
                " restore it, or remove the entry"
            )
        found = by_image.get(image["id"], [])
        shapes = sorted((a for a in found if a.get("segmentation")), key=lambda a: -float(a.get("area", 0)))
        layers = tuple(
            (VOID if a.get("iscrowd") else numbers[categories[a["category_id"]]], a["segmentation"]) for a in shapes
        )
        labels = frozenset(categories[a["category_id"]] for a in found)
        mask = Drawing(path, layers) if drawn else None
        yield Example(name, index.paths[name], mask, names=labels, in_val=part == "val")
