import pickle

import numpy as np
import pytest

from voctrain.data import load, original_masks
from voctrain.data.class_names import VOC_CLASSES

pytestmark = pytest.mark.usefixtures("cache")
HEAD = "rank,image,class,label,action\n"


@pytest.fixture
def table(tmp_path):
    def write(*rows: str, head: str = HEAD):
        file = tmp_path / "audit.csv"
        file.write_text(head + "".join(f"{row}\n" for row in rows))
        return file

    return write


def test_a_flip_changes_one_label(kaggle, table):
    before = load(kaggle, image_size=8)
    after = load(kaggle, image_size=8, corrections=table("1,0,dog,0,flip", "2,1,bicycle,1,", "3,x,y,0,"))
    dog = VOC_CLASSES.index("dog")
    row = before.ids.index("0")
    assert np.argwhere(before.labels != after.labels).tolist() == [[row, dog]]
    assert after.labels[row, dog] == 1
    assert after.fingerprint != before.fingerprint
    assert (pickle.loads(pickle.dumps(after)).labels == after.labels).all()  # the images are mapped from a file
    assert any("leaves out 0 images and flips 1 labels" in warning for warning in after.warnings)


def test_an_ignored_image_is_left_out(kaggle, table):
    before = load(kaggle, image_size=8)
    file = table("1,3,dog,0,ignore", "2,3,cat,0,flip")
    after = load(kaggle, image_size=8, corrections=file)
    assert set(before.ids) - set(after.ids) == {"3"}
    kept = [before.ids.index(name) for name in after.ids]
    assert (after.images == before.images[kept]).all()
    assert (after.labels == before.labels[kept]).all()
    assert len(after.train) + len(after.val) == len(before.ids) - 1
    assert after.fingerprint != before.fingerprint
    file.unlink()
    assert len(list(original_masks(after, after.ids[:2]))) == 2


def test_a_list_of_validation_images_may_name_an_ignored_one(kaggle, table, tmp_path):
    val = tmp_path / "val.txt"
    val.write_text("3\n4\n")
    data = load(kaggle, image_size=8, val=val, corrections=table("1,3,dog,0,ignore"))
    assert [data.ids[i] for i in data.val] == ["4"]


def test_a_table_without_actions_changes_nothing(kaggle, table):
    before, after = (load(kaggle, image_size=8, corrections=file) for file in (None, table("1,0,dog,0,")))
    assert after.fingerprint == before.fingerprint
    assert (after.labels == before.labels).all()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("1,99,dog,0,flip", "must name labeled images by their ids, but .* has '99'"),
        ("1,99,dog,0,ignore", "must name labeled images by their ids, but .* has '99'"),
        ("1,0,wolf,0,flip", "must name classes of the set, but .* has 'wolf'"),
        ("1,0,dog,0,drop", "must be ignore, flip or empty, but .* has 'drop' for 0, dog"),
    ],
)
def test_a_correction_of_what_is_not_there_is_refused(kaggle, table, row, said):
    with pytest.raises(ValueError, match=said):
        load(kaggle, image_size=8, corrections=table(row))


def test_other_files_are_refused(kaggle, table, tmp_path):
    with pytest.raises(ValueError, match="has no action: add it"):
        load(kaggle, image_size=8, corrections=table(head="image,class\n"))
    with pytest.raises(ValueError, match="there is no file"):
        load(kaggle, image_size=8, corrections=tmp_path / "missing.csv")
    with pytest.raises(ValueError, match="need a folder of images"):
        load("digits", image_size=28, corrections=table())
