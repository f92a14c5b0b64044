"""Sets as people report them in public bug trackers, continued: annotations, lists, and the files of images."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.voctrain.data.drawing import (
    SIZE,
    assert_masks,
    classes_of,
    devkit,
    listed,
    refusal,
    write_lines,
    write_xml,
)
from voctrain.data import load
from voctrain.data.class_names import VOC_CLASSES

pytestmark = pytest.mark.usefixtures("cache")

THREE = ("weld", "crack", "rust")
SEGMENTATION = "ImageSets/Segmentation"


class TestAnnotationsAlone:
    """06 and 13: XML with own names (gluon-cv#587), and lists in ImageSets/Main (datumaro#2084)."""

    def test_own_names(self, tmp_path):
        ids = devkit(tmp_path, ("helmet", "vest", "head"), masks=False, xml=True)
        write_xml(tmp_path / f"Annotations/{ids[0]}.xml")
        write_xml(tmp_path / f"Annotations/{ids[1]}.xml", " HELMET", "helmet", "Vest ")
        data = load(tmp_path, image_size=8)
        assert [name.casefold() for name in data.classes] == ["head", "helmet", "vest"]
        assert data.labels[:3].tolist() == [[0, 0, 0], [0, 1, 1], [1, 0, 0]]
        assert data.masks is None

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1"])
    def test_encodings_of_xml(self, tmp_path, encoding):
        for name in devkit(tmp_path, ("a",), masks=False, xml=True):
            text = f"<?xml version='1.0' encoding='{encoding.removesuffix('-sig')}'?>\r\n<annotation><object>"
            text += "<name>Käfer &amp; Co</name><difficult>1</difficult></object></annotation>"
            (tmp_path / f"Annotations/{name}.xml").write_bytes(text.encode(encoding))
        assert classes_of(tmp_path) == ("Käfer & Co",)

    def test_lists_of_main(self, tmp_path):
        ids = devkit(tmp_path, VOC_CLASSES, n=24, masks=False, xml=True, lists=False)
        main = tmp_path / "ImageSets/Main"
        write_lines(main / "train.txt", ids[:18])
        write_lines(main / "val.txt", ids[18:])
        for k, name in enumerate(VOC_CLASSES):
            write_lines(main / f"{name}_train.txt", [f"{i} {1 if j == k else -1:2}" for j, i in enumerate(ids[:18])])
        data = load(tmp_path, image_size=8)
        assert (len(data.ids), data.test_ids, data.classes) == (24, (), VOC_CLASSES)
        assert data.labels[5].nonzero()[0].tolist() == [5]

    def test_lists_of_main_without_annotations(self, tmp_path):
        ids = devkit(tmp_path, THREE, masks=False, lists=False)
        write_lines(tmp_path / "ImageSets/Main/train.txt", ids)
        for k, name in enumerate(THREE):
            lines = [f"{i} {1 if j % 3 == k else -1:2}" for j, i in enumerate(ids)]
            write_lines(tmp_path / f"ImageSets/Main/{name}_train.txt", lines)
        data = load(tmp_path, image_size=8)
        assert data.classes == ("crack", "rust", "weld")
        assert data.labels.sum(0).tolist() == [4, 4, 4]


class TestEndings:
    """11: .JPG, .jpeg, .png, mixed (mmdetection#7968, YOLOX#1032)."""

    @pytest.mark.parametrize("ending", ["JPG", "jpeg", "JPEG", "png", "PNG", "bmp", "webp", "tif", "jfif"])
    def test_all_files(self, tmp_path, ending):
        devkit(tmp_path, THREE, xml=True, ending=ending)
        assert_masks(tmp_path, THREE)
        assert load(tmp_path, image_size=8).images.mean() > 20

    def test_mixed_and_beside_other_files(self, tmp_path):
        ids = devkit(tmp_path, THREE, xml=True)
        for i, name in enumerate(ids):
            path = tmp_path / f"JPEGImages/{name}.jpg"
            path.rename(path.with_suffix((".JPG", ".jpeg", ".png")[i % 3]))
        for name in ("JPEGImages/Thumbs.db", "JPEGImages/._img_00.jpg", "Annotations/._img_00.xml", "JPEGImages/x.txt"):
            (tmp_path / name).write_bytes(b"\0\5\x16\7")
        assert_masks(tmp_path, THREE)
        assert listed(tmp_path).test_ids == ()

    def test_an_image_twice(self, tmp_path):
        devkit(tmp_path, THREE)
        shutil.copy(tmp_path / "JPEGImages/img_02.jpg", tmp_path / "JPEGImages/img_02.png")
        assert re.search(r"one file, but there are .*img_02.jpg and .*img_02.png: remove one", refusal(tmp_path))


KINDS = {
    "line ends": (lambda i: i, {"end": "\r\n"}),
    "old line ends": (lambda i: i, {"end": "\r"}),
    "blanks": (lambda i: f" {i} \n\n   ", {}),
    "mark": (lambda i: i, {"encoding": "utf-8-sig"}),
    "UTF-16": (lambda i: i, {"encoding": "utf-16"}),
    "UTF-16 without a mark": (lambda i: i, {"encoding": "utf-16-le"}),
    "column": (lambda i: f"{i}  1", {}),
    "tab": (lambda i: f"{i}\t-1", {}),
    "commas": (lambda i: f"{i}.jpg,1,0", {}),
    "ending": (lambda i: f"{i}.jpg", {}),
    "other ending": (lambda i: f"{i}.PNG", {}),
    "XML": (lambda i: f"{i}.xml", {}),
    "pairs": (lambda i: f"/JPEGImages/{i}.jpg /SegmentationClass/{i}.png", {}),
    "relative pairs": (lambda i: f"JPEGImages/{i}.jpg\tSegmentationClass/{i}.png", {}),
    "absolute": (lambda i: f"/home/ann/my sets/VOC2030/JPEGImages/{i}.jpg", {}),
    "Windows": (lambda i: rf"D:\my sets\VOC2030\JPEGImages\{i}.jpg", {}),
    "quotes": (lambda i: f'"{i}"', {}),
    "comment": (lambda i: f"# next\n{i}", {}),
}


class TestLists:
    """12: how lists are written (darknet#1186, keras-retinanet#140)."""

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("name", ["train", "trainval"])
    def test_kinds(self, tmp_path, kind, name):
        line, options = KINDS[kind]
        ids = devkit(tmp_path, THREE, n=9, xml=True, lists=False)
        write_lines(tmp_path / f"{SEGMENTATION}/{name}.txt", [line(i) for i in ids], **options)
        assert_masks(tmp_path, THREE, n=9)

    def test_subfolders(self, tmp_path):
        ids = devkit(tmp_path, THREE, xml=True, lists=False)
        for part in ("JPEGImages", "SegmentationClass", "Annotations"):
            (tmp_path / part / "day 1").mkdir()
            for path in (tmp_path / part).glob("*.*"):
                path.rename(tmp_path / part / "day 1" / path.name)
        write_lines(tmp_path / f"{SEGMENTATION}/train.txt", [f"day 1/{i}" for i in ids])
        listing = listed(tmp_path)
        assert (listing.classes.names, listing.masked) == (THREE, 12)
        assert listing.ids[0] == "day 1/img_00"
        assert load(tmp_path, image_size=8).labels.sum() == 16


BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}  # undoes what a viewer does


class TestOrientation:
    """15: JPEGs that are turned by EXIF alone (detectron2#1319, D-FINE#308); masks are as viewers show images."""

    @pytest.mark.parametrize("orientation", BACK)
    @pytest.mark.parametrize("size", [SIZE, (24, 24)])
    @pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
    def test_images_are_turned(self, tmp_path, orientation, size, ending):
        ids = devkit(tmp_path, THREE, 3, xml=True, ending=ending, size=size)
        exif = Image.Exif()
        exif[274] = orientation
        for name in ids:
            path = tmp_path / f"JPEGImages/{name}.{ending}"
            with Image.open(path) as file:
                file.transpose(BACK[orientation]).save(path, exif=exif, quality=95)
        assert_masks(tmp_path, THREE, 3, size=size)
        image, mask, _ = listed(tmp_path).read(1)
        assert image[mask > 0].mean() > image[mask == 0].mean() + 60


class TestModes:
    @pytest.mark.parametrize("mode", ["L", "LA", "P", "PA", "RGBA", "CMYK", "I;16", "1"])
    def test_images_of_any_mode(self, tmp_path, mode):
        ids = devkit(tmp_path, THREE, xml=True)
        for name in ids:
            path = tmp_path / f"JPEGImages/{name}.jpg"
            with Image.open(path) as file:
                if mode == "I;16":
                    image = Image.fromarray(np.array(file.convert("L")).astype(np.uint16) * 257)
                else:
                    image = file.convert("P" if mode == "PA" else mode)
            path.unlink()
            image.save(path.with_suffix(".tif"))
        image, mask, _ = listed(tmp_path).read(1)
        assert image.shape == (*SIZE, 3)
        assert mode == "1" or image[mask > 0].mean() > image[mask == 0].mean() + 40

    @pytest.mark.parametrize(
        "content",
        [b"", b"<!DOCTYPE html><html>404</html>", b"\xff\xd8\xff\xe0\0\x10JFIF", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"],
    )
    def test_damaged_images_are_named(self, tmp_path, content):
        devkit(tmp_path, THREE, xml=True)
        (tmp_path / "JPEGImages/img_04.jpg").write_bytes(content)
        assert re.search(r"every file must be readable, but .*img_04.jpg is not \(.*replace it", refusal(tmp_path))
