"""Images and masks as files that are named alike: images/ and masks/, or x.jpg and x_mask.png, possibly in parts.

The parts are folders such as train, valid and test, above or below those of images and masks, or in their names, such
as train_masks. Images without a mask are test images, as are all images of a part test. Without masks, Pascal XML files
beside the images or in a folder such as annotations take their place, as LabelImg and Roboflow write them.
"""

from dataclasses import dataclass, field
from pathlib import Path

from voctrain.data.class_names import find_class_list
from voctrain.data.image_files import IMAGE_ENDINGS, composed, files_below
from voctrain.data.layouts.listing import Example, Listing, checked
from voctrain.data.layouts.parts import pair_key, part_of


@dataclass
class Pairs:
    """The images and the masks below a folder, by what the two have in common."""

    images: dict[str, Path] = field(default_factory=dict)
    masks: dict[str, Path] = field(default_factory=dict)
    annotations: dict[str, Path] = field(default_factory=dict)  # Pascal XML
    twice: list[tuple[Path, Path]] = field(default_factory=list)  # two files for one of these

    @property
    def matched(self) -> bool:
        """Whether there are masks, and each has an image."""
        return bool(self.masks) and self.masks.keys() <= self.images.keys()


def find_pairs(root: Path) -> Pairs:
    """Find the images, the masks and the annotations below a folder."""
    pairs = Pairs()
    for path in files_below(root, (*IMAGE_ENDINGS, ".xml")):
        key, is_mask = pair_key(path.relative_to(root))
        kind = pairs.annotations if path.suffix.lower() == ".xml" else pairs.masks if is_mask else pairs.images
        if (other := kind.setdefault(composed(key), path)) is not path:
            pairs.twice.append((other, path))
    return pairs


def read_pairs(root: Path, pairs: Pairs, notes: tuple[str, ...] = ()) -> Listing:
    """List the files. Raises `ValueError` if a mask has no image, or an image has two files or masks."""
    if pairs.twice:
        one, other = pairs.twice[0]
        raise ValueError(f"an image must have one file, and one mask, but there are {one} and {other}: remove one")
    if lonely := [key for key in pairs.masks if key not in pairs.images]:
        raise ValueError(
            f"every mask must have an image of the same name, but {pairs.masks[lonely[0]]} has none, like"
            f" {len(lonely) - 1} others: restore the images, or remove the masks"
        )
    examples, tests = [], []
    for key, path in pairs.images.items():
        side = next((part for folder in key.split("/")[:-1] if (part := part_of(folder))), "train")
        mask, xml = pairs.masks.get(key), None if pairs.masks else pairs.annotations.get(key)
        if side == "test" or mask is xml is None:
            tests.append(Example(key, path))
        else:
            examples.append(Example(key, path, mask, xml, in_val=side == "val"))
    folders = {path.parent for path in (pairs.masks or pairs.annotations).values()}
    places = sorted({*folders, *(folder.parent for folder in folders if folder != root)})
    class_list = find_class_list(root, *(place for place in places if place.is_relative_to(root)))
    return Listing("folders", root, checked(examples, str(root)), tuple(tests), class_list, notes)
