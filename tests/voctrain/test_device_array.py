import numpy as np
import torch

from voctrain.device_array import DeviceArray


def test_indexing_returns_copies():
    array = np.arange(2 * 3 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3, 3)
    rows_on_device = DeviceArray(array, torch.device("cpu"))
    rows = rows_on_device[torch.tensor([1, 1])]
    assert np.array_equal(rows.numpy(), array[[1, 1]])
    rows.zero_()
    assert array[1].any()
    assert len(rows_on_device) == 2
