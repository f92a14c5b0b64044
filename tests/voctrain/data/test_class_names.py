"""Class lists as people's tools write them, and what `--classes` and `--mask-value` say."""

import re

import numpy as np
import pytest

from tests.voctrain.data.drawing import classes_of, devkit, listed, refusal, repaint, write_lines, write_xml
from voctrain.data.class_names import (
    VOC_CLASSES,
    ClassList,
    are_vocs,
    canonical,
    contrast,
    merged,
    read_class_list,
    with_mask_values,
)

pytestmark = pytest.mark.usefixtures("cache")

OWN = ("weld", "crack")
CVAT = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nweld:48,112,32::\ncrack:176, 112, 32:tip,root:bend\n"
LISTS = {
    "labelmap.txt": CVAT,
    "class_names.txt": "_background_\nweld\ncrack",
    "labels.txt": "__ignore__\n_background_\nweld\ncrack\n",
    "classes.txt": " weld \n\ncrack,\n",
    "label_list.txt": "background\nweld\ncrack\n",
    "label_colors.txt": "0 0 0 background\n48 112 32\tweld\n176 112 32\tcrack\n",
    "class_dict.csv": "name,r,g,b\nbackground,0,0,0\nweld,48,112,32\ncrack,176,112,32\n",
    "_classes.csv": "Pixel Value, Class\n0, background\n1, weld\n2, crack\n",
}


def read(tmp_path, text, name="classes.txt"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_class_list(path)


def error(tmp_path, text, name="classes.txt"):
    with pytest.raises(ValueError, match=r"^") as raised:
        read(tmp_path, text, name)
    assert "\n" not in str(raised.value)
    return str(raised.value)


class TestReading:
    @pytest.mark.parametrize("name", LISTS)
    def test_a_list_of_each_tool(self, tmp_path, name):
        found = read(tmp_path, LISTS[name], name)
        assert (found.names, found.source, found.values, found.ordered) == (OWN, name, {}, True)

    def test_colors_of_a_labelmap(self, tmp_path):
        assert read(tmp_path, CVAT).colors == {(0, 0, 0): 0, (48, 112, 32): 1, (176, 112, 32): 2}

    @pytest.mark.parametrize(
        "line",
        [
            *("{} {} {} {}", "{},{},{},{}", "{}: {}, {}, {}", '"{}";{};{};{}'),
            *("{1}\t{2}\t{3}\t\t{0}", "{1} {2} {3} '{0}'", "{1},{2},{3},{0}"),
        ],
    )
    def test_colors_beside_names(self, tmp_path, line):
        rows = [("sea ice", 0, 128, 255), ("background", 9, 9, 9), ("crack 2", 1, 2, 3)]
        found = read(tmp_path, "\n".join(line.format(*row) for row in rows))
        assert (found.names, found.ordered) == (("sea ice", "crack 2"), False)
        assert found.colors == {(0, 128, 255): 1, (9, 9, 9): 0, (1, 2, 3): 2}

    def test_quotes_around_names(self, tmp_path):
        assert read(tmp_path, '"weld",\n\'crack\'\npipe 5"').names == (*OWN, 'pipe 5"')

    def test_background_and_void_anywhere_in_a_labelmap(self, tmp_path):
        found = read(tmp_path, "weld:1,2,3::\nbackground:9,9,9::\nIgnored:7,7,7::\ncrack:4,5,6::\n")
        assert found.names == OWN
        assert found.colors == {(1, 2, 3): 1, (9, 9, 9): 0, (7, 7, 7): 255, (4, 5, 6): 2}
        assert not found.ordered

    @pytest.mark.parametrize(
        ("lines", "values"),
        [
            ("weld crack", {}),
            ("_background_ weld crack", {}),
            ("__ignore__ _background_ weld crack", {}),
            ("__ignore__ weld crack", {}),
            ("void weld crack", {0: 255}),
            ("background ignored weld crack", {1: 255, 2: 1, 3: 2}),
            ("background weld void crack", {2: 255, 3: 2}),
            ("background weld crack __ignore__", {3: 255}),
        ],
    )
    def test_mask_values_are_positions(self, tmp_path, lines, values):
        found = read(tmp_path, "\n".join(lines.split()))
        assert (found.names, found.values, found.ordered) == (OWN, values, True)

    def test_a_background_after_a_class_leaves_the_mask_values_open(self, tmp_path):
        assert not read(tmp_path, "weld\n_background_\ncrack").ordered

    @pytest.mark.parametrize(
        ("text", "names", "ordered"),
        [
            ("0 background\n1 weld\n2 crack\n", OWN, True),
            ("0: background\n1: weld\n2: crack", OWN, True),
            (" 1\tweld \n 2\tcrack", OWN, True),
            ("1) weld\n2) crack", OWN, True),
            ("0 weld\n1 crack\n", OWN, False),
            ("0 weld\n1 background\n2 crack\n", OWN, False),
            ("4 weld\n5 crack\n", ("4 weld", "5 crack"), True),
            ("1 wheel\n2 wheel\n", ("1 wheel", "2 wheel"), True),
            ("1:48,112,32::\n2:176,112,32::\n", ("1", "2"), True),
        ],
    )
    def test_numbered_lists(self, tmp_path, text, names, ordered):
        found = read(tmp_path, text)
        assert (found.names, found.ordered) == (names, ordered)
        assert not found.values or not ordered

    def test_pixel_values_of_roboflow(self, tmp_path):
        found = read(tmp_path, "Pixel Value, Class\n0, background\n255, weld\n7, crack\n", "_classes.csv")
        assert (found.names, found.values) == (OWN, {255: 1, 7: 2})

    def test_roboflows_table_of_labels_is_no_class_list(self, tmp_path):
        assert read(tmp_path, "filename, weld, crack\na.jpg, 1, 0\n", "_classes.csv") is None

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_encodings_and_line_endings(self, tmp_path, encoding, end):
        write_lines(tmp_path / "classes.txt", ["Größe", "crème brûlée"], encoding, end)
        assert read_class_list(tmp_path / "classes.txt").names == ("Größe", "crème brûlée")

    def test_names_are_kept_but_for_blanks(self, tmp_path):
        assert read(tmp_path, "Fire  truck\n  9: a \nC:\\x\nsea::gull\n").names == (
            *("Fire truck", "9: a", "C:\\x", "sea::gull"),
        )

    def test_a_list_of_200(self, tmp_path):
        assert read(tmp_path, "\n".join(f"product {i}" for i in range(200))).names[199] == "product 199"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "at least one class, but .*classes.txt lists none: add one name per line"),
            ("background\nvoid\n", "at least one class"),
            ("# only\n\n", "at least one class"),
            ("weld\nWELD \n", "names must differ, but .* has 'weld' and 'WELD': rename one"),
            ("a:1,2,3::\nb:1,2,3::\n", "own color, but .* gives one color twice"),
            ("a:1,2,256::\n", "in 0..255, but .* has 1,2,256: correct"),
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "must be text, but .* contains the byte"),
        ],
    )
    def test_bad_lists_are_refused(self, tmp_path, text, message):
        assert re.search(message, error(tmp_path, text))

    @pytest.mark.parametrize("row", ["x, weld", "-1, weld", "1", "99999999999999999999, weld"])
    def test_bad_pixel_values_are_refused(self, tmp_path, row):
        message = error(tmp_path, f"Pixel Value, Class\n{row}\n", "_classes.csv")
        assert f"a pixel value and a class per row, but has '{row.replace(', ', ',')}'" in message


class TestOrder:
    def test_vocs_names_in_any_order_become_vocs_with_their_own_mask_values(self, tmp_path):
        found = read(tmp_path, "\n".join(name.upper() for name in reversed(VOC_CLASSES)))
        assert found.names == VOC_CLASSES
        assert found.values == {value: 21 - value for value in range(1, 21)}

    def test_another_order_means_other_mask_values(self, tmp_path):
        """The mask values 1 and 2 are dog and cat, whatever VOC's numbers of these names are."""
        devkit(tmp_path, ("dog", "cat"))
        write_lines(tmp_path / "classes.txt", ["dog", "cat"])
        listing = listed(tmp_path)
        assert listing.classes.names == ("dog", "cat")
        assert [listing.read(i)[2].tolist() for i in range(3)] == [[1, 1], [0, 1], [1, 0]]

    def test_indices_win_over_vocs_colors_in_a_list_in_another_order(self, tmp_path):
        """labelme paints class 1 of any list in VOC's first color."""
        devkit(tmp_path, VOC_CLASSES, n=20)
        write_lines(tmp_path / "class_names.txt", ["_background_", *reversed(VOC_CLASSES)])
        listing = listed(tmp_path)
        labels = listing.read(1)[2]  # has mask value 2, the second name
        assert [VOC_CLASSES[c] for c in labels.nonzero()[0]] == ["train"]


class TestPlaces:
    @pytest.mark.parametrize("place", [".", "SegmentationClass", "..", "../.."])
    def test_in_the_devkit_with_the_masks_or_above_within_the_folder_given(self, tmp_path, place):
        root = tmp_path / "VOCdevkit/VOC2030"
        devkit(root, OWN)
        (root / place / "labels.txt").write_text("weld\ncrack")
        assert classes_of(tmp_path) == OWN

    @pytest.mark.parametrize("name", ["Labels.txt", "CLASSES.TXT", "LabelMap.txt"])
    def test_the_names_of_lists_in_any_case(self, tmp_path, name):
        devkit(tmp_path, OWN)
        (tmp_path / name).write_text("label:color_rgb:parts:actions\n" * (name == "LabelMap.txt") + "weld:::\ncrack:::")
        assert classes_of(tmp_path) == OWN

    def test_a_list_above_the_folder_given_belongs_to_something_else(self, tmp_path):
        devkit(tmp_path / "set", OWN)
        (tmp_path / "labels.txt").write_text("milk\neggs")
        assert classes_of(tmp_path / "set") == VOC_CLASSES

    @pytest.mark.parametrize("place", [".", "train", "train/seg"])
    def test_of_a_kaggle_set(self, kaggle, place):
        (kaggle / place / "classes.txt").write_text("\n".join(VOC_CLASSES[:3]))
        assert classes_of(kaggle) == VOC_CLASSES[:3]

    def test_the_labelmap_comes_first(self, tmp_path):
        devkit(tmp_path, OWN, xml=True)
        (tmp_path / "labelmap.txt").write_text("a:::\nb:::")
        (tmp_path / "classes.txt").write_text("c\nd")
        assert str(listed(tmp_path).classes) == "2 classes from labelmap.txt: a, b"

    def test_the_users_list_wins_over_all(self, tmp_path):
        root = tmp_path / "set"
        devkit(root, OWN, xml=True)
        (root / "labelmap.txt").write_text("a:::\nb:::")
        (tmp_path / "mine.txt").write_text("c\nd\ne")
        classes = listed(root, classes=tmp_path / "mine.txt").classes
        assert str(classes) == f"3 classes from {tmp_path / 'mine.txt'}: c, d, e"

    def test_a_users_list_that_is_missing_or_a_table_is_refused(self, tmp_path):
        devkit(tmp_path / "set", OWN)
        with pytest.raises(ValueError, match=r"--classes must be a file .* there is no file"):
            listed(tmp_path / "set", classes=tmp_path / "mine.txt")
        (tmp_path / "_classes.csv").write_text("filename,weld\nx,1")
        with pytest.raises(ValueError, match=r"--classes must be a file .* is a table of labels"):
            listed(tmp_path / "set", classes=tmp_path / "_classes.csv")

    def test_labels_outside_the_list_are_refused(self, tmp_path):
        devkit(tmp_path, OWN, masks=False, xml=True)
        (tmp_path / "classes.txt").write_text("weld\nrust")
        message = refusal(tmp_path)
        assert "of the classes of classes.txt (weld, rust), but" in message
        assert "has 'crack': rename it, or list it there" in message


class TestMaskValues:
    def known(self, *given):
        return with_mask_values(ClassList(OWN, "a list"), given).forced

    def test_numbers_names_background_and_void(self):
        assert self.known("255=1", "7 = Crack", "9=background", "10=void") == {255: 1, 7: 2, 9: 0, 10: 255}

    @pytest.mark.parametrize("text", ["255", "x=1", "1=3", "1=rust", "-1=1", "=1", "1=", "1==1", "9" * 5000 + "=1"])
    def test_bad_ones_are_refused(self, text):
        with pytest.raises(ValueError, match=r"must be VALUE=CLASS, .* one of weld, crack, by name"):
            self.known(text)

    def test_without_a_list_names_become_the_classes(self):
        found = with_mask_values(None, ["3=nucleus", "7=cell", "9=Nucleus"])
        assert (found.names, found.forced) == (("Nucleus", "cell"), {3: 1, 7: 2, 9: 1})

    def test_numbers_alone_leave_the_classes_to_be_found(self, tmp_path):
        devkit(tmp_path, VOC_CLASSES, n=20)
        repaint(tmp_path / "SegmentationClass", lambda mask, _: np.where(mask == 20, 200, mask).astype(np.uint8))
        assert "has 200: renumber it" in refusal(tmp_path)
        assert classes_of(tmp_path, mask_values=["200=20"]) == VOC_CLASSES


class TestNames:
    def test_vocs_names_are_vocs_however_they_are_written(self):
        assert canonical(name.title() + " " for name in reversed(VOC_CLASSES)) == VOC_CLASSES
        assert canonical(["b  c ", "a"]) == ("b c", "a")
        assert are_vocs(["CAT", " dog"])
        assert not are_vocs(["cat", "zebra"])

    def test_spellings_are_merged(self):
        assert merged(["cell 10", "cell 9", "cell", "10 cell"]) == ("10 cell", "cell", "cell 9", "cell 10")
        assert merged(["vest", "Helmet", "helmet", "HELMET", "helmet", "head"]) == ("head", "helmet", "vest")

    def test_contrast_starts_at_the_first_difference(self):
        assert contrast(("cat", "dog"), ("dog", "cat")) == ("cat, dog", "dog, cat")
        assert contrast(VOC_CLASSES[:2], VOC_CLASSES) == ("…, no more", "…, bird, boat, bottle and 15 more")

    def test_a_list_tells_numbers_by_name(self):
        classes = ClassList(OWN, "a list")
        assert [classes.number(name) for name in ("weld", " CRACK ", "rust")] == [1, 2, None]


def test_names_of_xml_without_masks_are_the_classes_and_vocs_if_they_are_vocs(tmp_path):
    devkit(tmp_path, ("vest", "helmet"), masks=False, xml=True)
    write_xml(tmp_path / "Annotations/img_00.xml", "Vest", " HELMET", "background")
    assert classes_of(tmp_path) == ("helmet", "vest")
    for path in (tmp_path / "Annotations").iterdir():
        write_xml(path, "Cat")
    assert classes_of(tmp_path) == VOC_CLASSES
