"""Images as people's cameras and tools write them, and files that are found by what lists say."""

import unicodedata
import warnings

import numpy as np
import pytest
from PIL import Image

from voctrain.data.image_files import Index, image_files, read_image, read_npy

SCENE = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
# What a viewer shows, by orientation: as EXIF 2.3 says which row and column the first stored ones are.
TURNED = {
    1: SCENE,
    2: SCENE[:, ::-1],
    3: SCENE[::-1, ::-1],
    4: SCENE[::-1],
    5: SCENE.transpose(1, 0, 2),
    6: SCENE[::-1].transpose(1, 0, 2),
    7: SCENE[::-1, ::-1].transpose(1, 0, 2),
    8: SCENE[:, ::-1].transpose(1, 0, 2),
}


def with_exif(path, orientation, **options):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(SCENE).save(path, exif=exif, **options)
    return path


class TestOrientation:
    @pytest.mark.parametrize("orientation", TURNED)
    @pytest.mark.parametrize("ending", ["png", "webp", "tif"])
    def test_lossless_files_are_turned_exactly(self, tmp_path, orientation, ending):
        options = {"lossless": True, "exact": True} if ending == "webp" else {}
        path = with_exif(tmp_path / f"x.{ending}", orientation, **options)
        np.testing.assert_array_equal(read_image(path), TURNED[orientation])

    @pytest.mark.parametrize("orientation", TURNED)
    def test_jpegs(self, tmp_path, orientation):
        path = with_exif(tmp_path / "x.jpg", orientation, quality=100, subsampling=0)
        assert np.abs(read_image(path).astype(int) - TURNED[orientation]).max() < 20

    def test_the_first_row_of_orientation_6_is_the_right_column(self, tmp_path):
        """By hand: the stored 1 2 / 3 4 is shown as 3 1 / 4 2."""
        exif = Image.Exif()
        exif[274] = 6
        Image.fromarray(np.uint8([[1, 2], [3, 4]])).save(tmp_path / "x.png", exif=exif)
        assert read_image(tmp_path / "x.png")[..., 0].tolist() == [[3, 1], [4, 2]]

    @pytest.mark.parametrize("orientation", [0, 9, 65535])
    def test_unknown_orientations_are_upright(self, tmp_path, orientation):
        np.testing.assert_array_equal(read_image(with_exif(tmp_path / "x.png", orientation)), SCENE)

    @pytest.mark.parametrize("damage", [b"", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"\0" * 9])
    def test_damaged_exif_data_is_ignored(self, tmp_path, damage):
        Image.fromarray(SCENE).save(tmp_path / "x.jpg", exif=b"Exif\0\0" + damage, quality=100, subsampling=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert np.abs(read_image(tmp_path / "x.jpg").astype(int) - SCENE).max() < 20


GRAY = np.arange(0, 255, 17, dtype=np.uint8).reshape(3, 5)  # 0, 17, …, 238


class TestModes:
    def read(self, tmp_path, image, ending="png"):
        image.save(tmp_path / f"x.{ending}")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = read_image(tmp_path / f"x.{ending}")
        assert (found.dtype, found.shape) == (np.uint8, (*image.size[::-1], 3))
        return found

    def test_gray_values(self, tmp_path):
        found = self.read(tmp_path, Image.fromarray(GRAY))
        np.testing.assert_array_equal(found, np.repeat(GRAY[..., None], 3, 2))

    @pytest.mark.parametrize(
        ("deep", "shallow"),
        [
            ([0, 257, 65535], [0, 1, 255]),  # 16 bits: 65535 / 255 = 257
            ([0, 4096, 514], [0, 16, 2]),
            ([0, 2048, 4095], [0, 128, 255]),  # 12 bits: 2048 * 255 / 4095 = 127.5
            ([0, 7, 255], [0, 7, 255]),
            ([0, 0, 0], [0, 0, 0]),
        ],
    )
    @pytest.mark.parametrize("ending", ["png", "tif"])
    def test_16_bit_gray_values_are_scaled(self, tmp_path, deep, shallow, ending):
        image = Image.fromarray(np.array([deep], np.uint16))
        assert image.mode == "I;16"
        assert self.read(tmp_path, image, ending)[0, :, 0].tolist() == shallow

    def test_32_bit_and_float_values_are_scaled(self, tmp_path):
        assert self.read(tmp_path, Image.fromarray(np.int32([[0, 65535, -7]])), "tif")[0, :, 0].tolist() == [0, 255, 0]
        floats = np.float32([[0, 0.5, 1, np.nan, -1]])
        assert self.read(tmp_path, Image.fromarray(floats), "tif")[0, :, 0].tolist() == [0, 128, 255, 0, 0]

    def test_transparency_is_left_out(self, tmp_path):
        alpha = np.full((5, 7, 1), 9, np.uint8)
        np.testing.assert_array_equal(self.read(tmp_path, Image.fromarray(np.concatenate([SCENE, alpha], 2))), SCENE)
        two = np.stack([GRAY, GRAY[::-1]], 2)
        np.testing.assert_array_equal(self.read(tmp_path, Image.fromarray(two, "LA"))[..., 1], GRAY)

    def test_palettes_and_single_bits(self, tmp_path):
        image = Image.fromarray(np.uint8([[0, 1]]))
        image.putpalette([9, 8, 7, 1, 2, 3])
        image.info["transparency"] = b"\0\xff"
        assert self.read(tmp_path, image).tolist() == [[[9, 8, 7], [1, 2, 3]]]
        assert self.read(tmp_path, Image.fromarray(np.array([[True, False]])))[..., 0].tolist() == [[255, 0]]

    def test_cmyk_of_printers(self, tmp_path):
        found = self.read(tmp_path, Image.new("CMYK", (4, 3), (0, 255, 255, 0)), "tif")
        assert (found == (255, 0, 0)).all()

    @pytest.mark.parametrize("ending", ["bmp", "gif", "JPG", "jpeg", "PNG", "Webp", "tiff"])
    def test_endings(self, tmp_path, ending):
        self.read(tmp_path, Image.new("RGB", (4, 3), (200, 100, 50)), ending)
        assert len(image_files(tmp_path)) == 1


class TestArrays:
    def test_an_array_is_read_as_it_is(self, tmp_path):
        np.save(tmp_path / "x.npy", SCENE)
        np.save(tmp_path / "f.npy", np.asfortranarray(SCENE))
        for name in ("x.npy", "f.npy"):
            found = read_image(tmp_path / name)
            assert type(found) is np.ndarray
            np.testing.assert_array_equal(found, SCENE)

    def test_elements_of_no_size_are_refused(self, tmp_path):
        """numpy divides by their size, which ends the process."""
        header = b"{'descr': '|S0', 'fortran_order': False, 'shape': (5,), }\n"
        (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header)
        with pytest.raises(ValueError, match=r"x.npy is not \(ValueError: 0 bytes cannot hold \(5,\) values of"):
            read_npy(tmp_path / "x.npy")

    @pytest.mark.parametrize("shape", ["(1000000, 1000000, 3)", "(4294967296, 4294967296)", "(-5, 3)", "(99,)"])
    def test_a_header_that_claims_too_much_allocates_nothing(self, tmp_path, shape):
        header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode())
        with pytest.raises(ValueError, match=r"^every file must be readable, but .*x.npy is not"):
            read_npy(tmp_path / "x.npy")


class TestFinding:
    @pytest.fixture
    def index(self, tmp_path):
        names = ["a_01.jpg", "a.b.PNG", "day 1/img 1.jpeg", "day 2/img 2.jpg", "img.jpg", "Ünï.jpg", "000007.jpg"]
        names += ["images/night/scan 3.jpg", "images/night/scan 4.jpg", "images/old/night/scan 4.jpg"]
        for name in [*names, "._a_01.jpg", ".cache/x.jpg", "Thumbs.db", "notes.txt"]:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return Index(tmp_path)

    def test_hidden_and_other_files_are_left_out(self, index):
        assert index.paths.keys() == {
            *("000007", "a.b", "a_01", "day 1/img 1", "day 2/img 2", "img", "Ünï"),
            *("images/night/scan 3", "images/night/scan 4", "images/old/night/scan 4"),
        }

    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("a_01", "a_01"),
            ("a_01.jpg", "a_01"),
            ("a_01.PNG", "a_01"),
            ("a_01.xml", "a_01"),
            ("  a_01\t1", "a_01"),
            ("a_01  -1", "a_01"),
            ("a_01,1,0", "a_01"),
            ("a_01.jpg;7", "a_01"),
            ('"a_01.jpg"', "a_01"),
            ("'a_01' 1", "a_01"),
            ("A_01.JPG", "a_01"),
            ("./a_01", "a_01"),
            ("/JPEGImages/a_01.jpg /SegmentationClass/a_01.png", "a_01"),
            ("JPEGImages/a_01.jpg", "a_01"),
            ("/home/ann/my set/a_01.jpg", "a_01"),
            (r"C:\sets\mine\a_01.jpg", "a_01"),
            (r"mine\a_01.jpg", "a_01"),
            ("../a_01", "a_01"),
            ("a.b", "a.b"),
            ("a.b.png 3", "a.b"),
            ("day 1/img 1", "day 1/img 1"),
            ("day 1/img 1.jpeg 1", "day 1/img 1"),
            (r"D:\day 1\img 1.jpg", "day 1/img 1"),
            ("img 1.jpg", "day 1/img 1"),
            ("img 2 1", "day 2/img 2"),
            ("img 1", "day 1/img 1"),
            ("night/scan 3.jpg", "images/night/scan 3"),
            (r"night\scan 3", "images/night/scan 3"),
            ("night/scan 4", None),
            ("old/night/scan 4 -1", "images/old/night/scan 4"),
            ("img", "img"),
            ("img 0", "img"),
            ("000007 0", "000007"),
            (unicodedata.normalize("NFD", "Ünï.jpg"), "Ünï"),
            ("a_02", None),
            ("7", None),
            ("day 3/scan 1", None),
            ("", None),
            ("/", None),
            ("..", None),
            ("1 a_01", None),
        ],
    )
    def test_what_lists_say(self, index, text, name):
        assert index.find(text) == name

    def test_a_very_long_line_is_no_hang(self, index):
        assert index.find("a_01 " + "1 " * 100_000) == "a_01"

    def test_two_files_of_one_image_are_refused(self, tmp_path):
        (tmp_path / "x.jpg").touch()
        (tmp_path / "x.PNG").touch()
        with pytest.raises(ValueError, match=r"one file, but there are .*x.PNG and .*x.jpg: remove one"):
            Index(tmp_path)

    @pytest.mark.parametrize(("name", "shown"), [("gr\udcfcn.jpg", "gr.udcfcn.jpg"), ("a\nb.jpg", "a.nb.jpg")])
    def test_file_names_that_are_no_text_are_refused(self, tmp_path, name, shown):
        (tmp_path / name).touch()
        with pytest.raises(ValueError, match=rf"must be UTF-8 without control .* '.*{shown}' is not: rename it"):
            Index(tmp_path)

    def test_a_partner_lies_at_the_same_place_or_is_the_only_one_of_its_name(self, tmp_path):
        for name in ("i/a.jpg", "i/day/b.jpg", "i/day/c.jpg", "i/c.jpg", "m/a.png", "m/b.png", "m/c.png"):
            (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
            (tmp_path / name).touch()
        images, masks = Index(tmp_path / "i"), Index(tmp_path / "m")
        found = {name: masks.partner(name, images) for name in images.paths}
        assert found == {
            "a": tmp_path / "m/a.png",
            "day/b": tmp_path / "m/b.png",
            "c": tmp_path / "m/c.png",
            "day/c": None,
        }
