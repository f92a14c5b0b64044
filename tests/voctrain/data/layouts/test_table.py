import re

import pytest
from PIL import Image

from tests.voctrain.data.drawing import listed, refusal, scene, write_lines

pytestmark = pytest.mark.usefixtures("cache")


def draw(root, files, table="labels.csv", folder="images", encoding="utf-8"):
    """Images of these names, and a table of these lines."""
    for i, name in enumerate(files):
        (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene(i, 1)[0]).save(root / folder / name)
    return lambda *lines: write_lines(root / table, lines, encoding)


def labels(root, **options):
    """Classes, and the names of each labeled image."""
    listing = listed(root, **options)
    names = listing.classes.names
    found = [listing.read(i)[2].tolist() for i in range(len(listing.ids))]
    return names, [[name for name, on in zip(names, row, strict=True) if on] for row in found]


A, B = ["x.jpg", "y.png"], (("cat", "wild dog"), [["cat"], ["cat", "wild dog"]])


class TestAColumnPerClass:
    @pytest.mark.parametrize(
        "lines",
        [
            ("filename,cat,wild dog", "x.jpg,1,0", "y.png,1,1"),
            ("Id;cat;wild dog", "x;1;0", "y;1;1"),
            ("id\tcat\twild dog", "x\t1\t0", "y\t1\t1"),
            (" filename , cat , wild  dog ", "x.jpg, 1, 0", "y.png , 1 , 1"),
            (",image,cat,wild dog", "0,images/x.jpg,1.0,0.0", "1,images/y.png,1.0,1.0"),
            ("Unnamed: 0,File Name,cat,wild dog", "0,./x.jpg,True,False", "1,./y.png,TRUE,yes"),
            ("id,filename,cat,wild dog", "17,x.jpg,1,0", "18,y.png,1,1"),
            ('"filename","cat","wild dog"', '"x.jpg","1","0"', '"y.png","1","1"'),
            ("filename,cat,wild dog,", "x.jpg,1,0,", "y.png,1,1,"),
            ("filename,cat,wild dog", "x.jpg,1,0,,", "y.png,1,1,"),
            ("image_path,cat,wild dog", r"C:\data\images\x.jpg,1,0", "/home/ann/images/y.png,1,1"),
            ("filename,cat,Unlabeled,wild dog", "x.jpg,1,0,0", "y.png,1,0,1"),
        ],
    )
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    def test_ways_to_write_it(self, tmp_path, lines, encoding):
        draw(tmp_path, A, encoding=encoding)(*lines)
        assert labels(tmp_path) == B

    def test_names_with_commas(self, tmp_path):
        draw(tmp_path, A)('filename,"dog, wild",cat', "x.jpg,1,0", "y.png,0,1")
        assert labels(tmp_path) == (("dog, wild", "cat"), [["dog, wild"], ["cat"]])

    def test_a_class_list_chooses_the_columns(self, tmp_path):
        draw(tmp_path, A)("filename,age,dog,cat", "x.jpg,3,1,0", "y.png,7,0,1")
        assert "must be 0 or 1, but filename x.jpg has '3' for age: correct it, or name the columns" in refusal(
            tmp_path
        )
        (tmp_path / "classes.txt").write_text("cat\nDog")
        assert labels(tmp_path) == (("cat", "Dog"), [["Dog"], ["cat"]])

    def test_images_that_no_row_names_are_test_images(self, tmp_path):
        draw(tmp_path, [*A, "z.jpg"])("filename,cat", "x.jpg,1", "y.png,0")
        assert listed(tmp_path).test_ids == ("images/z",)

    def test_patients_are_groups(self, tmp_path):
        draw(tmp_path, A)("filename,Patient ID,video,cat", "x.jpg,a7,1,1", "y.png,a7,0,0")
        listing = listed(tmp_path)
        assert listing.groups == ("group a7", "group a7")
        assert listing.classes.names == ("video", "cat")
        draw(tmp_path, A)("filename,video,cat", "x.jpg,1,1", "y.png,0,0")
        assert listed(tmp_path).groups is None

    def test_the_example_of_a_submission_is_no_table_of_labels(self, tmp_path):
        draw(tmp_path, [*A, "z.jpg"])("filename,cat", "x.jpg,1", "y.png,0")
        write_lines(tmp_path / "sample_submission.csv", ["filename,cat", "z.jpg,0.5"])
        assert (listed(tmp_path).ids, listed(tmp_path).test_ids) == (("images/x", "images/y"), ("images/z",))

    def test_groups_and_sides(self, tmp_path):
        draw(tmp_path, [f"{i}.jpg" for i in range(5)])(
            *("id,group,split,cat", "0,p1,train,1", "1,p1,train,0", "2,,Valid,1", "3,p2,val,0", "4,p2,test,1")
        )
        listing = listed(tmp_path)
        assert listing.ids == tuple(f"images/{i}" for i in range(4))
        assert listing.val_ids == ("images/2", "images/3")
        assert listing.test_ids == ("images/4",)
        assert listing.groups == ("group p1", "group p1", "image images/2", "group p2")

    def test_the_validation_column_of_fastai(self, tmp_path):
        draw(tmp_path, A, "labels.tsv")("fname\tis_valid\tlabels", "x.jpg\tTrue\tcat", "y.png\tFalse\tdog")
        assert listed(tmp_path).val_ids == ("images/x",)


class TestAColumnOfNames:
    @pytest.mark.parametrize(
        "lines",
        [
            ("filename,labels", "x.jpg,cat", 'y.png,"cat,wild dog"'),
            ("filename;labels", "x.jpg;cat", "y.png;cat , wild dog"),
            ("filename,labels", "x.jpg,cat", "y.png,cat; wild dog"),
            ("Id,label", "x,Cat", "y,cat|wild dog"),
            ("filename,tags", "x.jpg,['cat']", "y.png,\"['cat', 'wild dog']\""),
            ("filename,what", "x.jpg,cat", 'y.png,"wild dog, CAT"'),
            ("filename,width,class,xmin", "x.jpg,9,cat,1", "y.png,9,cat,1", "y.png,9,wild dog,5"),
            ("fname,labels,is_valid", "x.jpg,cat,False", 'y.png,"cat,wild dog",True'),
            (
                "annotator,choice,id,image",
                "1,cat,7,/data/upload/3/x.jpg",
                '1,"{""choices"": [""cat"", ""wild dog""]}",8,/data/upload/3/y.png',
            ),
        ],
    )
    def test_ways_to_write_it(self, tmp_path, lines):
        draw(tmp_path, A)(*lines)
        names, found = labels(tmp_path)
        assert ([name.casefold() for name in names], [len(row) for row in found]) == (["cat", "wild dog"], [1, 2])

    def test_boxes_in_a_column_of_names_are_refused(self, tmp_path):
        box = '"[{""x"": 1, ""rectanglelabels"": [""cat""]}]"'
        draw(tmp_path, A)("image,label", f"x.jpg,{box}", f"y.png,{box}")
        assert "cells of class names must be names, or a list of names, but" in refusal(tmp_path)

    def test_blanks_separate_names_in_a_column_of_labels(self, tmp_path):
        draw(tmp_path, A)("filename,labels", "x.jpg,scab", "y.png,scab frog_eye")
        assert labels(tmp_path) == (("frog_eye", "scab"), [["scab"], ["frog_eye", "scab"]])

    def test_blanks_belong_to_names_in_a_column_of_one_label(self, tmp_path):
        draw(tmp_path, A)("filename,label", "x.jpg,golden retriever", "y.png,poodle")
        assert labels(tmp_path)[0] == ("golden retriever", "poodle")

    def test_blanks_separate_names_that_also_occur_alone(self, tmp_path):
        draw(tmp_path, [*A, "z.jpg"])("filename,label", "x.jpg,cat", "y.png,dog", "z.jpg,cat dog")
        assert labels(tmp_path) == (("cat", "dog"), [["cat"], ["dog"], ["cat", "dog"]])

    @pytest.mark.parametrize("empty", ["", "nan", "NaN", "[]", "null"])
    def test_empty_cells_are_images_without_a_class(self, tmp_path, empty):
        draw(tmp_path, A)("filename,labels", "x.jpg,cat", f"y.png,{empty}")
        assert labels(tmp_path) == (("cat",), [["cat"], []])

    def test_numbers_are_names(self, tmp_path):
        draw(tmp_path, A)("filename,label", "x.jpg,7", "y.png,3")
        assert labels(tmp_path) == (("3", "7"), [["7"], ["3"]])

    def test_zeros_and_ones_are_one_class(self, tmp_path):
        draw(tmp_path, A)("filename,lesion", "x.jpg,1", "y.png,0")
        assert labels(tmp_path) == (("lesion",), [["lesion"], []])


class TestParts:
    def test_roboflows_export(self, tmp_path):
        for part in ("train", "valid", "test"):
            draw(tmp_path, A, f"{part}/_classes.csv", part)("filename, weld, crack", "x.jpg, 1, 0", "y.png, 1, 1")
        listing = listed(tmp_path)
        assert str(listing.classes) == "2 classes from the header of _classes.csv: weld, crack"
        assert listing.ids == ("train/x", "train/y", "valid/x", "valid/y")
        assert listing.val_ids == ("valid/x", "valid/y")
        assert listing.test_ids == ("test/x", "test/y")

    def test_tables_called_after_parts(self, tmp_path):
        draw(tmp_path, A, "train.csv")("filename,label", "x.jpg,cat")
        draw(tmp_path, A, "val.csv")("filename,label", "y.png,Cat")
        draw(tmp_path, [*A, "z.jpg"], "test.csv")("filename", "z.jpg")
        listing = listed(tmp_path)
        assert (listing.ids, listing.val_ids, listing.test_ids) == (
            ("images/x", "images/y"),
            ("images/y",),
            ("images/z",),
        )

    def test_masks_count_where_there_are_some(self, tmp_path):
        draw(tmp_path, A)("filename,patient", "x.jpg,3", "y.png,4")
        (tmp_path / "masks").mkdir()
        for i, name in enumerate(("x", "y")):
            Image.fromarray(scene(i, 1)[1]).save(tmp_path / f"masks/{name}.png")
        listing = listed(tmp_path)
        assert (listing.layout, listing.masked) == ("folders", 2)
        assert listing.notes == ("labels.csv is not used: the masks say what is in the images",)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ("filename,cat", "x.jpg,1", "z.jpg,0", "d/q.jpg,1"),
            "labels.csv lists z.jpg, d/q.jpg, missing in .*: restore",
        ),
        (("filename,cat", "x.jpg,1", "x.jpg,1"), "ids must be unique, but the table .* has 'images/x' twice"),
        (("filename,cat", "x.jpg,nan", "y.png,0"), "must be 0 or 1, but filename x.jpg has 'nan' for cat"),
        (("filename,cat", "x.jpg,", "y.png,0"), "must be 0 or 1, but filename x.jpg has '' for cat"),
        (("filename,cat", "x.jpg", "y.png,0"), "as long as its header .2., but row 2 of .* has 1 cells"),
        (("filename,cat,dog", ",1,0", "y.png,0,1"), "each row must name an image, but row 2 .* has no filename"),
        (("filename,cat,Cat", "x.jpg,1,0", "y.png,0,0"), "names must differ, but .* has 'cat' and 'Cat'"),
        (("filename", "x.jpg", "y.png"), "at least one class, but .*labels.csv lists none"),
        (("filename,cat",), "the table .*labels.csv lists no images"),
        (("filename,cat", "x.jpg,0", "y.png,0"), "no image has any of cat: check"),
        (("picture of,cat", "x.jpg,0", "y.png,0"), "a CSV file with a column filename"),
    ],
)
def test_bad_tables_are_refused(tmp_path, lines, message):
    draw(tmp_path, A)(*lines)
    assert re.search(message, refusal(tmp_path))
