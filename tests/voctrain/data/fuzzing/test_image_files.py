import io
import struct
import zlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.voctrain.data.drawing import scene
from tests.voctrain.data.fuzzing.damage import CHUNKS, answer, check_image, damaged, fuzz, written
from voctrain.data.class_names import ClassList
from voctrain.data.image_files import read_image, read_npy
from voctrain.data.mask_files import look, read_mask
from voctrain.data.palette import voc_palette

CLASSES = [
    ClassList(("a", "b", "c"), "classes.txt"),
    ClassList(("a", "b", "c"), "labelmap.txt", colors={(128, 0, 0): 1, (0, 0, 0): 0, (9, 9, 9): 2}, ordered=False),
    ClassList(("a",), "labels.txt", values={7: 1, 0: 255}, forced={255: 1, 300: 0}),
]


def encoded(array, ending, palette=None, **options):
    image, file = Image.fromarray(array), io.BytesIO()
    if palette is not None:
        image.putpalette(np.asarray(palette, np.uint8).tobytes())
    image.save(file, ending, **options)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


IMAGE, MASK = scene(0, 3, (6, 8))
EXIF = Image.Exif()
EXIF[274] = 6
IMAGES = {
    ".jpg": encoded(IMAGE, "JPEG", exif=EXIF),
    ".png": encoded(IMAGE, "PNG", exif=EXIF),
    ".webp": encoded(IMAGE, "WEBP", exif=EXIF),
    ".tif": encoded(IMAGE, "TIFF", exif=EXIF, compression="tiff_lzw"),
    ".bmp": encoded(IMAGE, "BMP"),
    ".gif": encoded(MASK, "GIF", palette=voc_palette()),
    ".npy": npy(IMAGE),
}
MASKS = {
    "palette.png": encoded(MASK, "PNG", palette=voc_palette()),
    "short.png": encoded(MASK, "PNG", palette=voc_palette()[:4]),
    "rgb.png": encoded(voc_palette()[MASK], "PNG"),
    "deep.png": encoded(MASK.astype(np.uint16), "PNG"),
    "bits.png": encoded(MASK == 1, "PNG"),
    "mask.gif": encoded(MASK, "GIF"),
    "mask.tif": encoded(MASK.astype(np.int32), "TIFF"),
    "mask.npy": npy(MASK.astype(np.int64)),
}


@st.composite
def damaged_png(draw, raw):
    """One chunk is damaged, and its checksum right, so that decoders look at it."""
    chunks, at = [], 8
    while at < len(raw):
        (length,) = struct.unpack(">I", raw[at : at + 4])
        chunks.append((raw[at + 4 : at + 8], raw[at + 8 : at + 8 + length]))
        at += 12 + length
    k = draw(st.integers(0, len(chunks) - 1))
    kind, body = chunks[k]
    chunks[k] = (kind, draw(damaged([body])) if body else draw(CHUNKS))
    if draw(st.booleans()):
        chunks.insert(k, draw(st.sampled_from(chunks)))
    parts = (struct.pack(">I", len(b)) + kind + b + struct.pack(">I", zlib.crc32(kind + b)) for kind, b in chunks)
    return raw[:8] + b"".join(parts)


@st.composite
def some_image(draw, files):
    name, raw = draw(st.sampled_from(sorted(files.items())))
    return name, draw(damaged_png(raw) if name.endswith(".png") and draw(st.booleans()) else damaged([raw]))


def check_masks(path):
    seen = answer(look, path)
    assert seen is None or seen.values is None or seen.values
    for classes in CLASSES:
        mask = answer(read_mask, path, classes)
        if mask is not None:
            assert (mask.dtype, mask.ndim) == (np.uint8, 2)
            assert set(np.unique(mask).tolist()) <= {*range(len(classes.names) + 1), 255}


@fuzz
@given(found=some_image(IMAGES))
def test_images(folder, found):
    check_image(answer(read_image, written(folder / f"x{found[0]}", found[1])))


@fuzz
@given(found=some_image(MASKS))
def test_masks(folder, found):
    check_masks(written(folder / found[0], found[1]))


@fuzz
@given(
    colors=st.lists(
        st.sampled_from([*map(tuple, voc_palette()[:5].tolist()), (9, 9, 9), (255,) * 3, (3,) * 3]), max_size=8
    ),
    values=st.lists(st.integers(0, 9), min_size=1, max_size=6),
)
def test_palettes(folder, colors, values):
    check_masks(written(folder / "p.png", encoded(np.uint8([values]), "PNG", palette=[*colors, (1, 2, 3)])))


@fuzz
@given(
    exif=st.one_of(st.binary(max_size=40), damaged([EXIF.tobytes().removeprefix(b"Exif\0\0")])),
    ending=st.sampled_from(["JPEG", "PNG", "WEBP"]),
)
def test_exif_data(folder, exif, ending):
    """The pixels are sound, and so is the image."""
    image = answer(read_image, written(folder / "x.jpg", encoded(IMAGE, ending, exif=b"Exif\0\0" + exif)))
    assert image is not None
    assert image.shape in ((6, 8, 3), (8, 6, 3))


@fuzz
@given(
    descr=st.sampled_from(
        ["|u1", "<i8", ">u2", "<f8", "|O", "|b1", "<U9", "|V3", "|S0", "<M8[s]", "x", 5, [("a", "<i4")]]
    ),
    shape=st.lists(st.one_of(st.integers(-2, 9), st.sampled_from([2**31, 2**40, 2**62, 2**64, 10**30])), max_size=4),
    order=st.sampled_from([True, False, 1, None]),
    content=st.binary(max_size=64),
)
def test_headers_of_arrays(folder, descr, shape, order, content):
    header = f"{{'descr': {descr!r}, 'fortran_order': {order!r}, 'shape': {tuple(shape)!r}, }}\n".encode()
    raw = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + content
    path = written(folder / "x.npy", raw)
    array = answer(read_npy, path)
    assert array is None or array.nbytes <= len(content)
    check_image(answer(read_image, path))
    check_masks(path)


SIDE = st.sampled_from([0, 1, 7, 20_000, 65_535, 2**31 - 1, 2**32 - 1])


@fuzz
@given(width=SIDE, height=SIDE, depth=st.sampled_from([1, 8, 16]), kind=st.sampled_from([0, 2, 3, 4, 6]))
def test_pictures_that_claim_to_be_huge(folder, width, height, depth, kind):
    raw = MASKS["palette.png"]
    body = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    raw = raw[:12] + b"IHDR" + body + struct.pack(">I", zlib.crc32(b"IHDR" + body)) + raw[33:]
    path = written(folder / "huge.png", raw)
    check_image(answer(read_image, path))
    check_masks(path)
