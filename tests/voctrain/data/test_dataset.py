"""What `Data` can do: take another split and find its original masks."""

import dataclasses
import pickle
import shutil

import numpy as np
import pytest

from voctrain.data import Data, DataSource, load, original_masks

pytestmark = pytest.mark.usefixtures("cache")


class TestSplit:
    def test_with_split(self, kaggle):
        data = load(kaggle, image_size=8)
        ids = list(data.ids)
        split = data.with_split(ids[10:][::-1], ids[:10])
        assert split.train.tolist() == list(range(10, 44))
        assert split.val.tolist() == list(range(10))
        assert split.train.dtype == split.val.dtype == np.int64
        assert split.images is data.images

    @pytest.mark.parametrize(
        ("train", "val"), [(range(44), [0]), (range(43), []), (range(44), ["x"]), ([*range(44), 3], [])]
    )
    def test_with_split_rejects_ids_that_do_not_match(self, kaggle, train, val):
        with pytest.raises(ValueError, match="each id of the data exactly once, but 1 do not match"):
            load(kaggle, image_size=8).with_split(map(str, train), map(str, val))

    def test_all_train(self, kaggle):
        data = load(kaggle, image_size=8).all_train()
        assert data.train.tolist() == list(range(44))
        assert data.val.shape == (0,)
        assert data.train.dtype == data.val.dtype == np.int64

    def test_folds_hold_each_image_out_once(self, kaggle):
        """Each fold has its share of every class, and which images it has depends on nothing but them."""
        data = load(kaggle, image_size=8)
        folds = [data.fold(number, 4) for number in (1, 2, 3, 4)]
        assert sorted(np.concatenate([fold.val for fold in folds]).tolist()) == list(range(44))
        for fold in folds:
            assert np.array_equal(np.sort(np.concatenate([fold.train, fold.val])), np.arange(44))
            common = data.labels.sum(0) >= 8
            assert (data.labels[fold.val].sum(0)[common] >= data.labels.sum(0)[common] // 4 - 1).all()
        other = load(kaggle, image_size=16).with_split(data.ids[9:], data.ids[:9])
        assert np.array_equal(other.fold(2, 4).val, folds[1].val)

    def test_folds_keep_groups_together(self, kaggle):
        data = load(kaggle, image_size=8, group_by=r"(\d)$")  # the last digit
        assert data.groups is not None
        for number in (1, 2, 3):
            val = data.fold(number, 3).val.tolist()
            digits = {data.ids[i][-1] for i in val}
            assert val == [i for i, name in enumerate(data.ids) if name[-1] in digits]

    def test_more_folds_than_groups(self, kaggle):
        with pytest.raises(ValueError, match="11 parts need as many images, or groups of images, but there are 10"):
            load(kaggle, image_size=8, group_by=r"(\d)$").fold(1, 11)


class TestSharing:
    """Mapped arrays are pickled as a reference, and everything else as it is."""

    def test_processes_get_a_reference(self, kaggle):
        data = load(kaggle, image_size=64)
        for sent in (data, data.all_train(), data.with_split(data.ids[5:], data.ids[:5])):
            pickled = pickle.dumps(sent)
            assert len(pickled) < 10_000
            got = pickle.loads(pickled)
            assert got.file.path == data.file.path
            assert not got.images.flags.owndata
            for name in Data.__dataclass_fields__.keys() - {"file"}:
                assert np.array_equal(getattr(got, name), getattr(sent, name)), name

    def test_other_arrays_are_sent(self, kaggle):
        data = load(kaggle, image_size=16)
        changed = dataclasses.replace(data, masks=None, test_images=data.test_images[:2], images=255 - data.images)
        got = pickle.loads(pickle.dumps(changed))
        assert got.masks is None
        np.testing.assert_array_equal(got.images, 255 - data.images)
        np.testing.assert_array_equal(got.test_images, data.test_images[:2])
        np.testing.assert_array_equal(got.sizes, data.sizes)

    def test_without_the_file_arrays_are_sent(self, kaggle, cache):
        data = load(kaggle, image_size=16)
        alone = pickle.dumps(dataclasses.replace(data, file=None))
        referring = pickle.dumps(data)
        data.file.path.unlink()
        np.testing.assert_array_equal(pickle.loads(alone).images, data.images)
        with pytest.raises(ValueError, match=r"does not see the prepared images .*\.arrays: set XDG_CACHE_HOME"):
            pickle.loads(referring)

    def test_another_file_in_its_place_is_refused(self, kaggle, cache):
        data = load(kaggle, image_size=16)
        referring = pickle.dumps(data)
        other = load(kaggle, image_size=17)
        shutil.copy(other.file.path, data.file.path)
        with pytest.raises(ValueError, match="does not see the prepared images"):
            pickle.loads(referring)


class TestSource:
    def test_original_masks_are_read_at_their_own_sizes_from_any_working_directory(self, kaggle, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        data = pickle.loads(pickle.dumps(load("kaggle", image_size=8)))
        assert data.source == DataSource(str(kaggle))
        monkeypatch.chdir("/")
        for number, mask in zip(("7", "3"), original_masks(data, ("7", "3")), strict=True):
            np.testing.assert_array_equal(mask, np.load(kaggle / f"train/seg/train_{number}.npy"))

    def test_original_masks_of_val_images_and_of_images_without_a_mask(self, devkit):
        (devkit / "SegmentationClass/a_30.png").unlink()
        (devkit / "Annotations/a_30.xml").write_text("<a><object><name>dog</name></object></a>")
        data = load(devkit, image_size=8, use_val=True)
        assert data.source == DataSource(str(devkit), use_val=True)
        void, mask = original_masks(data.all_train(), ("a_30", "a_31"))
        assert void.shape == tuple(data.sizes[30])
        assert (void == 255).all()
        assert set(np.unique(mask)) == {0, 12, 255}

    def test_data_without_original_masks(self, kaggle):
        made = dataclasses.replace(load(kaggle, image_size=8), source=None)
        for data in (made, load("digits", image_size=8)):
            with pytest.raises(ValueError, match="was not read from one"):
                next(original_masks(data, data.ids))
