"""Images and masks as files that are named alike: images/ and masks/, or x.jpg and x_mask.png, possibly in parts.

The parts are folders such as train, valid and test, above or below those of images and masks. Images without a mask
are test images, as are all images of a part test.
"""

import re
from pathlib import Path

from voctrain.data.class_names import find_class_list, fold
from voctrain.data.image_files import image_files
from voctrain.data.layouts.listing import Example, Listing, checked
from voctrain.data.layouts.table import PARTS

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages")
MASK_FOLDERS = (
    *("masks", "mask", "labels", "label", "annotations", "segmentation", "segmentations", "segmentationclass"),
    *("seg", "gt", "ground_truth", "groundtruth", "trimaps"),
)
MASK_SUFFIX = re.compile(r"[_\-. ](masks?|seg|segmentation|labels?|gt)$", re.IGNORECASE)


def find_pairs(root: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """The images and the masks below a folder by a common key: the relative path without what tells the two apart."""
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    for path in image_files(root):
        *folders, _ = path.relative_to(root).parts
        folded = [fold(folder) for folder in folders]
        stem = path.stem
        is_mask = any(folder in MASK_FOLDERS for folder in folded) or MASK_SUFFIX.search(stem) is not None
        if is_mask:
            stem = MASK_SUFFIX.sub("", stem)
        place = [name for name, low in zip(folders, folded, strict=True) if low not in (*IMAGE_FOLDERS, *MASK_FOLDERS)]
        key = "/".join((*place, stem))
        if (other := (masks if is_mask else images).setdefault(key, path)) is not path:
            raise ValueError(f"an image must have one file and one mask, but there are {other} and {path}: remove one")
    return images, masks


def read_pairs(root: Path, images: dict[str, Path], masks: dict[str, Path]) -> Listing:
    """List the files. Raises `ValueError` if a mask has no image."""
    if lonely := [key for key in masks if key not in images]:
        raise ValueError(
            f"every mask must have an image of the same name, but {masks[lonely[0]]} has none, like"
            f" {len(lonely) - 1} others: restore the images, or remove the masks"
        )
    examples, tests = [], []
    for key, path in images.items():
        side = next((PARTS[low] for folder in key.split("/")[:-1] if (low := fold(folder)) in PARTS), "train")
        if side == "test" or key not in masks:
            tests.append(Example(key, path))
        else:
            examples.append(Example(key, path, masks[key], in_val=side == "val"))
    folders = {path.parent for path in masks.values()}
    places = sorted({*folders, *(folder.parent for folder in folders if folder != root)})
    class_list = find_class_list(root, *(place for place in places if place.is_relative_to(root)))
    return Listing("folders", root, checked(examples, str(root)), tuple(tests), class_list)
