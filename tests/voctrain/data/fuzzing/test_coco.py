import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.voctrain.data.drawing import folders
from tests.voctrain.data.fuzzing.damage import answer, damaged, fuzz, read_all, written
from voctrain.data.layouts.coco import Drawing

JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=5),
        st.sampled_from(["x00.jpg", 1, 7, 10**30]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["id", "name", "size", "counts"]), inner)
    ),
    max_leaves=4,
)


def places(node, path=()):
    """The paths of all nodes in a JSON document."""
    yield path
    for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield from places(node[key], (*path, key))


def document():
    shapes = [
        [[0, 0, 5, 0, 5, 5, 0, 5]],
        {"size": [20, 24], "counts": [40, 40, 400]},
        {"size": [20, 24], "counts": "PT1"},
    ]
    return {
        "images": [{"id": i, "file_name": f"x0{i}.jpg", "height": 20, "width": 24} for i in range(3)],
        "annotations": [
            {"image_id": i, "category_id": 7, "segmentation": shape, "area": 25 - i, "iscrowd": 0, "bbox": [0, 0, 5, 5]}
            for i, shape in enumerate(shapes)
        ],
        "categories": [{"id": 7, "name": "cat", "supercategory": "pets"}, {"id": 9, "name": "dog"}],
    }


@st.composite
def damaged_documents(draw):
    content = document()
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(content))))
        node, value = content, draw(JSON)
        if not path:
            return value
        for key in path[:-1]:
            node = node[key]
        if draw(st.booleans()):
            node[path[-1]] = value
        else:
            del node[path[-1]]
    return content


@pytest.fixture(scope="module")
def coco(folder):
    folders(folder / "coco", 3, images="{}.jpg", masks="masks/{}.png")
    shutil.rmtree(folder / "coco/masks")
    return folder / "coco"


@fuzz
@given(
    content=st.one_of(
        damaged_documents().map(lambda d: json.dumps(d).encode()), damaged([json.dumps(document()).encode()])
    )
)
def test_coco_files(coco, content):
    written(coco / "instances.json", content)
    read_all(coco)


@fuzz
@given(
    shape=st.one_of(
        JSON,
        st.fixed_dictionaries({"size": st.just([6, 8]), "counts": st.one_of(st.text(), st.lists(st.integers()))}),
        st.lists(st.lists(st.one_of(st.integers(-20, 20), st.floats()), max_size=9), max_size=3),
    )
)
def test_shapes(folder, shape):
    mask = answer(Drawing(folder / "x.json", "x.jpg", (6, 8), ((1, shape),)).draw, 6, 8)
    assert mask is None or mask.shape == (6, 8)
