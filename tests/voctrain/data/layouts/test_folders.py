import re
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.voctrain.data.drawing import folders, listed, masks_of, refusal, scene, write_xml
from voctrain.data.layouts import read_layout

pytestmark = pytest.mark.usefixtures("cache")

THREE = ("cell", "nucleus", "debris")


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images/{}.jpg", "masks/{}.png"),
        ("Images/{}.JPG", "Masks/{}.PNG"),
        ("images/{}.jpg", "masks/{}_mask.png"),
        ("img/{}.png", "gt/{}.png"),
        ("{}.jpg", "{}_mask.png"),
        ("{}.png", "{}_gt.png"),
        ("{}.jpg", "{}-labels.PNG"),
        ("{}.jpg", "masks/{}.png"),
        ("images/{}.jpg", "ground_truth/{}.tif"),
        ("images/{}.jpg", "annotations/trimaps/{}.png"),
        ("PNGImages/{}.png", "masks/{}.png_mask_1.png"),
        ("images/{}.jpg", "masks/{}.jpg.png"),
        ("train/{}.jpg", "train_masks/{}_mask.gif"),
        ("train_images/{}.jpg", "train_masks/{}.png"),
        ("train/images/{}.jpg", "train/masks/{}.png"),
        ("images/train/{}.jpg", "masks/train/{}.png"),
        ("deep/images/a b/{}.jpg", "deep/masks/a b/{}.png"),
    ],
)
def test_places(tmp_path, images, masks):
    drawn = folders(tmp_path, 4, 3, images=images, masks=masks)
    (tmp_path / "classes.txt").write_text("\n".join(THREE))
    (tmp_path / "Thumbs.db").touch()
    (tmp_path / ("._" + images.rpartition("/")[2].format("x00"))).touch()
    found = masks_of(tmp_path)
    assert [name.rpartition("/")[2] for name in found] == ["x00", "x01", "x02", "x03"]
    assert all(np.array_equal(mask, true) for mask, true in zip(found.values(), drawn, strict=True))


@pytest.mark.parametrize("pattern", ["{part}/{kind}/", "{kind}/{part}/", "{part}_{kind}/", "{part}2017/{kind}/"])
def test_parts(tmp_path, pattern):
    for part, n in (("train", 4), ("valid", 3), ("test", 2)):
        places = (pattern.format(part=part, kind=kind) for kind in ("images", "masks"))
        folders(tmp_path, n, images=next(places) + "{}.jpg", masks=next(places) + "{}.png")
    listing = read_layout(tmp_path)
    assert [len(part) for part in (listing.ids, listing.val_ids, listing.test_ids)] == [7, 3, 2]
    assert listing.masked == 7


def test_links_to_folders_are_followed_but_not_around(tmp_path):
    folders(tmp_path / "elsewhere", 4)
    (tmp_path / "set").mkdir()
    for kind in ("images", "masks"):
        (tmp_path / "set" / kind).symlink_to(tmp_path / "elsewhere" / kind)
    (tmp_path / "elsewhere/images/again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/images/self").symlink_to(tmp_path / "elsewhere/images")
    (tmp_path / "set/images/x99.jpg").symlink_to(tmp_path / "missing.jpg")
    assert read_layout(tmp_path / "set").ids == ("x00", "x01", "x02", "x03")


def test_images_without_a_mask_are_test_images(tmp_path):
    folders(tmp_path, 4)
    (tmp_path / "masks/x01.png").unlink()
    listing = read_layout(tmp_path)
    assert (len(listing.ids), listing.test_ids) == (3, ("x01",))


@pytest.mark.parametrize("place", [".", "masks", ".."])
def test_class_lists(tmp_path, place):
    folders(tmp_path / "set", 4, 3)
    (tmp_path / "set" / place / "class_names.txt").write_text("_background_\n" + "\n".join(THREE))
    assert listed(tmp_path if place == ".." else tmp_path / "set").classes.names == THREE


class TestAnnotations:
    @pytest.mark.parametrize("place", ["{part}/", "{part}/annotations/", "annotations/{part}/", "{part}/labels/xmls/"])
    def test_parts_of_roboflow_and_other_places(self, tmp_path, place):
        for part, n in (("train", 4), ("valid", 3), ("test", 2)):
            folder = tmp_path / place.format(part=part)
            folder.mkdir(parents=True)
            (tmp_path / part).mkdir(exist_ok=True)
            for i in range(n):
                Image.fromarray(scene(i, 1)[0]).save(tmp_path / part / f"x{i}.jpg")
                write_xml(folder / f"x{i}.xml", THREE[i % 2])
        listing = listed(tmp_path)
        assert listing.classes.names == ("cell", "nucleus")
        assert [len(part) for part in (listing.ids, listing.val_ids, listing.test_ids)] == [7, 3, 2]
        assert [listing.read(i)[2].tolist() for i in range(3)] == [[1, 0], [0, 1], [1, 0]]

    def test_images_without_one_are_test_images_and_masks_count_more(self, tmp_path):
        folders(tmp_path, 4)
        (tmp_path / "annotations").mkdir()
        for i in range(3):
            write_xml(tmp_path / f"annotations/x0{i}.xml", "tumor")
        assert (listed(tmp_path).masked, listed(tmp_path).examples[0].annotation) == (4, None)
        shutil.rmtree(tmp_path / "masks")
        listing = listed(tmp_path)
        assert (listing.masked, len(listing.ids), listing.test_ids) == (0, 3, ("x03",))


def test_camvid(tmp_path):
    """Folders such as train and trainannot, and a list of colors before names."""
    colors = np.uint8([(0, 0, 0), (48, 112, 32), (176, 112, 32), (16, 60, 200)])
    for part, n in (("train", 4), ("val", 3)):
        places = {"images": part + "/{}.png", "masks": part + "annot/{}.png"}
        drawn = folders(tmp_path, n, 3, change=lambda mask: colors[mask], **places)
    lines = (f"{r} {g} {b} {name}" for (r, g, b), name in zip(colors.tolist(), ("background", *THREE), strict=True))
    (tmp_path / "label_colors.txt").write_text("\n".join(lines))
    listing = listed(tmp_path)
    assert (listing.classes.names, len(listing.ids), listing.val_ids[0]) == (THREE, 7, "val/x00")
    np.testing.assert_array_equal(masks_of(tmp_path)["val/x02"], drawn[2])


def test_roboflows_masks(tmp_path):
    """x.jpg and x_mask.png, with a table of pixel values in each part."""
    for part in ("train", "valid"):
        folders(tmp_path, 4, 3, images=part + "/{}.jpg", masks=part + "/{}_mask.png")
        rows = "".join(f"{value}, {name}\n" for value, name in enumerate(("background", *THREE)))
        (tmp_path / part / "_classes.csv").write_text("Pixel Value, Class\n" + rows)
    listing = listed(tmp_path)
    assert str(listing.classes) == "3 classes from _classes.csv: cell, nucleus, debris"
    assert (len(listing.ids), len(listing.val_ids)) == (8, 4)


class TestBinaryMasks:
    """0 and 255 in a set of one class or without a list."""

    @pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
    def test_they_are_noticed(self, tmp_path, mode):
        folders(tmp_path, change=lambda mask: np.array(Image.fromarray(mask * 255).convert(mode)))
        message = refusal(tmp_path)
        assert "255 is void" in message
        assert "contain only 0 and 255: if 255 marks your objects, pass --mask-value 255=1, or 255=NAME" in message

    @pytest.mark.parametrize("mode", ["L", "RGB"])
    @pytest.mark.parametrize(
        ("options", "names"),
        [({"mask_values": ["255=1"]}, ("object",)), ({"mask_values": ["255=lesion"]}, ("lesion",)), ({}, ("tumor",))],
    )
    def test_they_are_read_as_a_class(self, tmp_path, mode, options, names):
        drawn = folders(tmp_path, change=lambda mask: np.array(Image.fromarray(mask * 255).convert(mode)))
        if not options:
            (tmp_path / "classes.txt").write_text("tumor")
        assert listed(tmp_path, **options).classes.names == names
        found = masks_of(tmp_path, **options)
        assert all(np.array_equal(mask, true) for mask, true in zip(found.values(), drawn, strict=True))

    def test_single_bits(self, tmp_path):
        drawn = folders(tmp_path, change=lambda mask: mask == 1)
        assert listed(tmp_path).classes.names == ("object",)
        assert all(np.array_equal(*pair) for pair in zip(masks_of(tmp_path).values(), drawn, strict=True))

    def test_several_classes_in_the_list_leave_them_void(self, tmp_path):
        folders(tmp_path, change=lambda mask: mask * 255)
        (tmp_path / "classes.txt").write_text("\n".join(THREE))
        assert "contain only 0 and 255" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / "images/x02.jpg").unlink(), "every mask must have an image of the same name, but"),
        (lambda d: (d / "images/x02.png").write_bytes(b""), "one file, and one mask, but there are"),
        (lambda d: (d / "masks/x02_mask.png").write_bytes(b""), "one file, and one mask, but there are"),
        (lambda d: (d / "masks/x02.png").write_bytes(b""), "x02.png is not"),
        (lambda d: [path.unlink() for path in (d / "masks").iterdir()], "but '.*' has none: pass the folder"),
    ],
)
def test_bad_sets_are_refused(tmp_path, spoil, message):
    folders(tmp_path)
    spoil(tmp_path)
    assert re.search(message, refusal(tmp_path))
