import json
import re
import sys

import numpy as np
import pytest
from PIL import Image

from tests.voctrain.data.drawing import listed, masks_of, refusal

pytestmark = pytest.mark.usefixtures("cache")

SIZE = {"height": 10, "width": 20}
CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 90, "name": "dog"}]


def rectangle(top, left, height, width):
    right, bottom = left + width, top + height
    return [[left, top, right, top, right, bottom, left, bottom]]


def annotation(image, category, segmentation=None, **more):
    return {"image_id": image, "category_id": category, "bbox": [0, 0, 1, 1], "segmentation": segmentation, **more}


def draw(root, annotations, n=4, *, json_file="_annotations.coco.json", folder=".", categories=CATEGORIES, **more):
    """n images x0, x1, … and the JSON file of these annotations; `more` changes entries of images by index."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / json_file).parent.mkdir(parents=True, exist_ok=True)
    images = []
    for i in range(n):
        Image.new("RGB", (20, 10), (i, 0, 0)).save(root / folder / f"x{i}.jpg")
        images.append({"id": 100 + i, "file_name": f"x{i}.jpg", **SIZE, **more.get(f"image{i}", {})})
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / json_file).write_text(json.dumps(content))
    return json.loads(json.dumps(content))


def box(top, left, height, width, number):
    mask = np.zeros((10, 20), np.uint8)
    mask[top : top + height, left : left + width] = number
    return mask


class TestMasks:
    def test_polygons_become_masks_and_labels(self, tmp_path):
        draw(tmp_path, [annotation(100, 90, rectangle(2, 3, 5, 7)), annotation(101, 7, rectangle(0, 0, 10, 20))])
        listing = listed(tmp_path)
        assert str(listing.classes) == "2 classes from the categories of _annotations.coco.json: cat, dog"
        assert listing.ids == ("x0", "x1", "x2", "x3")
        assert [listing.read(i)[2].tolist() for i in range(4)] == [[0, 1], [1, 0], [0, 0], [0, 0]]
        masks = masks_of(tmp_path)
        np.testing.assert_array_equal(masks["x0"], box(2, 3, 5, 7, 2))
        assert (masks["x1"] == 1).all()
        assert not masks["x2"].any()

    def test_small_objects_lie_over_large_ones_and_crowds_are_void(self, tmp_path):
        draw(
            tmp_path,
            [
                annotation(100, 90, rectangle(4, 4, 2, 2), area=4),
                annotation(100, 7, rectangle(0, 0, 8, 8), area=64),
                annotation(100, 7, rectangle(8, 0, 2, 20), area=40, iscrowd=1),
            ],
        )
        expected = box(0, 0, 8, 8, 1)
        expected[4:6, 4:6] = 2
        expected[8:] = 255
        np.testing.assert_array_equal(masks_of(tmp_path)["x0"], expected)

    def test_run_length_codes(self, tmp_path):
        """Runs go down the columns: 20 pixels without, then 10 with, are the third column."""
        from pycocotools.mask import encode

        compressed = encode(np.asfortranarray(box(1, 2, 3, 4, 1)))
        code = {"size": [10, 20], "counts": compressed["counts"].decode()}
        draw(
            tmp_path,
            [annotation(100, 7, {"size": [10, 20], "counts": [20, 10, 170]}, iscrowd=0), annotation(101, 90, code)],
        )
        masks = masks_of(tmp_path)
        np.testing.assert_array_equal(masks["x0"], box(0, 2, 10, 1, 1))
        np.testing.assert_array_equal(masks["x1"], box(1, 2, 3, 4, 2))

    def test_boxes_alone_are_labels(self, tmp_path):
        draw(tmp_path, [annotation(100, 90), annotation(101, 7, [])])
        listing = listed(tmp_path)
        assert listing.masked == 0
        assert [listing.read(i)[2].tolist() for i in range(3)] == [[0, 1], [1, 0], [0, 0]]

    def test_an_image_with_an_object_without_a_shape_has_no_mask(self, tmp_path):
        draw(
            tmp_path,
            [annotation(100, 90), annotation(100, 7, rectangle(0, 0, 5, 5)), annotation(101, 7, rectangle(0, 0, 5, 5))],
        )
        assert [mask is not None for mask in masks_of(tmp_path).values()] == [False, True, True, True]
        assert listed(tmp_path).read(0)[2].tolist() == [1, 1]

    def test_without_pycocotools_boxes_are_read_and_shapes_refused(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "pycocotools", None)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        draw(tmp_path / "boxes", [annotation(100, 90)])
        assert listed(tmp_path / "boxes").masked == 0
        draw(tmp_path / "shapes", [annotation(100, 90, rectangle(2, 3, 5, 7))])
        assert "has shapes, which need pycocotools: run pip install pycocotools" in refusal(tmp_path / "shapes")


class TestCategories:
    def test_roboflow_adds_one_that_groups_the_others(self, tmp_path):
        categories = [
            {"id": 0, "name": "pets", "supercategory": "none"},
            {"id": 1, "name": "cat", "supercategory": "pets"},
            {"id": 2, "name": "dog", "supercategory": "pets"},
        ]
        draw(tmp_path, [annotation(100, 2)], categories=categories)
        assert listed(tmp_path).classes.names == ("cat", "dog")

    def test_a_category_may_be_its_own_group(self, tmp_path):
        categories = [{"id": 1, "name": "person", "supercategory": "person"}, {"id": 3, "name": "car"}]
        draw(tmp_path, [annotation(100, 3)], categories=categories)
        assert listed(tmp_path).classes.names == ("person", "car")

    def test_background_and_void_are_no_classes(self, tmp_path):
        categories = [{"id": 0, "name": "_background_"}, *CATEGORIES, {"id": 1, "name": "ignore"}]
        shapes = [annotation(100, k, rectangle(0, 5 * i, 10, 5)) for i, k in enumerate((0, 7, 90, 1))]
        draw(tmp_path, shapes, categories=categories)
        assert listed(tmp_path).classes.names == ("cat", "dog")
        assert masks_of(tmp_path)["x0"][0, ::5].tolist() == [0, 1, 2, 255]
        assert listed(tmp_path).read(0)[2].tolist() == [1, 1]

    def test_a_class_list_numbers_them(self, tmp_path):
        draw(tmp_path, [annotation(100, 7, rectangle(0, 0, 5, 5))])
        (tmp_path / "classes.txt").write_text("Dog\nzebra\n CAT\n")
        assert listed(tmp_path).classes.names == ("Dog", "zebra", "CAT")
        assert masks_of(tmp_path)["x0"].max() == 3

    def test_one_that_the_list_lacks_is_refused(self, tmp_path):
        draw(tmp_path, [annotation(100, 7)])
        (tmp_path / "classes.txt").write_text("dog\n")
        assert "has the category 'cat', which classes.txt does not list: add it" in refusal(tmp_path)


class TestImages:
    def test_two_of_one_id_are_refused(self, tmp_path):
        draw(tmp_path, [annotation(100, 7)], image1={"id": 100})
        assert "2 images have the id 100" in refusal(tmp_path)

    def test_annotations_without_one_are_counted(self, tmp_path):
        draw(tmp_path, [annotation(100, 7), annotation(101, 90), annotation("100", 7), annotation(999, 7)])
        assert listed(tmp_path).notes == (
            f"2 annotations in {tmp_path}/_annotations.coco.json belong to no image, such as one of image 100: they are"
            " not used",
        )


class TestPlaces:
    def test_parts_of_roboflow(self, tmp_path):
        for part, n in (("train", 4), ("valid", 3), ("test", 2)):
            draw(tmp_path, [annotation(100, 7)], n, json_file=f"{part}/_annotations.coco.json", folder=part)
        listing = listed(tmp_path)
        assert [len(part) for part in (listing.ids, listing.val_ids, listing.test_ids)] == [7, 3, 2]

    def test_coco_itself(self, tmp_path):
        """It has captions and keypoints of the same images, too."""
        for part, ids in (("train2017", (100, 101)), ("val2017", (100,))):
            draw(
                tmp_path,
                [annotation(i, 7) for i in ids],
                len(ids) + 1,
                json_file=f"annotations/instances_{part}.json",
                folder=part,
                **{f"image{i}": {"file_name": f"{part}_{i}.jpg"} for i in range(3)},
            )
            for i in range(len(ids) + 1):
                (tmp_path / part / f"x{i}.jpg").rename(tmp_path / part / f"{part}_{i}.jpg")
            captions = {"images": [{"id": 100, "file_name": "x"}], "annotations": [{"image_id": 100, "caption": "x"}]}
            (tmp_path / f"annotations/captions_{part}.json").write_text(json.dumps(captions))
        listing = listed(tmp_path)
        assert (len(listing.ids), len(listing.val_ids)) == (5, 2)

    def test_images_that_no_file_lists_are_test_images(self, tmp_path):
        draw(tmp_path, [annotation(100, 7)])
        Image.new("RGB", (9, 9)).save(tmp_path / "z.png")
        assert listed(tmp_path).test_ids == ("z",)


@pytest.mark.parametrize(
    "shape",
    [
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, 6, 7]],
        [[1, 2, 3, 4, 5, float("nan")]],
        [[1, 2, 3, 4, 5, 1e9]],
        [["1", 2, 3, 4, 5, 6]],
        [[]],
        [5],
        {"size": [10, 20], "counts": [20, 10]},
        {"size": [10, 20], "counts": [20, 10, 10_000_000]},
        {"size": [10, 20], "counts": [-20, 50, 170]},
        {"size": [100_000_000, 100_000_000], "counts": [10**16]},
        {"size": [10, 20], "counts": "ÿÿÿ"},
        {"size": [10, 20]},
        {"counts": [200]},
        "shape",
    ],
)
def test_shapes_that_cannot_be_drawn_are_refused(tmp_path, shape):
    draw(tmp_path, [annotation(100, 7, shape), annotation(101, 7, rectangle(0, 0, 5, 5))])
    assert "a shape must be polygons of at least three points near the image, or a run-length code" in refusal(tmp_path)


def test_a_bad_compressed_code_is_refused(tmp_path):
    draw(tmp_path, [annotation(100, 7, {"size": [10, 20], "counts": "ZZZZ"})])
    assert "_annotations.coco.json is not (ValueError: Invalid RLE" in refusal(tmp_path)


def test_shapes_of_an_image_of_another_size_are_refused(tmp_path):
    """As after a rotation, or for a copy of another resolution."""
    draw(tmp_path, [annotation(100, 7, rectangle(0, 0, 5, 5))], image0={"height": 20, "width": 10})
    assert "says that x0.jpg is 20 x 10, and it is 10 x 20: export it again" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"][0].update(file_name="y.jpg"), "json lists y.jpg, missing in"),
        (lambda c: c["images"][1].update(file_name="x0.jpg"), "ids must be unique, but .* has 'x0' twice"),
        (lambda c: c["images"][1].pop("id"), "an entry of images has no valid id"),
        (lambda c: c["images"].append(5), "is not .AttributeError"),
        (lambda c: c["annotations"][0].update(category_id=8), "an annotation of category 8, which it does not list"),
        (lambda c: c["annotations"][0].update(category_id={}), "an entry of annotations has no valid category_id"),
        (lambda c: c["annotations"][0].update(area="large"), "an area in annotations is not a number"),
        (lambda c: c["categories"].clear(), "at least one class, but .* lists none"),
        (lambda c: c["categories"].append({"id": 5, "name": "Cat"}), "names must differ, but .* 'Cat' and 'cat'"),
        (lambda c: c["categories"][0].update(name=None), "an entry of categories has no valid name"),
    ],
)
def test_bad_files_are_refused(tmp_path, change, message):
    content = draw(tmp_path, [annotation(100, 7)])
    change(content)
    (tmp_path / "_annotations.coco.json").write_text(json.dumps(content))
    assert re.search(message, refusal(tmp_path))


def test_parts_must_number_the_categories_alike(tmp_path):
    for part, categories in (("train", CATEGORIES), ("valid", [{"id": 7, "name": "dog"}])):
        draw(tmp_path, [annotation(100, 7)], json_file=f"{part}/x.json", folder=part, categories=categories)
    assert "number the categories alike, but 7 is 'cat' and, in" in refusal(tmp_path)
