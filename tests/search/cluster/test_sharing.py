import dataclasses
import pickle

import numpy as np
import pytest
import ray

from search.cluster.sharing import for_workers
from voctrain.data import load

pytestmark = pytest.mark.slow


@ray.remote(num_cpus=0)
def received(data):
    """How a worker gets the data."""
    return data.file is None, int(data.images.sum()), data.images.flags.writeable


def test_nodes_that_see_the_file_map_it(cluster, dataset):
    data = load(dataset, image_size=32)
    assert for_workers(data, None) is data
    shared = for_workers(data, cluster)
    assert shared is data
    assert ray.get(received.remote(ray.put(shared))) == (False, data.images.sum(), False)


def test_nodes_that_do_not_see_it_get_the_arrays(cluster, dataset, tmp_path):
    """As those with a cache folder of their own."""
    data = load(dataset, image_size=32)
    elsewhere = dataclasses.replace(data.file, path=tmp_path / "not here")
    for file in (elsewhere, dataclasses.replace(data.file, checksum="0" * 32)):
        hidden = dataclasses.replace(data, file=file)
        with pytest.raises(ValueError, match=r"does not see .*: set XDG_CACHE_HOME to a folder that all"):
            pickle.loads(pickle.dumps(hidden))
        shared = for_workers(hidden, cluster)
        np.testing.assert_array_equal(shared.images, data.images)
        assert ray.get(received.remote(ray.put(shared))) == (True, data.images.sum(), False)
