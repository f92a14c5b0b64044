import os

import numpy as np
import pytest
from PIL import Image

from search.prediction import images
from search.prediction.images import find_images, read_batches
from voctrain.data.image_files import read_image


def save(path, shape=(6, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*shape, 3), 90, np.uint8)).save(path)
    return path


def found(folder, *given, without="nowhere"):
    """Names by file, relative to a folder."""
    all_found = find_images([str(path) for path in given], folder / without)
    return {os.path.relpath(file, folder): name for file, name in zip(all_found.files, all_found.names, strict=True)}


def test_folders_are_searched_for_all_formats_and_hidden_files_skipped(tmp_path):
    for name in ("b/x.JPG", "a.Tiff", "c.webp", "d.ppm", "v.1.png", ".git/y.png", "._z.png", "out/masks/a.png"):
        save(tmp_path / name)
    np.save(tmp_path / "e.npy", np.zeros((4, 4, 3), np.uint8))
    for name in ("notes.txt", "set.h5", "film.mpg", "paper.pdf"):
        (tmp_path / name).write_bytes(b"")
    names = {"a.Tiff": "a", "b/x.JPG": "b/x", "c.webp": "c", "d.ppm": "d", "e.npy": "e", "v.1.png": "v.1"}
    assert found(tmp_path, tmp_path, without="out") == names


def test_an_image_that_is_given_twice_is_predicted_once(tmp_path, monkeypatch):
    save(tmp_path / "a" / "x.png")
    monkeypatch.chdir(tmp_path)
    once = find_images(["a", "a/x.png", str(tmp_path / "a" / ".." / "a" / "x.png")], tmp_path / "out")
    assert [str(file) for file in once.files] == ["a/x.png"]  # as it was given


@pytest.mark.parametrize(
    "names",
    [
        {"a/x.png": "x", "a/y.png": "y"},
        {"a/x.png": "a/x", "b/x.png": "b/x", "b/y.png": "b/y"},
        {"a/x.png": "x.png", "a/x.jpg": "x.jpg", "a/y.png": "y"},
        {"a/x.png": "x.png", "a/x.jpg": "x.jpg", "a/x.jpg.png": "x.jpg.png"},
    ],
)
def test_names_are_unique(names, tmp_path):
    assert found(tmp_path, *(save(tmp_path / file) for file in names)) == names


def test_a_mistake_is_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"^there is no image or folder .*gone\.png$"):
        find_images([str(save(tmp_path / "x.png")), str(tmp_path / "gone.png")], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"^no images in .*empty: give image files"):
        find_images([str(tmp_path / "empty")], tmp_path / "out")


def test_only_a_few_batches_are_read_ahead(tmp_path, monkeypatch):
    for i in range(20):
        save(tmp_path / f"{i:02}.png", (6, 8 + i))
    (tmp_path / "04.png").write_bytes(b"damaged")
    read, skipped = [], []

    def count(file):
        read.append(file)
        return read_image(file)

    monkeypatch.setattr(images, "read_image", count)
    monkeypatch.setattr(images, "EVAL_BATCH", 3)
    batches = read_batches(find_images([str(tmp_path)], tmp_path / "out"), 4, "squash", skipped.append)
    first, second = next(batches), next(batches)
    assert len(read) <= 6 + 1 + images.AHEAD * 3
    assert first.names == ["00", "01", "02"]
    assert first.sizes.tolist() == [[6, 8], [6, 9], [6, 10]]
    assert first.images.shape == (3, 4, 4, 3)
    assert second.names == ["03", "05", "06"]
    assert len(skipped) == 1
    assert "04.png is not" in skipped[0]
    assert [name for batch in batches for name in batch.names] == [f"{i:02}" for i in range(7, 20)]
