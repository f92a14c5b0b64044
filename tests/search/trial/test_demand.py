import pytest
import torch

from search.tasks import find_task
from search.trial.demand import Demand, measure_demands, trainings_per_gpu
from voctrain.data import load


@pytest.mark.parametrize(
    ("demands", "gpu_gb", "expected"),
    [
        ([Demand(2.0, 0.1)], 12, 4),  # in memory, with half as much again in reserve
        ([Demand(2.0, 0.1), Demand(4.0, 0.1)], 12, 2),
        ([Demand(1.0, 0.3)], 80, 3),  # of its time
        ([Demand(1.0, 0.2), Demand(1.0, 0.6)], 80, 2),
        ([Demand(1.0, 0.0)], 80, 8),
        ([Demand(9.0, 0.9)], 10, 1),
    ],
)
def test_as_many_trainings_share_a_gpu_as_it_has_memory_and_time_for(demands, gpu_gb, expected):
    assert trainings_per_gpu(demands, gpu_gb) == expected


def measured(dataset, device):
    task, data = find_task("classify"), load(dataset, image_size=32)
    config = {"image_size": 32, "architecture": "simple", "epochs": 1}
    configs = [task.config.from_dict({**config, "batch_size": size}) for size in (8, 16)]
    return measure_demands(task.module, configs, data, device)


def test_a_measurement_is_three_short_epochs(dataset):
    demands = measured(dataset, "cpu")
    assert len(demands) == 2
    assert all(0.6 < demand.memory_gb < 10 for demand in demands)
    assert all(demand.busy == 0 for demand in demands)  # no GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_small_trainings_leave_room_on_a_gpu(dataset):
    for demand in measured(dataset, "cuda"):
        assert 0.6 < demand.memory_gb < 2
        assert 0 < demand.busy < 1
