from hypothesis import given
from hypothesis import strategies as st

from tests.voctrain.data.fuzzing.damage import answer, damaged, fuzz, written
from voctrain.data.class_names import ClassList, object_names, read_class_list, with_mask_values
from voctrain.data.image_files import Index
from voctrain.data.layouts.label_table import read_label_table
from voctrain.data.layouts.listing import read_objects
from voctrain.data.text_files import read_lines, read_table

LISTS = [
    b"# label:color_rgb:parts:actions\nbackground:0,0,0::\nweld:48,112,32:tip:bend\nignored:1,2,3::\n",
    b"_background_\ncell\nnucleus\ndebris\n",
    b"__ignore__\n_background_\na b\nb,\n",
    b"Pixel Value, Class\n0, background\n1, weld\n255, crack\n",
]
LINES = st.lists(
    st.lists(
        st.one_of(
            st.sampled_from(
                ["background", "__ignore__", "void", "a", "A ", "img_01", ":", ",", ";", "0,0,0", "255", "#", '"']
            ),
            st.text(max_size=4),
            st.integers().map(str),
        ),
        max_size=5,
    ).map("".join),
    max_size=6,
).map(lambda lines: "\n".join(lines).encode(errors="replace"))


@fuzz
@given(content=st.one_of(damaged(LISTS, text=True), LINES), name=st.sampled_from(["labelmap.txt", "_classes.csv"]))
def test_class_lists(folder, content, name):
    found = answer(read_class_list, written(folder / name, content))
    if found is not None:
        assert found.names
        assert all(name.strip() == name != "" for name in found.names)
        assert [found.number(name) for name in found.names] == list(range(1, len(found.names) + 1))
        assert {*found.values.values(), *found.colors.values()} <= {*range(len(found.names) + 1), 255}


@fuzz
@given(
    given=st.lists(
        st.one_of(st.text(max_size=6), st.from_regex(r"-?\d{1,3}=\s?[a-c0-9]{0,3}", fullmatch=True)), max_size=3
    )
)
def test_mask_values(given):
    for classes in (None, ClassList(("a", "b", "c"), "classes.txt")):
        found = answer(with_mask_values, classes, given)
        assert found is None or {*found.forced.values()} <= {*range(255), 255}


TABLES = [
    b"filename,cat,dog\nimg_00.jpg,1,0\nimg_01.jpg,0,1\n",
    b"Id;labels;group\nimg_00;cat,dog;p1\nimg_01;;p2\n",
    b',image,"dog, wild",split\n0,"img 1.jpg",1.0,val\n1,x,False,train\n',
]


@fuzz
@given(content=st.one_of(damaged(TABLES, text=True), LINES), classes=st.sampled_from([None, ("cat",), ("a", "b")]))
def test_tables(folder, content, classes):
    path = written(folder / "table.csv", content)
    table = answer(read_table, path)
    if table is not None:
        assert all(len(row) == len(table[0]) for row in table[1])
    found = answer(read_label_table, path, classes)
    if found is not None:
        assert all(found.classes.number(name) for row in found.rows for name in row.names)


@fuzz
@given(content=st.one_of(damaged([b"img_00\nimg_01.jpg 1\nday 1/img_02\n"], text=True), LINES))
def test_lists_of_ids(folder, content):
    index = Index(folder, [folder / name for name in ("img_00.jpg", "img_01.png", "day 1/img_02.jpg", "a.b.jpg")])
    for line in answer(read_lines, written(folder / "train.txt", content)) or []:
        assert index.find(line) in {None, *index.paths}


XML = [
    b"<x><object><part><name>hoof</name></part><name>cow</name></object><object><name> a </name></object></x>",
    b"<?xml version='1.0' encoding='utf-8'?><!DOCTYPE a [<!ENTITY b 'bb'>]><a><object><name>&b;&b;</name></object></a>",
]


@fuzz
@given(content=damaged(XML, text=True))
def test_annotations(folder, content):
    path = written(folder / "x.xml", content)
    labels = answer(read_objects, path, ClassList(("cow", "a"), "classes.txt"))
    assert labels is None or set(labels.tolist()) <= {0, 1}
    if labels is not None:
        assert all(name == " ".join(name.split()) for name in object_names(path))
