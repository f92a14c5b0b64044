"""How files get damaged, and what readers may do with them: a right answer, or one line.

FUZZ_EXAMPLES=5000 python -m pytest tests/voctrain/data/fuzzing tries so many files per test, all different from those
of the run before; without it a few, which are the same in each run.
"""

import os

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from voctrain.data.agreement import check_labels
from voctrain.data.discovery import with_classes
from voctrain.data.image_files import read_image
from voctrain.data.layouts import read_layout
from voctrain.data.layouts.listing import labels_in

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)


def answer(read, *arguments):
    """What a reader returns; None if it refuses the file with one line."""
    try:
        return read(*arguments)
    except ValueError as error:
        refused = error
    assert type(refused) is ValueError, repr(refused)
    assert str(refused).strip(), repr(refused)
    assert "\n" not in str(refused), repr(refused)
    return None


def written(path, content):
    path.write_bytes(content)
    return path


POSITIONS = st.floats(0, 1, exclude_max=True)  # in the file
CHUNKS = st.one_of(
    st.binary(min_size=1, max_size=8),
    st.sampled_from(
        [b"\0", b"\xff" * 4, b"\n", b"\r", b'"', b",", b";", b":", b"\t", b" ", b"-1", b"9" * 30, b"\xe2\x80\xa8"]
    ),
)


def flip(raw, at, chunk):
    return (
        raw[:at] + bytes(a ^ b for a, b in zip(raw[at : at + len(chunk)], chunk, strict=False)) + raw[at + len(chunk) :]
    )


DAMAGES = [
    flip,
    lambda raw, at, chunk: raw[:at],
    lambda raw, at, chunk: raw[:at] + chunk + raw[at:],
    lambda raw, at, chunk: raw[:at] + chunk + raw[at + len(chunk) :],
    lambda raw, at, chunk: raw[:at] + raw[at + 8 * len(chunk) :],
    lambda raw, at, chunk: raw[:at] + raw[at // 2 :],
]
ENCODINGS = [
    lambda raw: raw,
    lambda raw: b"\xef\xbb\xbf" + raw,
    lambda raw: raw.decode("latin-1").encode("utf-16"),
    lambda raw: raw.decode("latin-1").encode("utf-16-le"),
    lambda raw: raw.decode("latin-1").encode("utf-8"),
    lambda raw: raw.replace(b"\n", b"\r\n"),
]


@st.composite
def damaged(draw, seeds, text=False):
    raw = draw(st.sampled_from(seeds))
    if text:
        raw = draw(st.sampled_from(ENCODINGS))(raw)
    for _ in range(draw(st.integers(1, 3))):
        raw = draw(st.sampled_from(DAMAGES))(raw, int(draw(POSITIONS) * len(raw)), draw(CHUNKS))
    return raw


def check_image(image):
    if image is not None:
        assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)
        assert image.size


def read_all(root):
    """Everything that is read of a set; a right answer is one that can be trained on, or one line."""
    listing = answer(read_layout, root)
    listing = None if listing is None else answer(with_classes, listing)
    if listing is None:
        return
    found = [answer(listing.read, i) for i in range(len(listing.examples))]
    number = len(listing.classes.names)
    for image, mask, labels in filter(None, found):
        check_image(image)
        assert labels.shape == (number,)
        assert mask is None or mask.shape == image.shape[:2]
    for test in listing.tests:
        check_image(answer(read_image, test.image))
    if None not in found and found:
        masked = [labels_in(mask, labels) for _, mask, labels in found]
        answer(check_labels, listing, np.array([labels for *_, labels in found]), np.array(masked))
