import base64
import io

import numpy as np
import pytest
from PIL import Image

from search.report.data_figures import ACROSS, training_batch
from search.tasks import find_task
from voctrain.config import AttackConfig, ClassifyConfig, SegmentConfig
from voctrain.data import Data
from voctrain.data.palette import voc_palette

PLAIN = {"image_size": 28, "hflip": 0.0}


@pytest.fixture
def data() -> Data:
    """Image i is filled with the gray 50·i and is of class i, whose object is its middle."""
    masks = np.zeros((ACROSS, 28, 28), np.uint8)
    for i in range(ACROSS):
        masks[i, 9:19, 9:19] = 1 + i
    return Data(
        ids=tuple(map(str, range(ACROSS))),
        images=np.arange(0, 50 * ACROSS, 50, np.uint8)[:, None, None, None].repeat(28, 1).repeat(28, 2).repeat(3, 3),
        labels=np.eye(ACROSS, dtype=np.uint8),
        masks=masks,
        train=np.arange(ACROSS),
        val=np.arange(0),
        test_ids=(),
        test_images=np.zeros((0, 28, 28, 3), np.uint8),
        sizes=np.full((ACROSS, 2), 28, np.int32),
        test_sizes=np.zeros((0, 2), np.int32),
        classes=tuple("abcde"),
        fingerprint="0",
        warnings=(),
    )


def pictures(figure, rows):
    """Middle and upper left of each picture of a sheet, (rows, ACROSS, 2, 3)."""
    content = figure.url.removeprefix("data:image/jpeg;base64,")
    sheet = np.array(Image.open(io.BytesIO(base64.b64decode(content))), int)
    height, width = (sheet.shape[0] - 6) // rows, (sheet.shape[1] - 6) // ACROSS
    places = ((96, 96), (26, 26))
    return np.array(
        [[[sheet[r * height + y, c * width + x] for y, x in places] for c in range(ACROSS)] for r in range(rows)]
    )


def test_a_mixed_batch_is_shown_with_its_targets(data):
    figure = training_batch(find_task("classify"), data, ClassifyConfig(**PLAIN, mixup=1.0))
    images, mixed = pictures(figure, rows=2)[..., 0, 0]
    np.testing.assert_allclose(images, [0, 50, 100, 150, 200], atol=3)
    targets = [part.split() for part in figure.alt.split("targets: ")[1].split("; ")]
    assert targets[1][0] == "a"  # mixed with its neighbor
    kept = float(targets[1][3])
    assert 0.01 < kept < 0.99
    np.testing.assert_allclose(mixed, [200 * (1 - kept), *(50 * i - 50 * (1 - kept) for i in range(1, 5))], atol=4)


def test_a_batch_with_pasted_objects_shows_its_masks(data):
    figure = training_batch(find_task("segment"), data, SegmentConfig(**PLAIN, copy_paste=1.0))
    _, pasted, masks = pictures(figure, rows=3)
    np.testing.assert_allclose(pasted[..., 0], [[200, 0], [0, 50], [50, 100], [100, 150], [150, 200]], atol=4)
    np.testing.assert_allclose(masks[:, 0], voc_palette()[[5, 1, 2, 3, 4]], atol=8)
    np.testing.assert_allclose(masks[:, 1], 0, atol=8)


def test_the_batch_of_an_attack_is_of_the_images_that_it_may_see(data):
    config = AttackConfig(**{**PLAIN, "hflip": 1.0}, victim="run")
    images, seen = pictures(training_batch(find_task("attack"), data, config), rows=2)[..., 0, 0]
    np.testing.assert_allclose(seen, images, atol=3)
    unlabeled = Data(**{**vars(data), "test_ids": ("t",), "test_images": np.full((1, 28, 28, 3), 77, np.uint8)})
    np.testing.assert_allclose(pictures(training_batch(find_task("attack"), unlabeled, config), rows=2), 77, atol=3)
