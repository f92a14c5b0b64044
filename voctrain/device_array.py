"""An array of the whole data set, kept on the device while it fits there."""

import warnings
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor


class DeviceArray:
    """Images or masks of a whole data set (N, …), indexed to get batches on the device.

    An array larger than `budget`, a part of the GPU memory that this process may still allocate of its share, stays
    where it is, and its batches are pinned and copied asynchronously. Indexing returns copies only: the array itself
    may be shared between processes.
    """

    def __init__(self, array: np.ndarray, device: torch.device, budget: float = 0.4):
        self.device = device
        with warnings.catch_warnings():  # shared arrays are read-only, and nothing writes to this one
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            rows = torch.from_numpy(array)
        if device.type == "cuda":
            share = torch.cuda.get_per_process_memory_fraction(device.index)
            room = share * torch.cuda.get_device_properties(device).total_memory - torch.cuda.memory_allocated(device)
            if rows.nbytes <= budget * room:
                with suppress(torch.OutOfMemoryError):  # other programs have taken it
                    rows = rows.to(device)
        self.rows = rows.to(device) if device.type == "mps" else rows

    def order(self, index: Tensor) -> Tensor:
        """These indices (on the CPU) where the array is, for all batches of an epoch at once."""
        return index.to(self.rows.device, non_blocking=True)

    def __getitem__(self, index: Tensor) -> Tensor:
        """A copy of the rows at these indices, on the device."""
        # Indices that come back from the device must have arrived.
        rows = self.rows[index.to(self.rows.device, non_blocking=index.device.type == "cpu")]
        if rows.device.type == "cpu" and self.device.type == "cuda":
            rows = rows.pin_memory()
        return rows.to(self.device, non_blocking=True)

    def __len__(self) -> int:
        return len(self.rows)
