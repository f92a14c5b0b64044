import resource
import warnings

import pytest

MOST_MEMORY = 2 << 20  # KiB; the largest image that Pillow decodes, 179 megapixels, takes 0.7 GB


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield tmp_path_factory.mktemp("fuzz")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY
